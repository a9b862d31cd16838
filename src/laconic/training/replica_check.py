"""A check that replicas, and the options that schedulers move, are equal on all ranks, by a comparison of hashes.

The direction that a round ends with has the same bits on every rank. What can part replicas is what each rank computes
from it: on unlike processors or versions an inner optimizer rounds differently, in the last bits. Other differences are
mistakes: a parameter changed outside of `step`, a scheduler stepped on one rank only, a state loaded on one rank only.

Of roundings the parameters alone are put right. The inner optimizers' states stay as they are: they are means of the
same directions, so they differ in their last bits for good, and the parameters that they move are put right again.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.drivers.distributed.agreement import Scalar, difference
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.rounds import Processes
from laconic.errors import ReplicaError
from laconic.statements import state_once
from laconic.training.agreed_settings import group_options
from laconic.training.flat_parameters import FlatParameters

REPLICAS = ("sync", "stop")

# Between two checks a step rounds a few times, each time by half a unit in the last place of the tensor's largest value
# at most, so a thousand units cover a hundred steps that all round the same way. One step with another learning rate
# or momentum moves parameters by more. Types of few bits round a step away or up to a full unit, hence the cap.
_UNITS = 1000
_UNITS_PER_ROUND = 8
_MAX_RELATIVE = 1 / 16
_FLOOR = 2.0**-10  # of the model's largest value: smaller tensors are measured by it, since they may be near zero
_MAX_OPTIONS_BYTES = 1 << 22


class ReplicaCheck:
    """The check of one rank."""

    def __init__(
        self,
        driver: Processes,
        inner: Optimizer,
        flat: FlatParameters,
        *,
        every: int,
        replicas: str,
        compares_parameters: bool,
        compares_options: bool,
        server_holds_model: bool = False,
    ) -> None:
        """Set up the check.

        Args:
            driver: this rank's part of the job.
            inner: the user's optimizer.
            flat: its parameters.
            every: rounds between two checks; 0 for never.
            replicas: what happens to replicas that differ by rounding: "sync" puts them right, "stop" raises.
            compares_parameters: whether this rank has a replica.
            compares_options: whether this rank's inner optimizer is used.
            server_holds_model: whether a server has the model, so that its rank must begin with the same one.
        """
        self._driver = driver
        self._inner = inner
        self._flat = flat
        self.every = every
        """Rounds between two checks; 0 for never."""
        self._stops = replicas == "stop"
        self._compares_parameters = compares_parameters
        self._compares_options = compares_options
        self.is_start = True
        """Whether the next step is the first one, or the first after a state was loaded."""
        self._server_holds_model = server_holds_model
        self._checked = 0  # the last round that was checked

    def at_start(self, n_taken: int) -> None:
        """Check before a step, so that weights that one rank alone has loaded are noticed. Collective.

        Args:
            n_taken: number of local steps since the last exchange, which part the replicas.

        Raises:
            ReplicaError: naming the ranks that differ.
        """
        self.is_start = False
        if self.every and not n_taken:
            self.check()
        if self._server_holds_model and not self._driver.rounds:
            _compare_start(self._driver.channel, self._flat.values())

    def at_end(self) -> None:
        """Check, unless that was done after the last round. Collective. Raises ReplicaError."""
        if self.every and self._driver.rounds != self._checked:
            self.check()

    def check(self) -> None:
        """Compare all ranks, and put right what differs by rounding. Collective.

        Raises:
            ReplicaError: naming the ranks that differ, and where options differ both ranks' values.
        """
        channel, round_ = self._driver.channel, self._driver.rounds
        n_rounds, self._checked = min(self.every, max(1, round_ - self._checked)), round_
        options = group_options(self._inner) if self._compares_options else {}
        mine = (
            hash_of(self._flat.values()) if self._compares_parameters else "",
            blake2b(json.dumps(options).encode(), digest_size=16).hexdigest() if options else "",
        )
        gathered = channel.gather(mine, f"for its parameters' hash, round {round_}", (str, str), max_bytes=128)
        if len({hash_ for _, hash_ in gathered if hash_}) > 1:
            self._compare_options(options, round_)
        hashes = {rank: hash_ for rank, (hash_, _) in enumerate(gathered) if hash_}
        if len(set(hashes.values())) > 1:
            self._compare_parameters(hashes, round_, n_rounds)

    def _compare_options(self, options: Mapping[str, Scalar], round_: int) -> None:
        """Raise ReplicaError for the first option that differs by more than rounding."""
        schema = {str: str | int | float | bool | type(None)}
        gathered = self._driver.channel.gather(
            dict(options), f"for its optimizer's options, round {round_}", schema, _MAX_OPTIONS_BYTES
        )
        having = [rank for rank, found in enumerate(gathered) if found]
        for rank in having[1:]:
            found = difference(gathered[having[0]], gathered[rank])
            if found is not None:
                raise ReplicaError(
                    f"after round {round_} rank {having[0]} has {found[0]}, rank {rank} has {found[1]}: the options of "
                    "the inner optimizer must stay equal; does every rank step the same scheduler equally often, and "
                    "with the same values?"
                )

    def _compare_parameters(self, hashes: Mapping[int, str], round_: int, n_rounds: int) -> None:
        """Take over the first replica where the others differ from it by rounding; raise ReplicaError elsewhere."""
        counts = Counter(hashes.values())
        right = max(hashes, key=lambda rank: (counts[hashes[rank]], -rank))  # the majority's; on a tie, the lowest
        wrong = [rank for rank in hashes if hashes[rank] != hashes[right]]
        differ = f"after round {round_} the parameters of rank {' and rank '.join(map(str, wrong))} differ from rank "
        differ += f"{right}'s"
        advice = "were they changed outside of step(), or do the inner optimizers' states or options differ?"
        if self._stops:
            raise ReplicaError(f"{differ}; {advice}")
        channel = self._driver.channel
        mine = self._flat.values()
        of_rank_0 = mine.clone()
        channel.share(of_rank_0, f"for rank 0's parameters, round {round_}")
        worst = (
            largest_difference(self._flat, mine, of_rank_0, n_rounds) if self._compares_parameters else (0.0, 0.0, 0)
        )
        purpose = f"for its parameters' difference, round {round_}"
        gathered = channel.gather(worst, purpose, (float, float, range(len(self._flat.names))), max_bytes=96)
        units, relative, number = max(gathered, key=lambda found: found[0])
        if units > 1:
            raise ReplicaError(
                f"{differ}, by up to {relative:.1e} of the largest value of {self._flat.names[number]!r}, which is "
                f"more than rounding explains; {advice}"
            )
        if self._compares_parameters and hashes[channel.rank] != hashes[0]:
            self._flat.set_values(of_rank_0)
        self._driver.replica_syncs += 1
        if channel.rank == 0 and self._driver.replica_syncs == 1:
            state_once(
                f"{differ.replace('differ', 'differed')} by rounding (at most {relative:.1e} of a tensor's largest "
                "value), as on unlike processors or versions. All ranks have rank 0's parameters again. Later checks "
                'do the same, and traffic.replica_syncs counts them; replicas="stop" raises an error instead'
            )


def _compare_start(channel: Channel, parameters: Tensor) -> None:
    """Raise ReplicaError if a rank begins with other parameters (d,) than rank 0, also one that serves. Collective."""
    gathered = channel.gather(hash_of(parameters), "for its first parameters' hash", str, max_bytes=64)
    wrong = [str(rank) for rank, hash_ in enumerate(gathered) if hash_ != gathered[0]]
    if wrong:
        raise ReplicaError(
            f"the parameters of rank {' and rank '.join(wrong)} differ from rank 0's before the first step; load "
            "weights on every rank, also on one that only serves"
        )


def largest_difference(flat: FlatParameters, one: Tensor, other: Tensor, n_rounds: int = 1) -> tuple[float, float, int]:
    """Return how much two replicas (d,) differ at most: in bounds of rounding, relative, and the parameter.

    inf or NaN that both have at one place is no difference; that only one has is an infinite one, whichever it is.
    """
    floor = _FLOOR * _largest_finite(one, other)
    worst = (0.0, 0.0, 0)
    for number, (own, second) in enumerate(zip(flat.views(one), flat.views(other), strict=True)):
        if own.numel() == 0 or torch.equal(own, second):
            continue
        is_same = (own == second) | (own.isnan() & second.isnan())
        gap = float((own - second).abs_().masked_fill_(is_same, 0.0).max())
        if not math.isfinite(gap):
            return math.inf, math.inf, number
        largest = max(_largest_finite(own, second), floor)
        relative = gap / largest if largest > 0 else 0.0
        unit = torch.finfo(flat.parameters[number].dtype).eps
        bound = min(_MAX_RELATIVE, unit * max(_UNITS, _UNITS_PER_ROUND * n_rounds))
        worst = max(worst, (relative / bound, relative, number))
    return worst


def _largest_finite(one: Tensor, other: Tensor) -> float:
    """Return the largest absolute value in two tensors, without inf and NaN."""
    return max(float(values.abs().nan_to_num_(0.0, 0.0).max()) for values in (one, other))


def hash_of(vector: Tensor) -> str:
    """Return a hash of a vector's bits."""
    return blake2b(vector.cpu().numpy().tobytes(), digest_size=16).hexdigest()
