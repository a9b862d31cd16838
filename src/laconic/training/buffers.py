"""Buffers of a model that change in training, such as the statistics of batch norm: whose they are on each rank.

DistributedDataParallel sends rank 0's before every forward pass. Here they travel every so many rounds and on request:
in training batch norm does not read them, and over a slow network they would cost more than compressed gradients.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from laconic.contract import Algorithm
from laconic.drivers.distributed.channel import Channel
from laconic.hyperparameters import is_number
from laconic.statements import state_once, warn

Buffers = Literal["local", "average", "rank0"]


def chosen_buffers(
    buffers: Buffers | None, buffers_every: int, model: torch.nn.Module | None, algorithm: Algorithm
) -> Buffers:
    """Return the choice of the user, or the method's default for None. Raises TypeError or ValueError for a wrong one.

    Args:
        buffers: one of `Buffers`, or None.
        buffers_every: rounds between two times that they are shared; 0 for only on request.
        model: the model, or None if it was not given.
        algorithm: the method.
    """
    if not is_number(buffers_every, int):
        raise TypeError(f"buffers_every={buffers_every!r} must be a whole number of rounds, or 0 for never")
    if buffers_every < 0:
        raise ValueError(f"buffers_every={buffers_every} must be at least 0; 0 shares them in share_buffers() alone")
    if buffers is None:
        return "rank0" if algorithm.replicas_equal and not algorithm.is_asynchronous else "local"
    if buffers not in get_args(Buffers):
        raise ValueError(f"buffers={buffers!r} must be one of {', '.join(get_args(Buffers))}")
    if buffers != "local" and model is None:
        raise ValueError(f"buffers={buffers!r}: only the model knows its buffers; pass model=model")
    if buffers != "local" and algorithm.is_asynchronous:
        raise ValueError(
            f"buffers={buffers!r}: workers of {algorithm.name} take part in no common round; leave it at 'local', and "
            "call share_buffers() on every rank at the end"
        )
    return buffers


def check_share(how: str | None, model: torch.nn.Module | None) -> None:
    """Raise ValueError for wrong arguments of `share_buffers`."""
    if how not in (None, "average", "rank0"):
        raise ValueError(f"share_buffers: how={how!r} must be 'average' or 'rank0'")
    if model is None:
        raise ValueError("share_buffers: only the model knows its buffers; make the optimizer with model=model")


class SharedBuffers:
    """The buffers of this rank's model, and when and how the ranks make them equal."""

    def __init__(self, model: torch.nn.Module, channel: Channel, how: Buffers, *, trains: bool, n_workers: int) -> None:
        """Note the buffers, which are equal on all ranks now.

        Args:
            model: this rank's model.
            channel: the connection to the other ranks.
            how: what becomes of them at intervals.
            trains: whether this rank trains; one that only serves has no statistics of its own.
            n_workers: number of ranks that train.
        """
        self.how: Buffers = how
        self._model, self._channel, self._trains, self._n_workers = model, channel, trains, n_workers
        self._unfit: list[str] = []  # that would not be finite
        self._is_stated = channel.rank > 0 or channel.size == 1
        named = dict(model.named_buffers())
        self._like = {name: (buffer.shape, buffer.dtype) for name, buffer in named.items()}
        self._known = _hashes(named)

    @classmethod
    def of(
        cls, model: torch.nn.Module | None, channel: Channel, how: Buffers, *, trains: bool, n_workers: int
    ) -> Self | None:
        """Return the buffers of a model; None if it is not given, or has none."""
        has_buffers = model is not None and any(True for _ in model.buffers())
        return (
            cls(model, channel, how, trains=trains, n_workers=n_workers) if model is not None and has_buffers else None
        )

    def share(self, how: Buffers | None = None) -> None:
        """Make those equal that changed on any rank since they were last equal. Collective: every rank must call it.

        What is not a float, such as batch norm's count of batches, is always rank 0's. A buffer that would become inf
        or NaN stays as it is on each rank, with a warning.

        Args:
            how: "average" or "rank0"; by default as at intervals, and "rank0" if they are local there.

        Raises:
            PeerLostError: if a rank is lost.
        """
        if not self._like or self._channel.size == 1:
            return
        how = how or ("rank0" if self.how == "local" else self.how)
        named, numbers = dict(self._model.named_buffers()), {name: place for place, name in enumerate(self._like)}
        apart = [numbers[name] for name, like in self._like.items() if not _fits(named.get(name), like)]
        now = _hashes(named)
        changed = [place for name, place in numbers.items() if self._trains and now.get(name) != self._known.get(name)]
        known = [range(len(numbers))]
        shown = self._channel.gather(
            [changed, apart], "for its list of changed buffers", (known, known), max_bytes=40 + 22 * len(numbers)
        )
        refused = {place for _, of_rank in shown for place in of_rank}
        moving = {place for of_rank, _ in shown for place in of_rank} - refused
        names = [name for name, place in numbers.items() if place in moving]
        if refused and self._channel.rank == 0:
            listed = ", ".join(name for name, place in numbers.items() if place in refused)
            state_once(f"buffers with another shape or type than at the start stay each rank's own: {listed:.200}")
        averaged = [name for name in names if how == "average" and _is_real_or_complex(named[name])]
        self._average([(name, named[name]) for name in averaged])
        self._take_from_rank_0([(name, named[name]) for name in names if name not in averaged])
        self._known |= _hashes({name: named[name] for name in names})
        unfit, self._unfit = self._unfit, []
        if unfit:  # now, since a warning may be an error, and others wait for all that travels
            warn(f"buffers that would become inf or NaN stay each rank's own: {', '.join(unfit):.200}")

    def _average(self, named: Sequence[tuple[str, Tensor]]) -> None:
        """Overwrite float buffers by the mean over the ranks that train."""
        for wide in (torch.float32, torch.float64):
            chosen = [(name, buffer) for name, buffer in named if _wide(buffer) == wide]
            if not chosen:
                continue
            vector = torch.cat([_flat(buffer).to("cpu", wide) for _, buffer in chosen])
            if not self._trains:
                vector.zero_()
            self._channel.all_reduce(vector, "for the mean of its buffers")
            self._channel.control_bytes += 2 * vector.numel() * vector.element_size()
            self._write(chosen, vector.div_(self._n_workers))

    def _take_from_rank_0(self, named: Sequence[tuple[str, Tensor]]) -> None:
        """Overwrite buffers of any type by rank 0's."""
        if not named:
            return
        data = torch.cat([_bytes(buffer) for _, buffer in named])
        self._channel.share(data)
        sizes = [buffer.numel() * buffer.element_size() for _, buffer in named]
        for (name, buffer), part in zip(named, torch.split(data, sizes), strict=True):
            self._write([(name, buffer)], part.clone().view(_flat(buffer).dtype))

    def _write(self, named: Sequence[tuple[str, Tensor]], vector: Tensor) -> None:
        """Write a vector's parts into buffers, but for those that are not finite in the buffer's own type."""
        parts = torch.split(vector, [_flat(buffer).numel() for _, buffer in named])
        with torch.no_grad():
            for (name, buffer), part in zip(named, parts, strict=True):
                flat = _flat(buffer)
                new = part.to(flat.device, flat.dtype)
                if new.is_floating_point() and bool((_is_finite(flat) & ~_is_finite(new)).any()):
                    self._unfit.append(name)
                elif buffer.is_complex():
                    torch.view_as_real(buffer).copy_(new.reshape(*buffer.shape, 2))
                else:
                    buffer.copy_(new.reshape(buffer.shape))

    def after_round(self, round_: int, every: int) -> None:
        """Share the buffers after every so many rounds. Collective, like the rounds."""
        if not self._is_stated:
            self._is_stated = True
            self._state(every)
        if self.how != "local" and every and round_ % every == 0:
            self.share()

    def _state(self, every: int) -> None:
        """State which buffers a rank evaluates with, if a round has changed some."""
        named = dict(self._model.named_buffers())
        now = _hashes(named)
        changed = [
            name for name, buffer in named.items() if _is_real_or_complex(buffer) and now[name] != self._known.get(name)
        ]
        if not changed:
            return
        text = f"buffers such as {changed[0]!r} are each rank's own"
        if self.how != "local" and every:
            whose = "rank 0's" if self.how == "rank0" else "the ranks' mean"
            text += f", and {whose} after every {every}th round"
        state_once(
            f"{text}; where several ranks evaluate, call {self._channel.door.held}.share_buffers() on every rank before"
        )


