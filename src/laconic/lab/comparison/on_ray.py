"""Runs the cells of a comparison as tasks of Ray, over a cluster: `--on ray`.

A node needs laconic, and the data in the same place. It trains a cell in a folder of its own, so that no file system
has to be shared: the files of a cell travel, those of one that has saved itself too, in both directions.
"""

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from laconic.errors import LaunchError, Named, OptionError
from laconic.lab.atomic import write_bytes
from laconic.lab.own_results import MIDWAY
from laconic.lab.processes.place import described
from laconic.lab.processes.pool import Figures, PoolTask, TaskProgress
from laconic.lab.runs.saved_checks import library_versions
from laconic.lab.runs.store import FILE as SUMMARY

_WAIT_S = 0.2
_LAST = (MIDWAY, SUMMARY)  # they say that the files before them are there
Files = Mapping[str, bytes]  # by their names in the folder of the comparison


class OnRay:
    """A cluster of Ray: the one of RAY_ADDRESS, the one that runs here, or else one that is started for this call."""

    bounds_memory = True

    def __init__(self) -> None:
        """Look for Ray, and connect to nothing yet.

        Raises:
            OptionError: It is not installed.
        """
        if find_spec("ray") is None:
            raise OptionError(
                Named("on", "ray"), ": Ray is not installed here; `pip install 'laconic[ray]'` installs it, or leave ",
                Named("on"), " out to train on this machine",
            )  # fmt: skip
        self._ray: Any = None

    def _connected(self) -> Any:  # noqa: ANN401 - the module
        import ray

        if self._ray is None:
            os.environ.setdefault("RAY_worker_niceness", "0")  # a cluster that is started here has this priority
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
            for number, handler in handlers.items():  # Ray takes them
                signal.signal(number, handler)
            self._ray = ray
        return self._ray

    def cores(self) -> int:
        """Return the number of cores of the cluster."""
        return int(self._connected().cluster_resources().get("CPU", 1))

    def run(
        self,
        tasks: Sequence[PoolTask],
        at_once: int,
        listen: Callable[[TaskProgress], None],
        finished: Callable[[PoolTask, Figures], None],
        failed: Callable[[PoolTask, LaunchError], None],
        choose: Callable[[Sequence[PoolTask]], PoolTask | None],
        started: Callable[[PoolTask, int | None], None],
    ) -> None:
        """Run the tasks as `laconic.lab.processes.pool.run_tasks`; no work of the cluster outlives the call."""
        ray = self._connected()
        waiting, running = list(tasks), dict[Any, PoolTask]()
        mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
        try:
            while waiting or running:
                while waiting and len(running) < at_once and (task := choose(waiting)) is not None:
                    waiting = [each for each in waiting if each is not task]
                    running[_submitted(ray, task, mailbox)] = task
                    started(task, None)
                ended, _ = ray.wait(list(running), timeout=_WAIT_S)
                for label, progress, files in ray.get(mailbox.take.remote()):
                    task = next((each for each in running.values() if each.label == label), None)
                    if task is not None:
                        _write(task, files)
                        listen(progress)
                for reference in ended:
                    self._end(reference, running.pop(reference), finished, failed)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            ray.shutdown()
            self._ray = None

    def _end(
        self,
        reference: object,
        task: PoolTask,
        finished: Callable[[PoolTask, Figures], None],
        failed: Callable[[PoolTask, LaunchError], None],
    ) -> None:
        try:
            figures, why, files = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            words = next(iter(str(error).strip().splitlines()), type(error).__name__)
            failed(task, LaunchError(f"{task.label}: its process was lost: {words:.200}"))
            return
        if why:
            failed(task, LaunchError(f"{task.label}: {why}"))
            return
        _write(task, files)
        finished(task, figures)


class _Mailbox:
    """Holds what workers report until the command looks."""

    def __init__(self) -> None:
        self._letters: list[tuple[str, TaskProgress, Files]] = []

    def put(self, label: str, progress: TaskProgress, files: Files) -> None:
        self._letters.append((label, progress, files))

    def take(self) -> list[tuple[str, TaskProgress, Files]]:
        letters, self._letters = self._letters, []
        return letters


