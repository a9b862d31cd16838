"""What a run is judged by: the test accuracy, or the figure that its task has in its place."""

from dataclasses import dataclass

from laconic.lab.runs.record import Row
from laconic.lab.runs.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of a row."""

    column: str
    """Its column in `metrics.csv`."""
    short: str
    """Its name in a table."""
    label: str
    """Its name beside an axis, with the unit."""
    is_share: bool
    """Whether it is shown in percent."""
    higher_is_better: bool

    def value(self, row: Row) -> float:
        """Return the figure, in percent if it is a share; NaN where it was not measured."""
        found = getattr(row, self.column)
        return float("nan") if found is None else 100 * found if self.is_share else float(found)

    def text(self, row: Row) -> str:
        """Return the figure as a table shows it."""
        found = getattr(row, self.column)
        return f"{found:.2%}" if self.is_share and found is not None else f"{self.value(row):.3g}"


ACCURACY = Measure(
    column="test_accuracy", short="accuracy", label="test accuracy (%)", is_share=True, higher_is_better=True
)
_BY_COLUMN = {
    ACCURACY.column: ACCURACY,
    "gap": Measure(column="gap", short="gap", label="f(x) - f*", is_share=False, higher_is_better=False),
    "metric": Measure(column="metric", short="metric", label="metric", is_share=False, higher_is_better=True),
}


def measure_of(settings: RunSettings) -> Measure:
    """Return what a run with these settings is judged by."""
    return _BY_COLUMN[settings.task_kind.judged_by]
