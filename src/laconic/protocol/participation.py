"""Which k of n workers take part in a round, chosen anew in each: partial participation, as in federated averaging.

McMahan et al.: Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017.
"""

from dataclasses import dataclass
from functools import lru_cache

from laconic.contract import Algorithm, Rule
from laconic.errors import Named, OptionError
from laconic.protocol.layout import Layout
from laconic.random_keys import make_key


@dataclass(frozen=True, kw_only=True)
class Participation:
    """k of n workers, chosen uniformly by the seed and the round alone."""

    workers: int
    """n."""
    per_round: int
    """k."""
    seed: int

    def check(self, algorithm: Algorithm, layout: Layout) -> None:
        """Raise OptionError if there are fewer workers, or the method or layout needs all of them in each round."""
        asked = Named("clients_per_round", self.per_round)
        if not 1 <= self.per_round <= self.workers:
            raise OptionError(asked, " must be at least 1 and at most ", Named("workers", self.workers))
        why = why_all_are_needed(algorithm)
        if why:
            raise OptionError(
                asked, f": {algorithm.name} {why}; leave it out, or take a method such as sgd, ec-sgd or ssgd-mv"
            )
        if not layout.has_server:
            raise OptionError(
                asked, " needs a server, and ", Named("layout", layout.name), " has none; take ",
                Named("layout", "dedicated"),
            )  # fmt: skip
        if layout.name == "sharded":  # a worker that is not there would still serve its slice
            raise OptionError(
                asked, " cannot go with ", Named("layout", "sharded"), ", where every worker serves a slice of the "
                "model in each round; take ", Named("layout", "dedicated"), " or ", Named("layout", "rank0"),
            )  # fmt: skip

    def absent_in(self, round_: int) -> frozenset[int]:
        """Return the ranks of the workers that are not chosen in a round."""
        return _absent_in(self, round_)


@lru_cache(maxsize=8)
def _absent_in(participation: Participation, round_: int) -> frozenset[int]:
    ranks = range(participation.workers)
    order = sorted(ranks, key=lambda rank: make_key(participation.seed, "link", rank, round_, "takes part"))
    return frozenset(order[participation.per_round :])


def why_all_are_needed(algorithm: Algorithm) -> str:
    """Return why every worker has to take part in each round of a method; empty if a part of them is enough."""
    if algorithm.mode != "rounds" or not algorithm.replicas_equal or algorithm.server_steps:
        return "has no rounds with a server that answers whoever takes part"
    if any(name.endswith("<rank>") for name in algorithm.server_slots):
        return "keeps at the server what each worker has sent last"
    if algorithm.tolerates_absence:
        return ""
    alike = next((name for name, slot in algorithm.worker_slots.items() if slot.rule is Rule.SAME), None)
    return "" if alike is None else f"has a memory ({alike}) that all workers change alike in each round"
