"""A comparison in a TOML file: the keys of a file for `--config`, and `seeds`, `networks`, `partitions`, `target`.

An item of `algorithms` is a name, or a table with the options of one variant. Importing this file loads no torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from laconic.errors import Named, OptionError, Spelling
from laconic.lab.algorithms import algorithm_class
from laconic.lab.comparison.plan import (
    OF_A_NETWORK,
    OF_A_PARTITION,
    OPTIONS,
    Cell,
    Comparison,
    Draft,
    check_name_of_folder,
    name_of_partition,
)
from laconic.lab.options import options_of
from laconic.lab.runs.config_file import read_table, read_value, unknown_key, with_typed
from laconic.lab.runs.config_lines import Key, line_of, line_of_named
from laconic.lab.runs.settings import RunSettings

_RUN = {each.name: (each, spec) for each, spec in options_of(RunSettings)}
_LABEL, _NAME = "as", "name"
_OF_A_VARIANT = (_LABEL, "algorithm", *OPTIONS)
_ALL = tuple(name for name in OPTIONS if name != "set")
TYPED_ONLY = ("jobs", "memory", "on", "out", "json", "log", "overwrite", "resume")
"""Options of the command that are no part of what is compared."""
_KEYS = ("algorithms", "seeds", "networks", "partitions", "target", "set", "lr_of", *_ALL)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a file, or a command line, asks for."""

    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By label, the options that its item gives."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of all cells."""
    seeds: tuple[int, ...] | None = None
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    partitions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: float | None = None
    set: Mapping[str, str] = field(default_factory=dict)
    """By LABEL.KEY, hyper-parameters that are given beside the items."""
    lr_of: Mapping[str, float | Literal["theory"]] = field(default_factory=dict)
    """By label, learning rates that are given beside the items."""
    file: Path | None = None
    """Where it stands, if it is a file."""
    keys: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)
    """What leads to a variant or a partition in the file, by `algorithms` or `partitions`, a blank, and its name."""
    typed: frozenset[str] = frozenset()
    """Names of what was typed beside the file."""

    def with_typed(self, typed: "Asked") -> "Asked":
        """Return it with what was typed, which wins."""
        networks, partitions = dict(self.networks), dict(self.partitions)
        if any(name in typed.options for name in OF_A_NETWORK):
            networks = {}
        if any(name in typed.options for name in OF_A_PARTITION):
            partitions = {}
        numbers = with_typed({"set": self.set}, {"set": typed.set})["set"] if typed.set else self.set
        return Asked(
            variants=typed.variants or self.variants, options=with_typed(self.options, typed.options),
            seeds=self.seeds if typed.seeds is None else typed.seeds, networks=networks, partitions=partitions,
            target=self.target if typed.target is None else typed.target, set=numbers,
            lr_of={**self.lr_of, **typed.lr_of}, file=self.file, keys=self.keys, typed=typed.names,
        )  # fmt: skip

    @property
    def names(self) -> frozenset[str]:
        """The names of all that it asks for."""
        parts = ("seeds", "target", "set", "lr_of", "networks", "partitions")
        return frozenset([*self.options, *(name for name in parts if getattr(self, name))])

    def comparison(self) -> Comparison:
        """Return the comparison.

        Raises:
            ValueError: Something does not go together, or a label that is named is not there. The message names the
                file and the line of what stands in a file, or the option as it is typed.
        """
        try:
            return self._comparison()
        except OptionError as error:
            named = next((part.option for part in error.args if isinstance(part, Named)), "")
            if self.file is None or not named or named in self.typed:
                raise
            raise ValueError(f"{self.file}{line_of(self.file, named)}: {error.spelled(Spelling.KEY)}") from None

    def _comparison(self) -> Comparison:
        variants = {label: dict(variant) for label, variant in self.variants.items()}
        for name in self.lr_of:
            self._check_label("lr_of", name)
            variants[name]["lr"] = self.lr_of[name]
        for key, text in self.set.items():
            label = next((each for each in _by_length(variants) if key.startswith(f"{each}.")), key)
            self._check_label("set", label)
            own = variants[label].get("set", {})
            variants[label]["set"] = with_typed({"set": own}, {"set": {key[len(label) + 1 :]: text}})["set"]
        return Comparison(
            variants=variants, options=self.options, seeds=(0,) if self.seeds is None else self.seeds,
            networks=self.networks, partitions=self.partitions, target=self.target,
        )  # fmt: skip

    def _check_label(self, option: str, label: str) -> None:
        if label not in self.variants:
            raise OptionError(
                Named(option, label),
                f": not among what is compared ({', '.join(self.variants)}); it begins with a label",
            )

    def check(self, comparison: Comparison) -> list[Cell]:
        """Return the cells of its comparison, each checked.

        Raises:
            ValueError: An option is wrong: it names the file, the line and the variant, or the option as it is typed.
        """
        for label, variant in comparison.variants.items():
            try:
                algorithm_class(variant["algorithm"], option="algorithm")
            except OptionError as error:
                raise self._located(error, Draft(label=label, network=None, partition="", options={})) from None
        cells = []
        for draft in comparison.drafts():
            try:
                cells.append(draft.cell())
            except OptionError as error:
                raise self._located(error, draft) from None
            except ValueError as error:
                line = self._line_of_hyperparameter(str(error), draft)
                raise ValueError(f"{self.file}{line}: {error} (of {draft.label})" if line else str(error)) from None
        return cells

    @contextmanager
    def file_named(self) -> Iterator[None]:
        """Name file and line in an error about an option of all cells, if it stands in a file."""
        try:
            yield
        except OptionError as error:
            if self.file is None:
                raise
            for part in error.args:
                if isinstance(part, Named) and self.options.get(part.option) == part.value:
                    line = line_of(self.file, part.option)
                    raise ValueError(f"{self.file}{line}: {error.spelled(Spelling.KEY)}") from None
            raise

    def _located(self, error: OptionError, draft: Draft) -> ValueError:
        """Return an error about an option with the file and the line, if it stands in a file."""
        lines = [
            line
            for part in error.args
            if isinstance(part, Named) and self.file is not None
            for keys in self._positions_of(part.option, draft)
            if (line := line_of(self.file, *keys))
        ]
        if lines:
            return ValueError(f"{self.file}{lines[0]}: {error.spelled(Spelling.KEY)} (of {draft.label})")
        return OptionError(*error.args, f" (of {draft.label})")

    def _positions_of(self, option: str, draft: Draft) -> Sequence[tuple[Key, ...]]:
        """Return where an option of a cell may stand in the file, what counts most first."""
        variant = self.keys.get(f"algorithms {draft.label}", ())
        partition = self.keys.get(f"partitions {draft.partition}", ())
        network = () if draft.network is None else ("networks", draft.network)
        of_lr = [("lr_of", draft.label)] if option == "lr" else []
        above = [each for each in (variant, partition, network) if each]
        return [*of_lr, *((*each, option) for each in above), (option,)]

    def _line_of_hyperparameter(self, message: str, draft: Draft) -> str:
        if self.file is None:
            return ""
        content = read_table(self.file)
        paths = [(*self.keys.get(f"algorithms {draft.label}", ("",)), "set"), ("set", draft.label)]
        tables = [(keys, table) for keys in paths if isinstance(table := _at(content, keys), Mapping)]
        return line_of_named(self.file, message, tables)


