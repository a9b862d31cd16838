"""The options of `laconic plan`. Nothing here loads torch before a command needs it."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from laconic.errors import Named, OptionError
from laconic.lab.defaults import MAX_PLANNED_WORKERS, MAX_VECTOR, MODEL_NAMES, PICTURE_ENDINGS
from laconic.lab.options import (
    PURE_NUMBER,
    OptionGroup,
    file_to_write,
    hyperparameters_by_name,
    listed,
    option,
)
from laconic.lab.own_functions import FORM
from laconic.units import bandwidth as read_bandwidth
from laconic.units import duration_or_zero

if TYPE_CHECKING:
    from laconic.contract import ModelSpec
    from laconic.network import Link, Sites

_COUNT = re.compile(r"(\d{1,15}(?:\.\d{0,15})?)\s*([kKmMgGbB]?)", re.ASCII)
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_SITES = re.compile(r"\d{1,4}(\+\d{1,4})+", re.ASCII)
_OF_ONE_RUN = ("params", "model", "input_shape", "workers", "set", "local_steps", "methods")
_OF_THE_NETWORK = ("bandwidth", "up", "down", "latency", "overhead", "sites", "between")


def _count(text: str) -> int:
    """Parse a number of parameters, such as 25600000, 25.6M or 7B."""
    match = _COUNT.fullmatch(text.strip())
    count = Fraction(match[1]) * _THOUSANDS[match[2].lower()] if match else Fraction(0)
    if count < 1 or count.denominator != 1:
        raise ValueError("must be a whole number above 0, such as 25.6M or 25557032")
    if count > MAX_VECTOR:
        raise ValueError(f"must be in 1 .. {MAX_VECTOR}, the range of one frame")
    return int(count)


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(word) for word in re.split("[x,]", text))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or math.prod(shape) > MAX_VECTOR:
        raise ValueError("must be sizes above 0 with x between them, such as 1x28x28")
    return shape


def _site_sizes(text: str) -> tuple[int, ...]:
    """Parse numbers of workers by site, such as 4+4."""
    sizes = tuple(map(int, text.split("+"))) if _SITES.fullmatch(text.strip()) else ()
    if not sizes or min(sizes) < 1:
        raise ValueError("must be the workers of each site with + between them, such as 4+4")
    return sizes


def _line(text: str) -> tuple[float, float]:
    """Parse a bandwidth and a latency, such as 50Mbit,20ms. Returns bytes per second, and seconds."""
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError("must be a bandwidth and a latency, such as 50Mbit,20ms")
    return read_bandwidth(parts[0]), duration_or_zero(parts[1])


@dataclass(frozen=True, kw_only=True)
class PlanOptions(OptionGroup):
    """The options of `laconic plan`."""

    methods: tuple[str, ...] = option(
        (), "Methods: names that `laconic list` prints.", positional=True, shown="all of them"
    )
    params: str | None = option(
        None, "The number of parameters of the model, such as 25.6M.", metavar="COUNT", reads=_count
    )
    model: str | None = option(
        None, f"A model in place of --params: {listed(MODEL_NAMES)}; or {FORM} of your own.", choices=MODEL_NAMES,
        own=True,
    )  # fmt: skip
    input_shape: str | None = option(
        None, "The shape of one input of --model, such as 1x28x28.", metavar="SHAPE", reads=_shape
    )
    classes: int = option(10, "The number of classes of --model.", within="[2, inf)", unit="classes")
    workers: int | None = option(
        None, "The number of workers, without a dedicated server.", within=f"[2, {MAX_PLANNED_WORKERS}]",
        unit="workers",
    )  # fmt: skip
    bandwidth: str | None = option(
        None, "The bandwidth of each link, such as 1Gbit.", metavar="BANDWIDTH", reads=read_bandwidth
    )
    up: str | None = option(
        None, "The upload bandwidth of each link, such as 20Mbit, in place of --bandwidth; goes with --down.",
        metavar="BANDWIDTH",
        reads=read_bandwidth,
    )  # fmt: skip
    down: str | None = option(
        None,
        "The download bandwidth of each link, such as 100Mbit; goes with --up.",
        metavar="BANDWIDTH",
        reads=read_bandwidth,
    )
    latency: str | None = option(
        None, "The latency of each message, such as 20ms.", metavar="TIME", reads=duration_or_zero, shown="not known"
    )
    overhead: str | None = option(
        None, "The time that a computer takes to start a message, such as 50us, beside the latency.", metavar="TIME",
        reads=duration_or_zero,
    )  # fmt: skip
    sites: str | None = option(
        None, "Workers at sites that are joined by one line, such as 4+4; goes with --between.", metavar="N+N",
        reads=_site_sizes,
    )  # fmt: skip
    between: str | None = option(
        None, "The line between the sites: its bandwidth and latency, such as 50Mbit,20ms.",
        metavar="BANDWIDTH,TIME", reads=_line,
    )  # fmt: skip
    compute: str | None = option(
        None, "The time of one gradient, such as 0.2s.", metavar="TIME", reads=duration_or_zero, shown="not known"
    )
    measure: bool = option(False, "Measure the network and the gradient between the processes that torchrun started.")
    batch_size: int = option(
        32, "The number of inputs per gradient that --measure times.", within="[1, inf)", unit="inputs"
    )
    lr: float | None = option(
        None, "Your learning rate for plain SGD, from which each method's follows.", within="(0, inf)",
        unit=PURE_NUMBER, metavar="RATE",
    )  # fmt: skip
    local_steps: int | None = option(
        None, "The number of local steps per exchange, for methods that take changes.", within="[1, inf)",
        unit="steps", metavar="H", shown="1", hint="1 exchanges after every step",
    )  # fmt: skip
    set: dict[str, str] = hyperparameters_by_name()
    all: bool = option(False, "Show all rows; without it the five fastest.")
    no_measure: bool = option(False, "Do not measure encoding and decoding; count them as no time.")
    trace: Path | None = option(
        None, "Time a run that `laconic run --out FOLDER` recorded, instead of a planned one.", metavar="FOLDER"
    )
    json: Path | None = option(
        None, "The file to write all figures to, as JSON; - prints them.", metavar="FILE", reads=file_to_write()
    )
    plot: Path | None = option(
        None, "The .png, .svg or .pdf file to draw step times over bandwidth to.", metavar="FILE",
        reads=file_to_write(*PICTURE_ENDINGS),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the options, and that they fit each other.

        Raises:
            OptionError: They do not.
        """
        super().__post_init__()
        if self.measure:
            self._check_measured()
        else:
            self._check_network()
        if self.trace is not None:
            self._refuse(_OF_ONE_RUN, ": the recorded run in ", Named("trace", self.trace), " sets this; leave it out")
            return
        if (self.params is None) == (self.model is None):
            raise OptionError(
                "give ", Named("params"), " COUNT, such as 25.6M, or ", Named("model"), " NAME with ",
                Named("input_shape"), ", and not both",
            )  # fmt: skip
        if self.workers is None and self.sites is None and not self.measure:
            raise OptionError(Named("workers"), " is missing: give the number of workers")
        if self.model is not None and self.input_shape is None:
            raise OptionError(Named("model"), " needs ", Named("input_shape"), " SHAPE, such as 1x28x28 or 784")
        if self.model is None and self.input_shape is not None:
            raise OptionError(
                Named("input_shape"), " is for ", Named("model"), "; ", Named("params"), " is the size already"
            )

    def _refuse(self, names: tuple[str, ...], *why: str | Named) -> None:
        for name in names:
            if getattr(self, name):
                raise OptionError(self.methods[0] if name == "methods" else Named(name), *why)

    def _check_measured(self) -> None:
        if self.trace is not None:
            raise OptionError(
                Named("measure"), " and ", Named("trace", self.trace), ": one plan has its numbers from one of them"
            )
        self._refuse(_OF_THE_NETWORK, ": ", Named("measure"), " finds the network; leave one of them out")

    def _check_network(self) -> None:
        if (self.up is None) != (self.down is None):
            given, missing = ("up", "down") if self.down is None else ("down", "up")
            raise OptionError(
                Named(given), " needs ", Named(missing), " BANDWIDTH too; one bandwidth for both is ",
                Named("bandwidth"),
            )  # fmt: skip
        if self.up is not None and self.bandwidth is not None:
            raise OptionError(
                "give ", Named("bandwidth"), ", or ", Named("up"), " and ", Named("down"), ", and not both"
            )
        if self.bandwidth is None and self.up is None:
            raise OptionError(
                Named("bandwidth"), " is missing: give the bandwidth of each link, such as 1Gbit; or ", Named("up"),
                " and ", Named("down"), " where they differ",
            )  # fmt: skip
        if (self.sites is None) != (self.between is None):
            given, missing, example = ("sites", "between", "50Mbit,20ms")
            if self.sites is None:
                given, missing, example = ("between", "sites", "4+4")
            raise OptionError(Named(given), " needs ", Named(missing), f", such as {example}")
        if self.sites is not None:
            total = sum(_site_sizes(self.sites))
            if self.workers is not None and total != self.workers:
                raise OptionError(
                    Named("sites", self.sites), f" has {total} workers, and ", Named("workers", self.workers),
                    " says another number; leave that out",
                )  # fmt: skip
            if total > MAX_PLANNED_WORKERS:
                raise OptionError(
                    Named("sites", self.sites), f" has {total} workers; must be in 2 .. {MAX_PLANNED_WORKERS}"
                )

    @property
    def compute_s(self) -> float | None:
        """Seconds of one gradient; None if not given."""
        return None if self.compute is None else duration_or_zero(self.compute)

    @property
    def n_workers(self) -> int:
        """The number of workers."""
        return self.workers or sum(_site_sizes(self.sites or "0+0"))

    @property
    def link(self) -> "Link":
        """The link of every node."""
        from laconic.network import Link

        latency_s = sum(duration_or_zero(text) for text in (self.latency, self.overhead) if text is not None)
        if self.bandwidth is not None:
            return Link(bytes_per_s=read_bandwidth(self.bandwidth), latency_s=latency_s)
        assert self.up is not None
        assert self.down is not None
        return Link(
            bytes_per_s=read_bandwidth(self.up), down_bytes_per_s=read_bandwidth(self.down), latency_s=latency_s
        )

    @property
    def joined_sites(self) -> "Sites | None":
        """The sites, and the line between them; None for one place."""
        from laconic.network import Link, Sites

        if self.sites is None or self.between is None:
            return None
        bytes_per_s, latency_s = _line(self.between)
        return Sites(sizes=_site_sizes(self.sites), line=Link(bytes_per_s=bytes_per_s, latency_s=latency_s))

    def spec(self) -> "ModelSpec":
        """Return the parameters of the model, or their number as one vector."""
        from laconic.contract import ModelSpec
        from laconic.lab.models import build, spec_of

        if self.model is None:
            return ModelSpec.of_sizes(_count(self.params or ""))
        return spec_of(build(self.model, self.shape, self.classes, 0))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input of the model."""
        return _shape(self.input_shape or "")
