"""Checkpoints in files: of all ranks, complete or not there, checked to the byte, for any number of ranks.

```python
for step in range(begin, steps):
    ...
    if step % 1000 == 0:
        laconic.checkpoint.save("runs/1", opt, step=step)
```
"""

from laconic.checkpoint.folders import check as check
from laconic.checkpoint.folders import newest as newest
from laconic.checkpoint.loading import Loaded as Loaded
from laconic.checkpoint.loading import load as load
from laconic.checkpoint.saving import save as save

__all__ = ["Loaded", "check", "load", "newest", "save"]
