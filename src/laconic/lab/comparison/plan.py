"""What a comparison consists of: variants of methods, seeds, networks and partitions, and a cell for each combination.

Importing this file loads no torch.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

from laconic.errors import Named, OptionError
from laconic.hyperparameters import MAX_NAME
from laconic.lab.algorithms import OF_WARM_UP, has_dense_rounds
from laconic.lab.options import options_of
from laconic.lab.runs.settings import OF_PARTITION, SIMULATED_ONLY, RunSettings

NO_NETWORK = "-"
"""The folder of cells without a network."""
OF_A_CELL = ("algorithm", "seed", "driver")
"""Options of a run that a comparison gives each cell itself."""
OPTIONS = tuple(name for name in (each.name for each, _ in options_of(RunSettings)) if name not in OF_A_CELL)
"""Options of a run that can be the same in all cells."""
OF_A_NETWORK = SIMULATED_ONLY
"""Options of a run that say what network it has."""
OF_A_PARTITION = ("partition", *OF_PARTITION)
"""Options of a run that say how its workers share the examples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One run of a comparison. It is a key of dictionaries, and equal to itself alone."""

    label: str
    """Of the variant."""
    network: str | None
    partition: str
    """Its name, with its parameter."""
    settings: RunSettings

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.settings.seed

    @property
    def folder(self) -> str:
        """The folder of the run, in that of the comparison."""
        return f"cells/{self.label}/{self.network or NO_NETWORK}/{self.partition}/seed-{self.seed}"

    @property
    def kind(self) -> str:
        """What cells have in common that take about the same time and memory."""
        return f"{self.label} {self.partition}"

    @property
    def name(self) -> str:
        """What messages call it: "ec-sgd, home, dirichlet-0.1, seed 3"."""
        return ", ".join(filter(None, (self.label, self.network, self.partition, f"seed {self.seed}")))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Variants of methods x seeds x networks x partitions on one task."""

    variants: Mapping[str, Mapping[str, Any]]
    """By label, the options of `RunSettings` that are of this variant alone: its `algorithm`, `set`, `lr` and such."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of `RunSettings` that all cells have."""
    seeds: tuple[int, ...] = (0,)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name, the options of `RunSettings` that are of this network. Without any, the options of all cells count."""
    partitions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name, likewise for partitions."""
    target: float | None = None
    """The test accuracy to which bytes and rounds are counted; None leaves the choice to who reads the results."""

    def __post_init__(self) -> None:
        """Check what can be checked without making a run.

        Raises:
            OptionError: There is no variant or seed, a seed is there twice, a name is no name for a folder, or an
                option is given in two places that exclude each other.
        """
        if not self.variants:
            raise OptionError(Named("algorithms"), ": there is no method to compare; name one or more")
        _check_seeds(self.seeds)
        for what, names in (("as", self.variants), ("networks", self.networks), ("partitions", self.partitions)):
            for name in names:
                check_name_of_folder(what, name)
        if self.target is not None and not 0 < self.target <= 1:
            raise OptionError(Named("target", self.target), " must be a share in (0, 1], such as 0.95")
        for what, names, own in (
            ("networks", self.networks, OF_A_NETWORK), ("partitions", self.partitions, OF_A_PARTITION)
        ):  # fmt: skip
            shared = [name for name in own if name in self.options]
            if names and shared:
                raise OptionError(
                    Named(shared[0], self.options[shared[0]]), " is of every cell, and there are ", Named(what),
                    "; leave one of them out",
                )  # fmt: skip

    def cells(self) -> list[Cell]:
        """Return the cells: of each variant, on each network, with each partition, every seed.

        Raises:
            OptionError: An option is wrong.
            ValueError: A hyper-parameter or a fault plan is wrong.
        """
        return [draft.cell() for draft in self.drafts()]

    def drafts(self) -> Iterator["Draft"]:
        """Return what each cell is made of, which is not checked yet."""
        networks: list[tuple[str | None, Mapping[str, Any]]] = [*self.networks.items()] or [(None, {})]
        kind = self.options.get("partition", RunSettings.partition)
        partitions = self.partitions or {name_of_partition({**self.options, "partition": kind}): {}}
        for label, variant in self.variants.items():
            shared = {name: value for name, value in self.options.items() if name not in self._not_for(variant)}
            for network, of_network in networks:
                for partition, of_partition in partitions.items():
                    for seed in self.seeds:
                        yield Draft(
                            label=label, network=network, partition=partition,
                            options={**shared, **of_network, **of_partition, **variant, "seed": seed},
                        )  # fmt: skip

    def as_data(self) -> dict[str, Any]:
        """Return the content of `comparison.toml`, which makes the same comparison, with the defaults of all cells."""
        owned = {*(OF_A_NETWORK if self.networks else ()), *(OF_A_PARTITION if self.partitions else ())}
        defaults = {
            each.name: each.default
            for each, _ in options_of(RunSettings)
            if each.name in OPTIONS and each.name not in owned and each.default not in (None, MISSING)
        }
        lists = [{"as": label, **variant} for label, variant in self.variants.items()]
        data: dict[str, Any] = {**defaults, **self.options, "seeds": list(self.seeds)}
        if self.target is not None:
            data["target"] = self.target
        data["partitions"] = [{"name": name, **options} for name, options in self.partitions.items()]
        return {**data, "algorithms": lists, "networks": self.networks}

    def _not_for(self, variant: Mapping[str, Any]) -> tuple[str, ...]:
        """Return options of all cells that this method lacks, if another has them. If none has, all are refused."""
        able = [has_dense_rounds(each["algorithm"]) for each in self.variants.values()]
        return OF_WARM_UP if any(able) and not has_dense_rounds(variant["algorithm"]) else ()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A cell before its options are checked."""

    label: str
    network: str | None
    partition: str
    options: Mapping[str, Any]

    def cell(self) -> Cell:
        """Return the cell. Raises as `Comparison.cells`."""
        return Cell(
            label=self.label, network=self.network, partition=self.partition, settings=RunSettings(**self.options)
        )


def name_of_partition(options: Mapping[str, Any]) -> str:
    """Return the name of a partition with these options: its kind, and its parameter if it is given."""
    values = [f"{options[name]:g}" for name in OF_PARTITION if options.get(name) is not None]
    return "-".join([str(options["partition"]), *values])


def check_name_of_folder(option: str, name: str) -> None:
    """Refuse a name by which no folder can be called on every system.

    Raises:
        OptionError: It is none.
    """
    if len(name) > MAX_NAME or re.fullmatch(r"\w[\w.+=%-]*(?<!\.)", name) is None:
        raise OptionError(
            Named(option, name, quoted=True),
            f" must be at most {MAX_NAME} letters, digits and any of - _ . + = %, beginning with a letter or digit; a "
            "folder is named by it",
        )


def _check_seeds(seeds: tuple[int, ...]) -> None:
    if not seeds:
        raise OptionError(Named("seeds"), ": there is none; give one or more, such as 0,1,2")
    doubled = [seed for place, seed in enumerate(seeds) if seed in seeds[:place]]
    if doubled:
        raise OptionError(Named("seeds"), f": {doubled[0]} is given twice")