def read_comparison(path: Path) -> Asked:
    """Return what a file asks for. Each value is checked by itself.

    Raises:
        ValueError: It is not TOML, a key is unknown, or a value is wrong. The message names the file and the line.
        OSError: The file cannot be read.
    """
    table = read_table(path)
    for key in table:
        if key in TYPED_ONLY:
            raise ValueError(
                f"{path}{line_of(path, key)}: {key} is no key: a file says what is compared, and --{key} how this is "
                "done this time; type it behind the file"
            )
        if key not in _KEYS:
            raise unknown_key(path, _KEYS, key)
    reader = _Reader(path)
    keys: dict[str, tuple[Key, ...]] = {}
    variants, partitions = {}, {}
    for keyed, item in reader.items(table, "algorithms"):
        label, variant = reader.variant(item, *keyed)
        if label in variants:
            raise reader.error(keyed, f"{label} is named twice; give one of them another label with `{_LABEL}`")
        variants[label], keys[f"algorithms {label}"] = variant, keyed
    for keyed, item in reader.items(table, "partitions"):
        name, partition = reader.partition(item, *keyed)
        if name in partitions:
            raise reader.error(keyed, f"the partition {name} is there twice")
        partitions[name], keys[f"partitions {name}"] = partition, keyed
    return Asked(
        variants=variants, partitions=partitions, networks=reader.networks(table.get("networks", {})),
        options={name: reader.option(table[name], name) for name in _ALL if name in table},
        seeds=reader.seeds(table["seeds"]) if "seeds" in table else None,
        target=reader.target(table["target"]) if "target" in table else None,
        set=reader.option(table["set"], "set") if "set" in table else {},
        lr_of=reader.learning_rates(table.get("lr_of", {})), file=path, keys=keys,
    )  # fmt: skip


