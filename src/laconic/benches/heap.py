"""Plain torch with temporaries that the C library keeps, in a process of its own.

glibc gives every block above 32 MiB back at once, so that each torch operation on a large vector pays for fresh pages.
Its settings are read when a process starts. Elsewhere they change nothing.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
_PATIENCE_S = 5


class RetainedHeap:
    """That process, measuring cases on request. A context manager: at its end it is gone."""

    def __init__(self, d: int, densities: Sequence[float]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "laconic.benches.heap", json.dumps({"d": d, "densities": list(densities)})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | SETTINGS,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_PATIENCE_S if kind is None else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def in_copies(self, case: str, repeats: int) -> tuple[float, ...]:
        """Plain torch's times over the median of copies, there, in turns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"case": case, "repeats": repeats}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that measures plain torch with retained temporaries has ended")
        return tuple(json.loads(line))


def main() -> None:
    """Argument: d and the densities. Reads a case a line, and answers each with a line."""
    import torch

    from laconic.benches.cases import cases
    from laconic.benches.kernels import in_copies, vector_of

    torch.set_num_threads(1)
    given: dict[str, Any] = json.loads(sys.argv[1])
    known = cases(given["densities"])
    vector = vector_of(given["d"])
    for line in sys.stdin:
        asked = json.loads(line)
        calls = known[asked["case"]].prepare(vector)
        copies, _ = in_copies({"torch": calls["torch"]}, vector, asked["repeats"])
        sys.stdout.write(json.dumps(copies["torch"]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
