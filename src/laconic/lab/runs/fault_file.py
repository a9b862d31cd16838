"""The file of `--faults`: read once, and held against the run. What is wrong is named with the file and the line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from laconic.contract import Algorithm, ModelSpec
from laconic.errors import Named, OptionError, option_named
from laconic.faults.events import PlanError
from laconic.faults.plan import FaultPlan
from laconic.faults.plan_file import located
from laconic.protocol.layout import Layout


class FaultFile:
    """A fault plan and the text that it was read from."""

    def __init__(self, path: str) -> None:
        """Read a file.

        Raises:
            OptionError: The file cannot be read, or is not a valid fault plan.
        """
        self._path = path
        with option_named("faults", path):
            data = Path(path).expanduser().read_bytes()
        self._text = self._decoded(data)
        with self._refused():
            self.plan = FaultPlan.from_toml(self._text)

    def _decoded(self, data: bytes) -> str:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise OptionError(
                Named("faults", self._path), f": line {line}: byte 0x{data[error.start]:02x} is not UTF-8 text; save "
                "the file as UTF-8",
            ) from None  # fmt: skip

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """Turn a fault of the plan into one of the option, with its line."""
        try:
            yield
        except PlanError as error:
            if "faults: line " not in str(error):
                error = located(error, self._text)
            raise OptionError(Named("faults", self._path), f": {str(error).removeprefix('faults: ')}") from None

    def check(
        self, algorithm: Algorithm, layout: Layout, n_workers: int, spec: ModelSpec, rounds: int | None = None
    ) -> None:
        """Refuse a plan that the run does not admit, as `FaultPlan.check` does. Raises OptionError."""
        with self._refused():
            self.plan.check(algorithm, layout, n_workers, spec, rounds)

    def check_times(self, compute: str | None, bandwidth: str | None) -> None:
        """Refuse slow workers without a time of computing, and slow links without a bandwidth. Raises OptionError."""
        for is_given, names, option, example in (
            (compute, ("stragglers", "straggle"), "compute", "50ms"),
            (bandwidth, ("slow_links",), "bandwidth", "10Mbit"),
        ):  # fmt: skip
            name = next((name for name in names if getattr(self.plan, name)), None)
            if name is not None and not is_given:
                error = located(PlanError(f"{name} needs ", name), self._text)
                raise OptionError(
                    Named("faults", self._path), f": {str(error).removeprefix('faults: ')}", Named(option, example),
                    ", or another value: without one there is nothing to slow down",
                )  # fmt: skip
