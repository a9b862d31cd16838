"""The sentence that says which rank is missing and where the others stand, from what they have told one another."""

from collections.abc import Callable, Sequence

from laconic.drivers.distributed.failure_report import Findings
from laconic.errors import PeerLostError

_MAX_NAMED = 6  # ranks in one sentence


def names_of(ranks: Sequence[int], global_ranks: Sequence[int]) -> str:
    """Return the names of ranks of a group, such as "rank 1 and rank 2"; of those with another global rank, with it."""
    names = []
    for rank in ranks:
        place = global_ranks[rank]
        names.append(f"rank {rank}" if place == rank else f"rank {rank} of the group (global rank {place})")
    return " and ".join(names)


def lost_error(found: Findings, names: Callable[[Sequence[int]], str], timeout_s: float) -> PeerLostError:
    """Return the error to raise; see `verdict`."""
    error = PeerLostError(verdict(found, names, timeout_s))
    error.cause = _cause(found, names, timeout_s)
    return error


def text_of(error: BaseException) -> str:
    """Return an error's class and text for a note, which others quote beside what they know of rounds themselves."""
    text = error.cause if isinstance(error, PeerLostError) and error.cause else str(error)
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def verdict(found: Findings, names: Callable[[Sequence[int]], str], timeout_s: float) -> str:
    """Return why this rank gave up, and which rounds are whole.

    Args:
        found: what it has found out.
        names: returns the names of ranks, such as "rank 1 and rank 2".
        timeout_s: how long a rank is waited for, seconds.
    """
    cause, rounds = _cause(found, names, timeout_s), _rounds(found, names)
    if found.me in found.late or not rounds:
        return cause
    return f"{cause}{' ' if cause.endswith('?') else '. '}{rounds}"


def _cause(found: Findings, names: Callable[[Sequence[int]], str], timeout_s: float) -> str:
    mine = found.notes[found.me]
    late = f"timeout_s={timeout_s:g}; a slow rank needs a larger one"
    if raised := found.having("raised"):
        return "; ".join(_raised(found, rank, names) for rank in raised[:_MAX_NAMED])
    if dead := found.dead:
        return (
            f"{names(dead)} was waited for ({mine.purpose}), but its connection closed. Look at that rank's own output"
        )
    if ended := found.having("ended"):
        here = f"; {names([found.me])}, this one, is {mine.where} ({mine.purpose})"
        asked = "Did every rank call step() equally often?"
        return "; ".join(_ended(found, rank, names) for rank in ended[:_MAX_NAMED]) + f"{here}. {asked}"
    if missed := found.missed:
        return (
            f"{names(missed)} was waited for ({mine.purpose}), but nothing came within timeout_s={timeout_s:g}. Look "
            f"at that rank's own output: is it still at work, or elsewhere than {mine.where}? A slow rank needs a "
            "larger timeout_s"
        )
    if found.me in found.late:
        return f"{names([found.me])}, this one, came too late ({mine.purpose}): the others gave up waiting after {late}"
    if found.late:
        return f"{names(found.late)} was waited for ({mine.purpose}), but came only after {late}"
    return _standstill(found, names, timeout_s)


def _raised(found: Findings, rank: int, names: Callable[[Sequence[int]], str]) -> str:
    note = found.notes[rank]
    where = f" {note.where}" if note.where else ""
    return f"{names([rank])} gave up{where}: {note.cause}"


def _ended(found: Findings, rank: int, names: Callable[[Sequence[int]], str]) -> str:
    note = found.notes[rank]
    cause = f" with {note.cause}" if note.cause else ""
    return f"{names([rank])} has ended {note.where}{cause}"


def _standstill(found: Findings, names: Callable[[Sequence[int]], str], timeout_s: float) -> str:
    """Return the sentence where nobody is missing: the ranks wait in different calls, or cannot reach each other."""
    ranks_at: dict[str, list[int]] = {}
    for rank, note in sorted(found.notes.items()):
        ranks_at.setdefault(f"{note.where} ({note.purpose})", []).append(rank)
    stand = ", ".join(f"{names(ranks[:_MAX_NAMED])} {where}" for where, ranks in ranks_at.items())
    if len({note.where for note in found.notes.values()}) > 1:
        return (
            f"the ranks wait for each other in different calls: {stand}. Did every rank call step() and the other "
            "collective methods equally often, and in the same order?"
        )
    closed = sorted({tuple(sorted((one, other))) for one, note in found.notes.items() for other in note.closed})
    how = f"the connection of {' and of '.join(names(pair) for pair in closed[:_MAX_NAMED])} closed" if closed else (
        f"nothing came within timeout_s={timeout_s:g}"
    )  # fmt: skip
    return f"no rank is missing, but {how}: {stand}. Do all ranks reach each other over the network?"


def _rounds(found: Findings, names: Callable[[Sequence[int]], str]) -> str:
    """Return which rounds the ranks that are left have ended."""
    left: dict[int, list[int]] = {}
    for rank, note in sorted(found.notes.items()):
        if note.how != "ended" and note.where:
            left.setdefault(note.rounds, []).append(rank)
    if not any(left):
        return ""
    if len(left) == 1:
        (rounds,) = left
        n_rounds = f"{rounds} round{'' if rounds == 1 else 's'}"
        return f"All ranks that are left have ended {n_rounds}, so what their state_dict() returns fits together"
    (newest, ahead), *_ = sorted(left.items(), reverse=True)
    stand = ", ".join(f"{names(ranks[:_MAX_NAMED])} {rounds}" for rounds, ranks in sorted(left.items()))
    return (
        f"Rounds ended: {stand}. Round {newest} is whole on {names(ahead[:1])}; to go on from it, load that rank's "
        "model and state on every rank"
    )
