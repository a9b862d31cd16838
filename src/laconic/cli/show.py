"""`laconic show`: the paper, hyper-parameters, claims and memories of one method."""

import inspect
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from laconic.cli.flags import with_flags
from laconic.errors import Named, OptionError
from laconic.hyperparameters import hyperparameters_of
from laconic.lab.algorithms import algorithm_class
from laconic.lab.options import OptionGroup, option
from laconic.report.terminal import terminal

if TYPE_CHECKING:
    from laconic.contract import Algorithm

_SHOWN_D = 10**6  # parameters of the model whose bits are shown
_SHOWN_WORKERS = 10
_SAMPLE_D = 1 << 12  # parameters of the small job whose memories are measured
_SAMPLE_ROUNDS = 6
_MIN_SHOWN = 0.004  # share of d; smaller memories are single numbers

_CLAIMS = (
    ("consumes", "consumes a"),
    ("returns", "returns a"),
    ("mode", "mode"),
    ("unbiased", "direction unbiased"),
    ("separable", "separable (several servers, same bits)"),
    ("replicas_equal", "replicas equal after each round"),
    ("tolerates_absence", "a packet that is not delivered becomes residual"),
    ("skips", "may skip a round"),
    ("adaptive", "sends less where the data allow it"),
    ("needs_shapes", "needs the shapes of parameters"),
    ("takes_changes", "takes changes of several local steps"),
    ("same_data", "needs one data distribution"),
    ("reads_lr", "reads the learning rate"),
    ("second_gradient", "needs a closure"),
    ("server_steps", "server holds the model and an optimizer"),
)


@dataclass(frozen=True, kw_only=True)
class ShowOptions(OptionGroup):
    """The options of `laconic show`."""

    name: str = option(..., "The algorithm: a name that `laconic list` prints.", positional=True, names="methods")
    accounting: bool = option(False, "Compute the paper's traffic figures and print them beside the published ones.")


@with_flags(ShowOptions)
def show(context: typer.Context, options: ShowOptions) -> None:
    """Show the paper, symbols, hyper-parameters, claims and bits of one algorithm."""
    name = options.name
    cls = algorithm_class(name)
    console = terminal()
    if options.accounting:
        rows = cls.accounting()
        if not rows:
            raise OptionError(Named("accounting", True), f": {name} has no published traffic figures to reproduce")
        _print_accounting(console, name, rows)
        return
    console.print(Text.assemble((name, "bold"), f": {_summary_line(cls)}"))
    console.print(f"source: {cls.source}\n")
    console.print(inspect.cleandoc(sys.modules[cls.__module__].__doc__ or ""))
    console.print()
    _print_hyperparameters(console, cls)
    _print_claims(console, cls())


def _summary_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n")[0]


def _layouts(algorithm: "Algorithm") -> str:
    from laconic.lab.synthetic_job import sample_spec
    from laconic.protocol.layout import LAYOUTS, choose_layout

    admitted = []
    for layout in LAYOUTS[1:]:
        try:
            choose_layout(layout, algorithm, sample_spec(algorithm, _SHOWN_D, 4), n_nodes=4)
        except ValueError:
            continue
        admitted.append(layout)
    return ", ".join(admitted)


def _print_hyperparameters(console: Console, cls: type["Algorithm"]) -> None:
    table = Table(title="hyper-parameters (--set key=value)", title_justify="left", box=SIMPLE_HEAD)
    for column in ("key", "default", "range", "unit", "meaning"):
        table.add_column(column, no_wrap=column == "key")
    for key, default, bounds, unit, about in _hyperparameter_rows(cls, ""):
        table.add_row(key, default, bounds, unit, about)
    console.print(table if table.row_count else "no hyper-parameters")


def _hyperparameter_rows(cls: type, prefix: str) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for field, spec in hyperparameters_of(cls):
        if spec.kinds:
            word = next(word for word, kind in spec.kinds.items() if type(field.default) is kind)
            rows.append((prefix + field.name, word, " | ".join(spec.kinds), spec.unit, spec.about))
            for kind_word, kind in spec.kinds.items():
                below = _hyperparameter_rows(kind, f"{prefix}{field.name}.")
                chosen: Any = field.default if kind_word == word else None
                rows += [
                    (key, _default_of(chosen, key, default), bounds, unit, f"{kind_word}: {about}")
                    for key, default, bounds, unit, about in below
                ]
        else:
            bounds = " | ".join(spec.choices) or spec.within
            rows.append((prefix + field.name, _text_of(field.default), bounds, spec.unit, spec.about))
    return rows


