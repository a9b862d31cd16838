"""One rank of the bench, in its own namespace."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ranks import TIMEOUT_S
from torch import Tensor, nn

from laconic.contract import ALGORITHMS
from laconic.drivers.distributed.channel import Channel
from laconic.hyperparameters import from_text
from laconic.planning.measure import measure_network
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.wire import Encoded

_N_VECTORS = 3  # gradients, used in turn


class TimedTransport:
    """A channel on which all ranks wait for each other before each swap or sum, which is then timed."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.by_round: list[dict[str, float]] = []  # seconds of upload and download
        self.waits_s = 0.0  # waiting until all ranks are ready

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._channel, name)

    def begin(self) -> None:
        self.by_round.append({})

    def swap(
        self, outgoing: Mapping[int, Encoded], expected: Sequence[int], purpose: str
    ) -> Iterator[tuple[int, Encoded]]:
        with self._timed("down" if " answer " in purpose else "up"):
            arrived = list(self._channel.swap(outgoing, expected, purpose))
        return iter(arrived)

    def all_reduce(self, *given: Any) -> None:  # noqa: ANN401
        with self._timed("up"):  # it is both directions
            self._channel.all_reduce(*given)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        dist.barrier()
        ready = time.perf_counter()
        yield
        if self.by_round:
            self.by_round[-1][name] = self.by_round[-1].get(name, 0.0) + time.perf_counter() - ready
            self.waits_s += ready - start


class Given(nn.Module):
    """Parameters without a model, with given gradients."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(d))


class RealNetworkRank:
    """One rank, which runs all cases."""

    def __init__(self) -> None:
        self.opt: DistributedOptimizer | None = None
        self.phases: TimedTransport | None = None
        self.gradients: list[Tensor] = []
        self.n_evaluated = 0

    def set_up(self, method: str, settings: dict[str, str], d: int, layout: str) -> dict[str, Any]:
        model = Given(d)
        inner = torch.optim.SGD(model.parameters(), lr=0.01)
        algorithm = from_text(ALGORITHMS[method], settings, method)
        self.opt = DistributedOptimizer(
            inner, algorithm, model=model, layout=layout, check_every=0, timeout_s=TIMEOUT_S
        )
        self.phases = self.opt.driver.channel = TimedTransport(self.opt.driver.channel)
        random = torch.Generator().manual_seed(dist.get_rank())
        self.gradients = [torch.randn(d, generator=random) for _ in range(_N_VECTORS)]
        self.model = model
        self._step()  # a warm-up: some methods send more in the first round
        return {}

    def _step(self) -> None:
        assert self.opt is not None

        def closure() -> float:
            # Another gradient at every evaluation, so that lazy methods see a change.
            self.model.values.grad = self.gradients[self.n_evaluated % _N_VECTORS].clone()
            self.n_evaluated += 1
            return 0.0

        if self.opt.algorithm.second_gradient:
            self.opt.step(closure)
        else:
            closure()
            self.opt.step()

    def rounds(self, n: int) -> dict[str, Any]:
        assert self.opt is not None
        assert self.phases is not None
        before = self.opt.traffic
        start, used_s = time.perf_counter(), time.process_time()
        for _ in range(n):
            self.phases.begin()
            self._step()
        wall_s, used_s = time.perf_counter() - start, time.process_time() - used_s
        after = self.opt.traffic
        return {
            "phases": self.phases.by_round,
            "ready_s": self.phases.waits_s,
            "wall_s": wall_s,
            "process_s": used_s,
            "seconds": {name: after.seconds[name] - before.seconds[name] for name in after.seconds},
            "wire_bytes": {
                "up": after.up.wire_bytes - before.up.wire_bytes,
                "down": after.down.wire_bytes - before.down.wire_bytes,
            },
        }

    def measure(self) -> dict[str, Any]:
        """Measure the network as `laconic plan --measure` does."""
        found = measure_network(TIMEOUT_S)
        return {"link": found.link, "links": found.links, "ranks_per_core": found.ranks_per_core}

    def barriers(self, n: int) -> dict[str, Any]:
        """Run `n` barriers, to measure their bytes."""
        for _ in range(n):
            dist.barrier()
        return {}

    def small(self, n: int) -> dict[str, Any]:
        """Return the seconds of each of `n` round trips of a small message between ranks 0 and 1."""
        took, word = [], torch.zeros(1)
        for _ in range(n):
            start = time.perf_counter()
            if dist.get_rank() == 0:
                dist.send(word, 1)
                dist.recv(word, 1)
            elif dist.get_rank() == 1:
                dist.recv(word, 0)
                dist.send(word, 0)
            took.append(time.perf_counter() - start)
        return {"there_and_back_s": took}