def _submitted(ray: Any, task: PoolTask, mailbox: object) -> object:  # noqa: ANN401
    """Submit a task, with the files of its cells as they are here. Each has a process of its own, as on one machine."""
    root = _root(task)
    files = {} if root is None else dict(_files_in(root, _folders(task)))
    remote = ray.remote(num_cpus=task.cores, max_calls=1, max_retries=0)(_work)
    reference: object = remote.remote(task, files, mailbox, list(sys.path), library_versions())
    return reference


def _work(
    task: PoolTask,
    files: Files,
    mailbox: Any,  # noqa: ANN401
    paths: Sequence[str],
    made_with: Mapping[str, str],
) -> tuple[Figures, str, Files]:
    """Do the work of a task in a process of a node. Return its figures, or why it failed, and its files."""
    sys.path[:] = paths
    if (here := library_versions()) != made_with:
        return {}, f"this node has {here}, and the command {dict(made_with)}; install the same", {}
    with tempfile.TemporaryDirectory() as folder:
        moved = _moved(task, Path(folder))
        _write(moved, files)
        letters = _Letters(moved, mailbox)
        try:
            figures = moved.work(letters.report, **moved.arguments)
        except Exception as error:
            return {}, described(error), {}
        return figures, "", dict(_files_in(Path(folder), _folders(task)))


class _Letters:
    """What a worker reports from time to time: its progress, and the files of cells that have saved themselves."""

    def __init__(self, task: PoolTask, mailbox: Any) -> None:  # noqa: ANN401 - a handle of Ray
        self._task, self._mailbox = task, mailbox
        self._last_s, self._saved_ns = 0.0, self._saved_when()

    def report(self, done: int, total: int, note: str) -> None:
        now, saved_ns = time.monotonic(), self._saved_when()
        if done not in (0, total) and now - self._last_s <= _WAIT_S and saved_ns == self._saved_ns:
            return
        root, files = _root(self._task), {}
        if saved_ns != self._saved_ns and root is not None:
            files = dict(_files_in(root, _folders(self._task)))
        self._last_s, self._saved_ns = now, saved_ns
        progress = TaskProgress(label=self._task.label, done=done, total=total, note=note)
        self._mailbox.put.remote(self._task.label, progress, files)

    def _saved_when(self) -> int:
        root, folders = _root(self._task), _folders(self._task)
        if root is not None and folders:
            with contextlib.suppress(FileNotFoundError):
                return (root / folders[0] / MIDWAY).stat().st_mtime_ns
        return 0


def _cell_arguments(task: PoolTask) -> Mapping[str, Any]:
    """Return the arguments of `train_cells`."""
    arguments: Mapping[str, Any] = task.arguments["arguments"]
    return arguments


def _root(task: PoolTask) -> Path | None:
    return _cell_arguments(task).get("root")


def _folders(task: PoolTask) -> list[str]:
    return [folder for _, folder in _cell_arguments(task).get("cells", ())]


def _moved(task: PoolTask, root: Path) -> PoolTask:
    """Return the same task in another folder."""
    arguments = {**_cell_arguments(task), "root": root} if _root(task) is not None else _cell_arguments(task)
    return replace(task, arguments={**task.arguments, "arguments": arguments})


def _files_in(root: Path, folders: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and not path.name.endswith(".part"):
                yield str(path.relative_to(root)), path.read_bytes()


def _write(task: PoolTask, files: Files) -> None:
    """Write the files of a task's cells, those that say that others are there at the end."""
    root = _root(task)
    if root is None or not files:
        return
    for name in sorted(files, key=lambda name: Path(name).name in _LAST):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(root / name, files[name])
    for folder in _folders(task):
        if f"{folder}/{MIDWAY}" not in files:
            (root / folder / MIDWAY).unlink(missing_ok=True)
