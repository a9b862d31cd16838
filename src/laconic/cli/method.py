"""What `laconic show` says of a method: its paper, equations, line of Python, hyper-parameters, claims and bits."""

import inspect
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from laconic.hyperparameters import hyperparameters_of

if TYPE_CHECKING:
    from laconic.contract import Algorithm, ModelSpec

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


_PAPER = re.compile(r"arXiv\s+(\d{4}\.\d{4,5})|doi\s+(10\.[\w./()-]*\w)", re.IGNORECASE)


def head_of(cls: type) -> str:
    """Return the first lines of the method's file: the paper, its symbols, the equations, what differs."""
    return inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")


def summary_line(cls: type) -> str:
    """Return one line on what the method does."""
    return (inspect.getdoc(cls) or "").split("\n")[0]


def links_of(cls: type["Algorithm"]) -> list[str]:
    """Return the addresses of the papers that the method's file names by arXiv number or DOI."""
    found = _PAPER.findall(f"{head_of(cls)}\n{cls.source}")
    links = [f"https://arxiv.org/abs/{arxiv}" if arxiv else f"https://doi.org/{doi}" for arxiv, doi in found]
    return list(dict.fromkeys(links))


def python_line(algorithm: "Algorithm", given: Mapping[str, str]) -> str:
    """Return the line of Python that makes the method, such as `laconic.SSGDMV(density=0.01)`.

    Args:
        algorithm: The method.
        given: The hyper-parameters that were given. Without any, the line has the first one, at its default.
    """
    cls = type(algorithm)
    names = list(dict.fromkeys(key.partition(".")[0] for key in given))
    if not names:
        plain = [field.name for field, spec in hyperparameters_of(cls) if field.default is not None and not spec.kinds]
        names = plain[:1]
    settings = ", ".join(f"{name}={_face_of(value)}{value!r}" for name in names for value in [getattr(algorithm, name)])
    return f"{_face_of(algorithm)}{cls.__name__}({settings})"


def _face_of(value: object) -> str:
    """Return "laconic." for an object of a class that laconic names."""
    import laconic

    return "laconic." if getattr(laconic, type(value).__name__, None) is type(value) else ""


def layouts(algorithm: "Algorithm") -> str:
    from laconic.lab.synthetic_job import sample_spec
    from laconic.protocol.layout import LAYOUTS, choose_layout

    admitted = {}
    for layout in LAYOUTS[1:]:
        for spec in (sample_spec(algorithm, _SHOWN_D, 4), _of_layers()):
            with suppress(ValueError):
                admitted[layout] = choose_layout(layout, algorithm, spec, n_nodes=4)
    return ", ".join(admitted)


def _of_layers() -> "ModelSpec":
    """Return a model of two layers, as a method needs whose vector several servers share where a layer ends."""
    from laconic.contract import ModelSpec

    return ModelSpec.of_sizes(_SHOWN_D // 2, _SHOWN_D // 2)


def hyperparameter_rows(cls: type, prefix: str = "") -> list[tuple[str, str, str, str, str]]:
    """Return the key, default, range, unit and meaning of each hyper-parameter."""
    rows = []
    for field, spec in hyperparameters_of(cls):
        if spec.kinds:
            word = next(word for word, kind in spec.kinds.items() if type(field.default) is kind)
            rows.append((prefix + field.name, word, " | ".join(spec.kinds), spec.unit, spec.about))
            for kind_word, kind in spec.kinds.items():
                below = hyperparameter_rows(kind, f"{prefix}{field.name}.")
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


def claims_of(algorithm: "Algorithm") -> list[tuple[str, str]]:
    """Return what the tests hold the method to, and what it costs, as pairs of words and value."""
    from laconic.lab.synthetic_job import sample_spec

    rows: list[tuple[str, str]] = []
    for attribute, words in _CLAIMS:
        value = getattr(algorithm, attribute)
        text = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        if attribute == "separable" and not value and algorithm.server_bounds(_of_layers()):
            text = "where blocks end"
        rows.append((words, text))
    exchanges = algorithm.exchanges(sample_spec(algorithm, _SHOWN_D, 4), 4)
    names = ", ".join(exchange.name + (" (adds: all-reduce)" if exchange.adds else "") for exchange in exchanges)
    rows.append(("exchanges a round", names))
    rows.append(("layouts", layouts(algorithm)))
    rows.append(("learning rate", f"{algorithm.lr_factor:g} x plain SGD's, unless given"))
    rows.append(("laconic run starts with", _started_with(algorithm)))
    if algorithm.second_gradient:
        rows.append(("the closure", "may be called twice in a step: no state but the model's parameters and buffers"))
    for side, remembered in _remembered(algorithm).items():
        rows.append((f"memories of {side}", remembered))
    rows.append(("also within a round", "the new memories, and a flat vector of d"))
    up, down = algorithm.paper_bits(sample_spec(algorithm, _SHOWN_D, _SHOWN_WORKERS), _SHOWN_WORKERS)
    downward = f"{down / 1e6:.4g} d down" if down else "down not counted by the paper, but in payload and wire"
    prefix = "at most " if algorithm.adaptive else ""
    rows.append(("paper bits per worker and round", f"{prefix}{up / 1e6:.4g} d up, {downward} (one layer)"))
    if hasattr(algorithm, "graph"):
        from laconic.gossip.graphs import GRAPHS
        from laconic.gossip.mixing import Mixing

        gaps = [f"{name} {Mixing.over_cycle(name, _SHOWN_WORKERS).spectral_gap:.3g}" for name in GRAPHS]
        rows.append((f"spectral gaps, {_SHOWN_WORKERS} workers", ", ".join(gaps)))
    return rows


def _started_with(algorithm: "Algorithm") -> str:
    """Return what a command trains this method with where nothing is given."""
    from laconic.lab.algorithms import make_algorithm
    from laconic.lab.starting_values import starting_learning_rate, starting_settings

    own = starting_settings(algorithm.name, {})
    started = make_algorithm(algorithm.name, own) if own else algorithm
    values = [f"{key}={value}" for key, value in own.items()]
    reason = "; the defaults above are the paper's, for large models" if own else ""
    return ", ".join([*values, f"a learning rate of {starting_learning_rate(started):g}"]) + reason


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


def accounting_of(algorithm: "Algorithm") -> tuple[list[tuple[str, str, str]], str]:
    """Return the paper's traffic figures as rows (what, by our formula, as printed), and a sentence on them."""
    rows = type(algorithm).accounting()
    if rows:
        return rows, "By formula: computed here. Printed: what the paper says."
    from laconic.lab.synthetic_job import sample_spec

    bound = "at most " if algorithm.adaptive else ""
    spec = sample_spec(algorithm, _SHOWN_D, _SHOWN_WORKERS)
    up, down = algorithm.paper_bits(spec, _SHOWN_WORKERS)
    dense = 32 * spec.d
    rows = [("parameters, workers", f"{spec.d:,}, {_SHOWN_WORKERS}", "-")]
    for what, bits in (("up", up), ("down", down)):
        each = f"{what} of a worker and round"
        if bits:
            share = f"; {dense / bits:.4g} times fewer than 32 bits a parameter" if bits != dense else ""
            rows.append((each, f"{bound}{bits / 8e3:,.4g} KB{share}", "-"))
        else:
            rows.append((each, "not counted by the paper", "-"))
    return rows, (
        f"No traffic figures of the paper of {algorithm.name} are kept here; these follow from its count of bits. "
        "`laconic reproduce` lists the published tables that can be run."
    )
