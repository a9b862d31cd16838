"""Bodies of frames and sums of vectors straight from a device's memory: NCCL beside the channel's own gloo group.

Heads, notices and agreements stay with the channel. Any engine of torch.distributed that reads the device's memory
will do; tests take gloo and the CPU.
"""

import contextlib
import datetime
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.errors import PayloadsLostError
from laconic.torch_compat import abort_of, bound_device

_ERROR_HANDLING = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
_POLL_S = 5e-5  # a body takes longer
_LOOK_EVERY_S = 1.0
_ABORT_S = 5.0


def gpu_of(device: torch.device, group: dist.ProcessGroup | None) -> str | None:
    """Which card this is, of all the cards of all machines; None where NCCL is not to send from the device.

    group: the user's, None for all ranks. One that was made for gloo alone stays with that. Where each rank of the
    world was bound to a card beforehand, NCCL splits a smaller group off the world's, and waits for every rank of the
    world to take part in that.
    """
    if device.type != "cuda" or "nccl" not in str(dist.get_backend_config(group)):
        return None
    world = dist.group.WORLD
    is_full_world = dist.get_world_size(group) == dist.get_world_size()
    if not is_full_world and world is not None and bound_device(world) is not None:
        return None
    return str(torch.cuda.get_device_properties(device).uuid)


def are_distinct(gpus: Sequence[str | None]) -> bool:
    """Whether every rank has a card to itself, without which NCCL does not work."""
    return None not in gpus and len(set(gpus)) == len(gpus)


class DeviceChannel:
    """A second group of the same ranks, for what lies on `device`."""

    def __init__(self, ranks: Sequence[int], device: torch.device, engine: str, timeout_s: float) -> None:
        """ranks: global ones. engine: its name in torch.distributed. Collective. Raises RuntimeError."""
        self.device = device
        self._ranks = ranks
        self._reports_completion = engine != "gloo"  # of themselves that they are done; gloo's do so when waited for
        with _errors_left_to_us():
            self.group = dist.new_group(
                ranks,
                backend=engine,
                timeout=datetime.timedelta(seconds=2 * timeout_s),  # our own patience ends before
                use_local_synchronization=len(ranks) < dist.get_world_size(),
            )

    def connect(self, deadline: float, look: Callable[[], None]) -> None:
        """Let all ranks take part in one call, in which NCCL connects them; no batch may come before it. Collective.

        look: as for `end_sum`. Raises RuntimeError.
        """
        handshake = dist.all_reduce(torch.zeros(1, device=self.device), group=self.group, async_op=True)
        self.end_sum(handshake, deadline, look)

    def end_sum(self, work: dist.Work, deadline: float, look: Callable[[], None]) -> None:
        """Wait for an all-reduce of this group.

        look: called now and then, and raises RuntimeError when it need not come any more.
        Raises PayloadsLostError.
        """
        self._poll(work, deadline, look)
        self._wait(work, deadline)

    def swap(
        self, outgoing: Mapping[int, Tensor], expected: Mapping[int, Tensor], deadline: float, look: Callable[[], None]
    ) -> None:
        """Send each peer a body, and fill the bodies in `expected` by their peers'. Peers are ranks of the group.

        All in one batch: NCCL's messages of both directions, one after the other, can wait for each other for ever.
        look: as for `end_sum`. Raises PayloadsLostError.
        """
        messages = [
            dist.P2POp(dist.irecv, payload, self._ranks[peer], self.group) for peer, payload in expected.items()
        ]
        messages += [
            dist.P2POp(dist.isend, payload, self._ranks[peer], self.group) for peer, payload in outgoing.items()
        ]
        if not messages:
            return
        try:
            with torch.cuda.device_of(messages[0].tensor):  # type: ignore[no-untyped-call]  # as NCCL wants it
                works = dist.batch_isend_irecv(messages)
        except RuntimeError as error:
            raise PayloadsLostError(str(error)) from error
        for work in works:
            if self._reports_completion:
                self._poll(work, deadline, look)
            self._wait(work, deadline)

    def _poll(self, work: dist.Work, deadline: float, look: Callable[[], None]) -> None:
        """Until `work` is done or has failed. To wait for NCCL's holds up the device's stream, and not this process."""
        looked = time.monotonic()
        while not work.is_completed():
            now = time.monotonic()
            if now > deadline:
                raise PayloadsLostError("it is not done in time")
            if now - looked > _LOOK_EVERY_S:
                look()
                looked = now
            time.sleep(_POLL_S)

    def _wait(self, work: dist.Work, deadline: float) -> None:
        try:
            wait_until(work, deadline)
        except RuntimeError as error:
            raise PayloadsLostError(str(error)) from error

    def abandon(self) -> None:
        """Give up: let no other rank, and no kernel on the device, wait for this one. NCCL's abort itself can hang."""
        abort = abort_of(self.group)
        if abort is not None:
            leaving = threading.Thread(target=_quietly, args=(abort,), daemon=True)
            leaving.start()
            leaving.join(_ABORT_S)


def wait_until(work: dist.Work | None, deadline: float) -> None:
    """Wait for any group's work until time.monotonic() is `deadline`. Raises RuntimeError where it fails."""
    assert work is not None
    work.wait(datetime.timedelta(seconds=max(0.001, deadline - time.monotonic())))


def _quietly(abort: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):
        abort()


@contextlib.contextmanager
def _errors_left_to_us() -> Iterator[None]:
    """NCCL groups made meanwhile do not end the process when a rank is lost, as torch has it by default."""
    before = os.environ.get(_ERROR_HANDLING)
    os.environ[_ERROR_HANDLING] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ERROR_HANDLING]
        else:
            os.environ[_ERROR_HANDLING] = before
