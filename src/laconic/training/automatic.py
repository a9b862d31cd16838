"""`"auto"` in place of a method: it is chosen by measurement when training begins, or was when a state was saved.

Until then plain all-reduce stands in its place. The choice is that of `laconic.planning.choose`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, ParamSpec, Protocol

import torch.distributed as dist

from laconic.contract import ALGORITHMS, Algorithm
from laconic.drivers.distributed.agreement import Scalar
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.rounds import Processes
from laconic.errors import Named, OptionError
from laconic.protocol.job import Job
from laconic.protocol.layout import LAYOUTS, has_dedicated_server
from laconic.torch_compat import timeout_s_of
from laconic.training.inner_checks import check_inner
from laconic.training.local_steps import check_local_steps
from laconic.training.state_dict import held_part

AUTO = "auto"
Method = Algorithm | Literal["auto"]
PLAIN, PLAIN_LAYOUT = "sgd", "allreduce"
_SAVED = {"algorithm": str, "layout": str, "error": str}
_MAX_BYTES = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A method and a layout, and why."""

    algorithm: Algorithm
    """The method."""
    layout: str
    """Its layout."""
    reason: str
    """Why, in one line."""
    step_s: Mapping[tuple[str, str], float]
    """Seconds of exchange and coding of one step by method and layout: as tried, else as the network model has them."""
    sent_bytes: int = 0
    """Bytes that this rank has sent to measure and to try."""


def recorded_choice(allowed: Sequence[Algorithm], part: Mapping[str, Any], layouts: Sequence[str]) -> Chosen:
    """Return what a method's part of a state was saved with.

    Raises:
        OptionError: That is not allowed.
    """
    name, layout = part.get("algorithm"), part.get("layout")
    algorithm = next((one for one in allowed if one.name == name), None)
    if algorithm is None or layout not in layouts:
        raise OptionError(
            Named("saved", name), f": a state of {name!r} on {layout!r} goes on with that method; allow it in `allowed`"
        )
    return Chosen(algorithm=algorithm, layout=str(layout), reason=f"{name} on {layout}, as saved", step_s={})


