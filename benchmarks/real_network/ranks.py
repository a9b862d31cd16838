"""One process for each namespace of a bed, told what to do and listened to over pipes."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from bed import INTERFACE, Bed

_PORT = 29_571
_PATIENCE_S = 10


class CrewError(RuntimeError):
    """A rank that failed; says which, and its last words."""


class Crew:
    """The ranks. A context manager: at its end all are gone, by their own ids."""

    def __init__(self, bed: Bed, member: str = "rank:Member") -> None:
        """member: the module and the class whose methods the ranks are told to call."""
        self._processes: list[subprocess.Popen[str]] = []
        self._words: list[IO[str]] = []  # what each says when it fails
        environment = os.environ | {"GLOO_SOCKET_IFNAME": INTERFACE, "OMP_NUM_THREADS": "1"}
        script = str(Path(__file__).with_name("rank.py"))
        try:
            for rank, name in enumerate(bed.names):
                self._words.append(tempfile.TemporaryFile("w+"))  # noqa: SIM115 - closed in `close`
                told = [str(rank), str(len(bed.names)), bed.address(0), str(_PORT), member]
                self._processes.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", name, sys.executable, script, *told],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words[-1], text=True,
                        env=environment, start_new_session=True,
                    )
                )  # fmt: skip
        except BaseException:
            self.close(at_once=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_once=kind is not None)

    def do(self, command: str, **given: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        """Have all ranks do the same; their answers, by rank. Raises CrewError when one fails."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # the answer that does not come says more
                process.stdin.write(json.dumps({"do": command, **given}) + "\n")
                process.stdin.flush()
        return [self._answer(rank, process) for rank, process in enumerate(self._processes)]

    def _answer(self, rank: int, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self._words[rank].seek(0)
            words = self._words[rank].read().strip().splitlines()
            raise CrewError(f"rank {rank} ended: {words[-1] if words else 'without a word'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self, *, at_once: bool = False) -> None:
        """End every process. Without `at_once` each is asked first, by the end of its input."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        deadline = time.monotonic() + (0 if at_once else _PATIENCE_S)
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for words in self._words:
            words.close()
