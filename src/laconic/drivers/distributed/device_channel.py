"""Payloads and sums of vectors directly from a device's memory: an NCCL group beside the channel's own gloo group.

Headers, control frames and gathered settings stay with the channel. Any backend of torch.distributed that reads the
device's memory will do; the tests use gloo and the CPU.
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
from laconic.torch_compat import bound_device, new_named_group, wait_until

_ERROR_HANDLING = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
_POLL_S = 5e-5  # a payload takes longer
_LOOK_EVERY_S = 1.0
_ABORT_S = 5.0


def gpu_of(device: torch.device, group: dist.ProcessGroup | None) -> str | None:
    """Return the unique name of this GPU, or None if NCCL is not to send from the device.

    A group that was made for gloo only keeps gloo. If each rank of the world is bound to a GPU, NCCL would split a
    smaller group from the world's, and would wait for every rank of the world to take part; such a group keeps gloo.

    Args:
        device: this rank's device.
        group: the user's group; None for all ranks.
    """
    if device.type != "cuda" or "nccl" not in str(dist.get_backend_config(group)):
        return None
    world = dist.group.WORLD
    is_full_world = dist.get_world_size(group) == dist.get_world_size()
    if not is_full_world and world is not None and bound_device(world) is not None:
        return None
    return str(torch.cuda.get_device_properties(device).uuid)


def are_distinct(gpus: Sequence[str | None]) -> bool:
    """Return whether every rank has a GPU of its own, which NCCL requires."""
    return None not in gpus and len(set(gpus)) == len(gpus)


class DeviceChannel:
    """A second group of the same ranks, for tensors on `device`."""

    def __init__(self, ranks: Sequence[int], device: torch.device, engine: str, name: str, timeout_s: float) -> None:
        """Make the group. Collective: every rank must call it. Raises RuntimeError.

        Args:
            ranks: the global ranks of the group.
            device: where the tensors are.
            engine: name of the backend in torch.distributed.
            name: name of the group, which none had before.
            timeout_s: the channel's timeout, seconds.
        """
        self.device = device
        self._ranks = ranks
        self._reports_completion = engine != "gloo"  # gloo's operations complete only when waited for
        with _errors_left_to_us():
            timeout = datetime.timedelta(seconds=2 * timeout_s)  # our own deadline is earlier
            self.group = new_named_group(ranks, engine, name, timeout)

    def connect(self, deadline: float, look: Callable[[], None]) -> None:
        """Run one all-reduce, in which NCCL connects the ranks; it must come before any batch. Collective.

        Args: as for `end_sum`. Raises RuntimeError.
        """
        handshake = dist.all_reduce(torch.zeros(1, device=self.device), group=self.group, async_op=True)
        self.end_sum(handshake, deadline, look)

    def end_sum(self, work: dist.Work, deadline: float, look: Callable[[], None]) -> None:
        """Wait for an all-reduce of this group.

        Args:
            work: the all-reduce.
            deadline: latest time, as of `time.monotonic()`.
            look: called from time to time; raises RuntimeError if a peer is lost.

        Raises:
            PayloadsLostError: if it fails or is not done in time.
        """
        self._poll(work, deadline, look)
        self._wait(work, deadline)

    def swap(
        self, outgoing: Mapping[int, Tensor], expected: Mapping[int, Tensor], deadline: float, look: Callable[[], None]
    ) -> None:
        """Send each peer a payload, and receive into the tensors of `expected`. Peers are ranks of the group.

        All messages go in one batch: if NCCL sends and receives one after the other, two ranks can deadlock.

        Args:
            outgoing: the payloads to send, by peer.
            expected: the tensors to receive into, by peer.
            deadline: as for `end_sum`.
            look: as for `end_sum`.

        Raises:
            PayloadsLostError: if a message fails or is not done in time.
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
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise PayloadsLostError(str(error)) from error
        for work in works:
            if self._reports_completion:
                self._poll(work, deadline, look)
            self._wait(work, deadline)

    def _poll(self, work: dist.Work, deadline: float, look: Callable[[], None]) -> None:
        """Poll until `work` is done or has failed. NCCL's own wait blocks the device's stream, not this process."""
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
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise PayloadsLostError(str(error)) from error

    def abandon(self) -> None:
        """Abort the group, so that no other rank and no kernel waits for this one. NCCL's abort itself can hang."""
        leaving = threading.Thread(target=_quietly, args=(self.group.abort,), daemon=True)
        leaving.start()
        leaving.join(_ABORT_S)


def _quietly(abort: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):
        abort()


@contextlib.contextmanager
def _errors_left_to_us() -> Iterator[None]:
    """Within this context, make NCCL groups that do not end the process when a rank is lost (torch's default)."""
    before = os.environ.get(_ERROR_HANDLING)
    os.environ[_ERROR_HANDLING] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ERROR_HANDLING]
        else:
            os.environ[_ERROR_HANDLING] = before