def _hashes(named: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Return a hash of each buffer's bits. Batch norm changes its statistics without counting it as a change."""
    return {name: blake2b(_bytes(buffer).numpy().tobytes(), digest_size=16).digest() for name, buffer in named.items()}


def _bytes(buffer: Tensor) -> Tensor:
    """Return a buffer's bits as a vector of bytes."""
    return _flat(buffer).cpu().contiguous().view(torch.uint8)


def _is_finite(flat: Tensor) -> Tensor:
    """Return by element whether it is finite; floats of 8 bits have no such function of their own."""
    return flat.to(torch.float64).isfinite()


def _fits(buffer: Tensor | None, like: tuple[torch.Size, torch.dtype]) -> bool:
    return buffer is not None and (buffer.shape, buffer.dtype) == like


def _is_real_or_complex(buffer: Tensor) -> bool:
    return buffer.is_floating_point() or buffer.is_complex()


def _flat(buffer: Tensor) -> Tensor:
    """Return a buffer as a vector of reals, integers or truth values."""
    plain = buffer.detach()
    return (torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain).reshape(-1)


def _wide(buffer: Tensor) -> torch.dtype:
    """Return the type in which a float buffer is averaged."""
    return torch.float64 if _flat(buffer).dtype == torch.float64 else torch.float32
