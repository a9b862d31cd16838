"""A log for TensorBoard, written by torch.utils.tensorboard into the folder `tensorboard`."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class EventFiles:
    """The event files of one run: a scalar for each name, and the settings as a table under TEXT."""

    def __init__(self, folder: Path, *, name: str, config: Mapping[str, Any], start: int) -> None:
        """Begin event files. What earlier ones have after the step `start` is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        before = set(threading.enumerate())
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=start + 1)
        self._threads = set(threading.enumerate()) - before
        self._excepthook = threading.excepthook
        threading.excepthook = self._ended
        rows = "".join(f"| {key} | {value} |\n" for key, value in config.items())
        text = f"{name}\n\n| setting | value |\n|---|---|\n{rows}"
        self._writer.add_text("settings", text, start)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to the curve of each name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """Write what is left."""
        try:
            self._writer.close()
        finally:
            if threading.excepthook == self._ended:  # else it is that of files begun later, which still write
                threading.excepthook = self._excepthook

    def _ended(self, ending: threading.ExceptHookArgs) -> None:
        """Print no traceback of a thread that writes: its error, such as a full disk, is raised by the next `log`."""
        if ending.thread not in self._threads:
            self._excepthook(ending)
