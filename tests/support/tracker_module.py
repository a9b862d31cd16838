"""A stand-in for an experiment tracker's package: a module file that keeps the calls of `init`, `log` and `finish`.

It shows that the public shape of wandb and trackio is what is called, with which arguments. Neither is installed here.
"""

import importlib
import json
import sys
from pathlib import Path

SOURCE = """
import json
from pathlib import Path

CALLS = Path(__file__).with_suffix(".calls")


def keep(call, /, **arguments):
    with CALLS.open("a") as stream:
        stream.write(json.dumps([call, arguments]) + "\\n")


def init(project, name=None, config=None, **more):
    if config.get("model") == "refused":
        raise RuntimeError("no API key")
    keep("init", project=project, name=name, config=config, **more)


def log(values, step=None):
    if values.get("fails"):
        raise ConnectionError("the server is gone")
    keep("log", values=values, step=step)


def finish():
    keep("finish")
"""


def install_tracker(monkeypatch, folder: Path, name: str) -> Path:
    """Put a package of this name into a folder on the path; returns the file to which it writes its calls."""
    (folder / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return folder / f"{name}.calls"


def calls_in(file: Path) -> list[tuple[str, dict]]:
    """The calls in order: name and arguments."""
    return [(name, arguments) for name, arguments in map(json.loads, file.read_text().splitlines())]