class Automatic:
    """The choice of a job that was given "auto"."""

    def __init__(
        self,
        allowed: Sequence[Algorithm] | None,
        layout: str,
        *,
        timeout_s: float | None,
        group: dist.ProcessGroup | None = None,
        nodes: object = None,
        clients_per_round: object = None,
    ) -> None:
        """Keep what may be chosen.

        Args:
            allowed: The methods; None for those that train at plain SGD's rate.
            layout: The one layout of other methods than plain all-reduce; "auto" for any.
            timeout_s: How long another rank is waited for, seconds; None for as long as the group waits.
            group: The ranks; None for all.
            nodes: As the job has it.
            clients_per_round: As the job has it.

        Raises:
            OptionError: Nothing can be chosen among these.
        """
        # Not at the top of the file: it imports this one, and tries methods with DistributedOptimizer.
        self._planner: Any = import_module("laconic.planning.choosing")
        for name, value in (("nodes", nodes), ("clients_per_round", clients_per_round)):
            if value is not None:
                raise OptionError(
                    Named(name, value), f": a trial has one worker on each rank, and {AUTO!r} would choose for that; "
                    "name the method, and plan it with laconic plan",
                )  # fmt: skip
        if layout in LAYOUTS and has_dedicated_server(layout, by_arrival=False):
            raise OptionError(
                Named("layout", layout), f": its last rank trains nothing, and {AUTO!r} chooses where all ranks train"
            )
        self.allowed: Sequence[Algorithm] = self._planner.ALLOWED if allowed is None else allowed
        self._layouts: Sequence[str] = self._planner.LAYOUTS_OF_ALL if layout == AUTO else (layout,)
        self._planner.check_allowed(self.allowed, self._layouts)
        self.group, self._timeout_s = group, timeout_s
        self.speaks = True
        """Whether the lowest rank says what was chosen, and why."""
        self.chosen: Chosen | None = None
        """What was chosen; None until training begins."""

    def agreed(self) -> dict[str, Scalar]:
        """Return what must be equal on all ranks, in place of the settings of a method."""
        names = ", ".join(each.name for each in self.allowed)
        settings = {
            f"{each.name}/{key}": value for each in self.allowed for key, value in each.settings().items()
        }  # fmt: skip
        return {"algorithm": f"{AUTO}, of {names}", "layout": ", ".join(self._layouts), **settings}

    def measured(self, job: Job) -> Chosen:
        """Choose for the parameters of a job. Collective; it takes some seconds.

        Raises:
            PeerLostError: A rank is lost.
        """
        timeout_s = timeout_s_of(self.group) if self._timeout_s is None else self._timeout_s
        ranks = self._planner.Ranks(
            group=self.group, timeout_s=timeout_s, dtype=job.dtype, device=job.device, speaks=self.speaks
        )
        chosen: Chosen = self._planner.choose_for(job.spec, self.allowed, self._layouts, ranks)
        return chosen

    def recorded(self, part: Mapping[str, Any] | None) -> Chosen | None:
        """Return what a state was saved with; None if it is of no round, so that nothing was chosen.

        Raises:
            OptionError: It is not allowed.
        """
        if part is None or not _n_rounds(part):
            return None
        return recorded_choice((*self.allowed, plain()), part, [*self._layouts, PLAIN_LAYOUT])

    def recorded_on_all(self, part_of: Callable[[], Mapping[str, Any] | None], channel: Channel) -> Chosen | None:
        """Return what the ranks' states were saved with; None if nothing was chosen then. Collective.

        `part_of` returns the method's part of this rank's state, or raises ValueError.

        Raises:
            ValueError: A rank's is not allowed, ranks have other ones, or another one was chosen since.
            PeerLostError: A rank is lost.
        """
        mine, error = None, ""
        try:
            mine = self.recorded(part_of())
        except ValueError as refused:
            error = str(refused)
        if mine is not None and self.chosen is not None and mine.algorithm.name != self.chosen.algorithm.name:
            error = (
                f"state_dict: the state was saved with {mine.algorithm.name}, and {self.chosen.algorithm.name} was "
                "chosen here already; load a state before the first step, which then goes on with its method"
            )
        shown = {"algorithm": "", "layout": ""} if mine is None else _shown(mine)
        reports = channel.gather({**shown, "error": error[:2000]}, "to load a state", _SAVED, _MAX_BYTES)
        if errors := [f"rank {rank}: {each['error']}" for rank, each in enumerate(reports) if each["error"]]:
            raise ValueError("; ".join(errors))
        other = next((rank for rank, each in enumerate(reports) if each != reports[0]), None)
        if other is not None:
            names = [each["algorithm"] or "no choice" for each in (reports[0], reports[other])]
            raise ValueError(f"state_dict: rank 0 loads a state of {names[0]} and rank {other} one of {names[1]}")
        return mine


def plain() -> Algorithm:
    """Return plain all-reduce, which stands in a method's place until one is chosen."""
    return ALGORITHMS[PLAIN]()


def is_in_place(chosen: Chosen, driver: Processes) -> bool:
    """Return whether a driver's rounds are those that were chosen."""
    return (chosen.algorithm.name, chosen.layout) == (driver.job.algorithm.name, driver.layout.name)


def carry_over(old: Processes, new: Processes, chosen: Chosen) -> None:
    """Let the rounds of a chosen method go on with the observers and the count of what stood in its place."""
    new.channel.control_bytes += chosen.sent_bytes
    if new is not old:
        new.recorder.take_over(old.recorder)
        new.channel.control_bytes += old.channel.control_bytes


class MayChoose(Protocol):
    """What was given "auto", or a method."""

    automatic: Automatic | None
    undecided: "Undecided | None"

    @property
    def driver(self) -> Any:  # noqa: ANN401
        """What moves the packets."""