class _Reader:
    """Reads the parts of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def error(self, keys: Sequence[Key], message: str) -> ValueError:
        return ValueError(f"{self._path}{line_of(self._path, *keys)}: {message}")

    def option(self, value: Any, *keys: Key) -> Any:  # noqa: ANN401 - of the option's type
        """Return the value of an option of a run."""
        return read_value(self._path, *_RUN[str(keys[-1])], value, *keys)

    def items(self, table: Mapping[str, Any], key: str) -> list[tuple[tuple[Key, ...], Any]]:
        """Return the items of a list, each after the keys that lead to it."""
        items = table.get(key, [])
        if not isinstance(items, list):
            raise self.error((key,), f"{key} must be a list of names and tables, or tables [[{key}]]")
        return [((key, place), item) for place, item in enumerate(items)]

    def variant(self, item: Any, *keys: Key) -> tuple[str, dict[str, Any]]:  # noqa: ANN401
        """Return the label of a variant and its options."""
        given = self._given({"algorithm": item} if isinstance(item, str) else item, _OF_A_VARIANT, keys)
        if "algorithm" not in given:
            raise self.error(keys, "the key algorithm is missing: the name of the method")
        label = given.pop(_LABEL, given["algorithm"])
        self._check_name(_LABEL, label, (*keys, _LABEL))
        return label, given

    def partition(self, item: Any, *keys: Key) -> tuple[str, dict[str, Any]]:  # noqa: ANN401
        """Return the name of a partition and its options."""
        given = self._given({"partition": item} if isinstance(item, str) else item, (_NAME, *OF_A_PARTITION), keys)
        if "partition" not in given:
            raise self.error(keys, "the key partition is missing: its kind")
        name = given.pop(_NAME, None)
        name = name_of_partition(given) if name is None else name
        self._check_name(_NAME, name, (*keys, _NAME))
        return name, given

    def networks(self, table: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401
        """Return the options of each network."""
        if not isinstance(table, Mapping):
            raise self.error(("networks",), "networks must be tables, such as [networks.home] and lines below")
        for name in table:
            self._check_name("networks", name, ("networks", name))
        return {name: self._given(item, OF_A_NETWORK, ("networks", name)) for name, item in table.items()}

    def seeds(self, value: Any) -> tuple[int, ...]:  # noqa: ANN401
        """Return the seeds."""
        if not isinstance(value, list):
            raise self.error(("seeds",), "seeds must be a list of whole numbers, such as [0, 1, 2]")
        return tuple(read_value(self._path, *_RUN["seed"], seed, "seeds") for seed in value)

    def target(self, value: Any) -> float:  # noqa: ANN401
        """Return the accuracy to reach."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise self.error(("target",), f"target = {value!r:.60} must be a share in (0, 1], such as 0.95")
        return float(value)

    def learning_rates(self, table: Any) -> dict[str, float | Literal["theory"]]:  # noqa: ANN401
        """Return the learning rates by label."""
        if not isinstance(table, Mapping):
            raise self.error(("lr_of",), "lr_of must be a table, such as a line [lr_of] and lines LABEL = RATE below")
        return {name: read_value(self._path, *_RUN["lr"], lr, "lr_of", name) for name, lr in table.items()}

    def _given(self, item: Any, known: Sequence[str], keys: Sequence[Key]) -> dict[str, Any]:  # noqa: ANN401
        if not isinstance(item, Mapping):
            raise self.error(keys, f"{item!r:.60} must be a name or a table")
        for key in item:
            if key not in known:
                raise unknown_key(self._path, known, *keys, key)
        return {key: value if key in (_LABEL, _NAME) else self.option(value, *keys, key) for key, value in item.items()}

    def _check_name(self, option: str, name: Any, keys: Sequence[Key]) -> None:  # noqa: ANN401
        try:
            check_name_of_folder(option, name if isinstance(name, str) else repr(name))
        except OptionError as error:
            raise self.error(keys, error.spelled(Spelling.KEY)) from None


def _by_length(labels: Mapping[str, object]) -> list[str]:
    return sorted(labels, key=len, reverse=True)


def _at(content: Any, keys: Sequence[Key]) -> Any:  # noqa: ANN401
    """Return what keys lead to; None where there is nothing."""
    for key in keys:
        if isinstance(content, Mapping):
            content = content.get(key)
        elif isinstance(content, list) and isinstance(key, int) and key < len(content):
            content = content[key]
        else:
            return None
    return content