def _text_of(default: object) -> str:
    """Return a default value as a user would type it."""
    return "none" if default is None else str(default)


def _default_of(plugged: object, key: str, default: str) -> str:
    """Return the default of `key`: the plugged object's own value, which can differ from its class's default."""
    return default if plugged is None else _text_of(getattr(plugged, key.rsplit(".", 1)[-1]))


def _print_claims(console: Console, algorithm: "Algorithm") -> None:
    from laconic.lab.synthetic_job import sample_spec

    table = Table(title="claims (tested)", title_justify="left", show_header=False, box=SIMPLE_HEAD)
    for attribute, words in _CLAIMS:
        value = getattr(algorithm, attribute)
        table.add_row(
            words, {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        )
    exchanges = algorithm.exchanges(sample_spec(algorithm, _SHOWN_D, 4), 4)
    names = ", ".join(exchange.name + (" (adds: all-reduce)" if exchange.adds else "") for exchange in exchanges)
    table.add_row("exchanges a round", names)
    table.add_row("layouts", _layouts(algorithm))
    table.add_row("learning rate", f"{algorithm.lr_factor:g} x plain SGD's, unless given")
    if algorithm.second_gradient:
        table.add_row("the closure", "may be called twice in a step: no state but the model's parameters and buffers")
    for side, remembered in _remembered(algorithm).items():
        table.add_row(f"memories of {side}", remembered)
    table.add_row("also within a round", "the new memories, and a flat vector of d")
    up, down = algorithm.paper_bits(sample_spec(algorithm, _SHOWN_D, _SHOWN_WORKERS), _SHOWN_WORKERS)
    downward = f"{down / 1e6:.4g} d down" if down else "down not counted by the paper, but in payload and wire"
    prefix = "at most " if algorithm.adaptive else ""
    table.add_row("bits per worker and round", f"{prefix}{up / 1e6:.4g} d up, {downward} (one layer)")
    if hasattr(algorithm, "graph"):
        from laconic.gossip.graphs import GRAPHS
        from laconic.gossip.mixing import Mixing

        gaps = [f"{name} {Mixing.over_cycle(name, _SHOWN_WORKERS).spectral_gap:.3g}" for name in GRAPHS]
        table.add_row(f"spectral gaps, {_SHOWN_WORKERS} workers", ", ".join(gaps))
    console.print(table)


def _remembered(algorithm: "Algorithm") -> dict[str, str]:
    """Return the memories of a worker and of the server, in multiples of d float32, as measured in a small job."""
    from laconic.lab.synthetic_job import GivenJob

    job = GivenJob(algorithm, workers=_SHOWN_WORKERS, d=_SAMPLE_D)
    for _ in range(_SAMPLE_ROUNDS):
        job.round()
    sizes: dict[str, dict[str, float]] = {"a worker": {}, f"the server of {_SHOWN_WORKERS}": {}}
    for (side, number, name), value in job.remembered().items():
        if number == 0:
            of_side = sizes["a worker" if side == "worker" else f"the server of {_SHOWN_WORKERS}"]
            kind = name.split(".")[0]  # a memory per worker has the worker's number after the dot
            of_side[kind] = of_side.get(kind, 0.0) + value.numel() * value.element_size() / (4 * _SAMPLE_D)
    return {
        side: ", ".join(f"{name} {size:.3g} d" for name, size in sorted(kinds.items()) if size >= _MIN_SHOWN)
        or "nothing of d's length"
        for side, kinds in sizes.items()
    }


def _print_accounting(console: Console, name: str, rows: list[tuple[str, str, str]]) -> None:
    table = Table(title=f"{name}: the paper's traffic figures", title_justify="left", box=SIMPLE_HEAD)
    for column in ("what", "by formula", "printed"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    console.print(table)