class Undecided:
    """A job whose method is not chosen yet: it is made anew, in place, when it is."""

    def __init__(self, job: MayChoose, automatic: Automatic, make: Callable[[Algorithm, str], None]) -> None:
        """`make` lets `job` go on with a method and a layout in place of what it has."""
        self._job, self._automatic, self._make = job, automatic, make

    def measure(self) -> None:
        """Choose by measurement. Collective. Raises PeerLostError."""
        self.take_up(self._automatic.measured(self._job.driver.job))

    def take_up(self, chosen: Chosen) -> None:
        """Go on with what was chosen. Collective. Raises PeerLostError."""
        job, old = self._job, self._job.driver
        job.undecided = None
        if not is_in_place(chosen, old):
            self._make(chosen.algorithm, chosen.layout)
        carry_over(old, job.driver, chosen)
        self._automatic.chosen = chosen


def load_chosen(job: MayChoose, part_of: Callable[[], Mapping[str, Any] | None], load: Callable[[], None]) -> None:
    """Load a state; a job that was given "auto" goes on with the state's method, before its first round. Collective.

    Raises ValueError as `load` does, and for a state of another choice; nothing has changed then.
    """
    if job.automatic is None:
        return load()
    chosen, undecided = job.automatic.recorded_on_all(part_of, job.driver.channel), job.undecided
    if undecided is not None and chosen is not None:
        undecided.take_up(chosen)
    try:
        return load()
    except BaseException:
        if undecided is not None:
            job.undecided, job.automatic.chosen = undecided, None
        raise


P = ParamSpec("P")


def may_choose(init: Callable[P, None]) -> Callable[P, None]:
    """Decorate an optimizer's initializer: with "auto" it begins with plain all-reduce, or with what a state records.

    The optimizer gets `automatic`, and `undecided` while nothing is chosen.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def begin(*arguments: P.args, **options: P.kwargs) -> None:
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        given = bound.arguments
        if not is_auto(given["algorithm"], given["allowed"]):
            return init(*arguments, **options)
        opt, inner = given["self"], given["inner"]
        automatic = Automatic(
            given["allowed"], given["layout"], **{name: given[name] for name in ("timeout_s", "group", "nodes")},
            clients_per_round=given["clients_per_round"],
        )  # fmt: skip
        for each in automatic.allowed:
            check_local_steps(each, given["local_steps"])
            check_inner(inner, each, given["local_steps"])

        def make(algorithm: Algorithm, layout: str) -> None:
            given.update(algorithm=algorithm, layout=layout)
            init(*bound.args, **bound.kwargs)

        def make_anew(algorithm: Algorithm, layout: str) -> None:
            opt.close()
            make(algorithm, layout)

        opt.automatic = automatic
        recorded = automatic.recorded(held_part(inner))
        if recorded is None:
            make(plain(), PLAIN_LAYOUT)
            opt.undecided = Undecided(opt, automatic, make_anew)
        else:
            make(recorded.algorithm, recorded.layout)
            automatic.chosen = recorded
        return None

    return begin


def is_auto(method: object, allowed: object) -> bool:
    """Return whether a method is "auto". Raises OptionError for a list of methods beside another one."""
    if isinstance(method, str) and method == AUTO:
        return True
    if allowed is not None:
        raise OptionError(Named("allowed"), f": the method is given; {AUTO!r} in its place chooses among those allowed")
    return False


def _n_rounds(part: Mapping[str, Any]) -> int:
    driver = part.get("driver", {"rounds": 1})
    rounds = driver.get("rounds") if isinstance(driver, Mapping) else 1
    return rounds if isinstance(rounds, int) else 1  # else it is refused where it is loaded


def _shown(chosen: Chosen) -> dict[str, str]:
    return {"algorithm": chosen.algorithm.name, "layout": chosen.layout}
