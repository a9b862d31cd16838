"""The options of `laconic compare`: what is compared, and what differs between the runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from laconic.errors import Named, OptionError
from laconic.lab.algorithms import OF_WARM_UP, algorithm_class, check_name, has_dense_rounds, settings_by_name
from laconic.lab.comparison.plan_file import Asked, read_comparison
from laconic.lab.comparison.shipped import experiment_file
from laconic.lab.options import PURE_NUMBER, OptionGroup, option
from laconic.units import size

if TYPE_CHECKING:
    from laconic.lab.comparison.cell_runs import Place


def seeds_of(text: str) -> tuple[int, ...]:
    """Return the seeds in a text such as "0,1,2". Raises ValueError if it has no such form."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ValueError("must be whole numbers with commas between them, such as 0,1,2") from None


@dataclass(frozen=True, kw_only=True)
class CompareOptions(OptionGroup):
    """The algorithms to compare, and what differs between them."""

    algorithms: tuple[str, ...] = option(
        ..., "The methods to compare: names that `laconic list` prints; or one TOML file of a comparison.",
        positional=True, names="methods",
    )  # fmt: skip
    set: dict[str, str] = option(
        {}, "Set one hyper-parameter of one method. Can be given several times.", metavar="NAME.KEY=VALUE"
    )
    lr_of: dict[str, str] = option(
        {}, "Set the learning rate of one method, as --lr takes it. Can be given several times.", metavar="NAME=LR"
    )

    as_: dict[str, str] = option(
        {}, "Compare a method once more under another label, with settings of its own. Can be given several times.",
        metavar="LABEL=METHOD",
    )  # fmt: skip
    seeds: str | None = option(
        None, "The seeds: each method is trained with every one.", metavar="0,1,2", reads=seeds_of
    )
    target: float | None = option(
        None, "The test accuracy to which bytes and rounds are counted.", within="(0, 1]", unit=PURE_NUMBER,
    )  # fmt: skip
    jobs: int | None = option(
        None, "The number of runs of a comparison over seeds that go on at once.", within="[1, inf)", unit="runs",
        shown="cores",
    )  # fmt: skip
    memory: str | None = option(
        None, "How much memory all of them together may take, such as 4GB; fewer go on at once where it is little.",
        metavar="SIZE", reads=size, shown="four fifths of what is free",
    )  # fmt: skip
    on: str | None = option(
        None, "Where the runs are: ray runs them as tasks of a Ray cluster. Without it they are on this machine.",
        choices=("ray",),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check names and learning rates.

        Raises:
            OptionError: A name is given twice or is not compared, or a learning rate is not a number above 0.
        """
        super().__post_init__()
        labels = (*self.algorithms, *self.as_)
        doubled = sorted({name for name in labels if labels.count(name) > 1})
        if doubled:
            raise OptionError(
                f"{doubled[0]} is named twice; give it once, or another label with ", Named("as_"), " LABEL=METHOD"
            )
        for name, text in self.lr_of.items():
            if _learning_rate(text) is None:
                raise OptionError(Named("lr_of", name), f"={text!r} must be a number above 0 and finite, or theory")
        if self.file is None and not self.as_:
            settings_by_name(self.algorithms, self.set)
            for name in self.lr_of:
                check_name(name, self.algorithms, option="lr_of")

    @property
    def file(self) -> Path | None:
        """The file that says what is compared; None if methods are named."""
        return Path(self.algorithms[0]) if self.algorithms and self.algorithms[0].lower().endswith(".toml") else None

    @property
    def has_cells(self) -> bool:
        """Whether there are seeds, networks, partitions or variants, so that each run is a cell of a comparison."""
        return (
            self.file is not None
            or bool(self.as_)
            or any(each is not None for each in (self.seeds, self.target, self.jobs, self.memory, self.on))
        )

    def folder(self, out: Path | None) -> Path | None:
        """Return the folder of the results: that of `out`, or for cells one that is named by the file."""
        if out is not None or not self.has_cells:
            return out
        return Path("runs") / (self.file.stem if self.file is not None else "comparison")

    def check_given(self, given: Mapping[str, Any], launch: Any) -> None:  # noqa: ANN401 - options of `train`
        """Refuse options that do not go with cells.

        Raises:
            OptionError: There is one.
        """
        if not self.has_cells:
            return
        if self.on is not None and self.memory is not None:
            raise OptionError(
                Named("memory", self.memory), " is of this machine, and ", Named("on", self.on),
                " watches the memory of each node itself; leave one of them out",
            )  # fmt: skip
        if self.file is not None and len(self.algorithms) > 1:
            raise OptionError(
                f"{self.algorithms[0]} says what is compared, so name no methods beside it: {self.algorithms[1]}"
            )
        if self.file is not None and launch.config is not None:
            raise OptionError(Named("config", launch.config), f" and {self.file} are two files of options; give one")
        for name, remedy in (("seed", "seeds"), ("driver", ""), ("record_times", "")):
            if name in given and given[name] != "simulated":
                words = ["give ", Named(remedy)] if remedy else ["it runs in the simulator; leave it out"]
                raise OptionError(Named(name, given[name]), " is not for a comparison over seeds: ", *words)
        for name in ("save_every", "plot", "port"):
            if getattr(launch, name):
                raise OptionError(
                    Named(name, getattr(launch, name)), " is not for a comparison over seeds; leave it out"
                )

    def place(self) -> "Place | None":
        """Return where the runs are; None for this machine. Raises OptionError if what this takes is not installed."""
        if self.on is None:
            return None
        from laconic.lab.comparison.on_ray import OnRay

        return OnRay()

    def asked(self, given: Mapping[str, Any]) -> Asked:
        """Return what is to be compared.

        Args:
            given: Options of all cells that are given beside.

        Raises:
            ValueError: A file has a wrong key or value.
        """
        from_file = None if self.file is None else read_comparison(experiment_file(self.file))
        named = {name: {"algorithm": name} for name in self.algorithms if self.file is None}
        added = {label: {"algorithm": method} for label, method in self.as_.items()}
        typed = Asked(
            variants={**(from_file.variants if from_file else named), **added},
            options={name: value for name, value in given.items() if name != "driver"},
            seeds=None if self.seeds is None else seeds_of(self.seeds), target=self.target,
            set=self.set,
            lr_of={name: lr for name, text in self.lr_of.items() if (lr := _learning_rate(text)) is not None},
        )  # fmt: skip
        return typed if from_file is None else from_file.with_typed(typed)

    def plans(self, shared: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the values of `RunSettings`, one dictionary per algorithm.

        Args:
            shared: The values that were typed for all of them.
        """
        for name in self.algorithms:
            algorithm_class(name)
        settings = settings_by_name(self.algorithms, self.set)
        # Only methods that have dense rounds get the dense epochs. If none has, all get them and are refused.
        dense = {name for name in self.algorithms if has_dense_rounds(name)} or frozenset(self.algorithms)
        plans = []
        for name in self.algorithms:
            own: dict[str, Any] = {"algorithm": name, "set": settings[name]}
            if name in self.lr_of:
                own["lr"] = _learning_rate(self.lr_of[name])
            plans.append({key: value for key, value in shared.items() if key not in OF_WARM_UP or name in dense} | own)
        return plans


def _learning_rate(text: str) -> float | Literal["theory"] | None:
    """Return a learning rate, or None if the text is none."""
    if text == "theory":
        return "theory"
    try:
        learning_rate = float(text)
    except ValueError:
        return None
    return learning_rate if 0 < learning_rate < math.inf else None
