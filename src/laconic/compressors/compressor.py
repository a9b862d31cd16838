"""The base classes of compressors, and the claims that one may make.

Some treat a vector in blocks: the full vector, its layers, or runs of a fixed length.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.contract import Accept, Inbox, ModelSpec, Worker
from laconic.hyperparameters import check_hyperparameters, hyperparameter
from laconic.kernels.api import BlockLengths, all_finite, correct, gather
from laconic.wire import Ends, Packet


@dataclass(frozen=True, kw_only=True)
class Compressor(ABC):
    """A function from a vector to a packet.

    Its claims are data. `tests/compressors` checks each on random, heavy-tailed and degenerate vectors.
    """

    name: ClassVar[str]
    """Name in `COMPRESSORS` and in messages."""
    unbiased: ClassVar[bool] = False
    """Whether the mean of the packet's dense form over keys is the vector."""
    separable: ClassVar[bool] = False
    """Whether compressing a slice gives the slice of the compressed vector."""
    counts_zeros: ClassVar[bool] = False
    """Whether zeros become something else, such as a sign."""
    reads_key: ClassVar[bool] = True
    """Whether `key` has an effect. Where it has none, methods may pass 0."""

    @property
    def separable_by_layer(self) -> bool:
        """Whether compressing some of the layers gives those layers of the compressed vector."""
        return self.separable or getattr(self, "blocks", "") == "layer"

    def server_bounds(self, spec: ModelSpec) -> Sequence[int]:
        """Return where blocks end within the vector, so that each side is compressed as if it were alone.

        Args:
            spec: The vector's tensors.

        Returns:
            Numbers of elements, above 0 and below d, in ascending order; all of them if it is separable.
        """
        return range(1, spec.d) if self.separable else block_bounds(getattr(self, "blocks", "vector"), spec)

    test_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings with which error feedback converges on a small problem, for the common tests."""

    def __post_init__(self) -> None:
        check_hyperparameters(self, self.name)

    @abstractmethod
    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Packet:
        """Compress a vector.

        Args:
            vector: (d,) of any float type.
            spec: The vector's tensors, each of which is a layer; without it, the vector is one.
            key: 0 .. 2**64 - 1, the key of random draws; without effect where none are made.
            offset: Number of the vector's first coordinate in the full model.
        """

    def with_residual(
        self, vector: Tensor, residual: Tensor, *, divisor: int = 1, decay: float = 1.0,
        spec: ModelSpec | None = None, key: int = 0, offset: int = 0,
    ) -> Packet:  # fmt: skip
        """Compress vector / divisor + decay residual, which is written over the vector.

        Args:
            vector: (d,) float32 or float64, contiguous, overwritten.
            residual: (d,) of the same type, what earlier packets left out.
            divisor: Divisor of the vector.
            decay: Factor of the residual.
            spec: As for a call, as all below.
            key: The key of random draws.
            offset: Number of the vector's first coordinate.
        """
        correct(vector, residual, divisor=divisor, decay=decay)
        return self(vector, spec=spec, key=key, offset=offset)

    def answer(
        self, inbox: Inbox, residual: Tensor, new_vector: Callable[[], Tensor], *, decay: float = 1.0,
        spec: ModelSpec | None = None, key: int = 0, offset: int = 0,
    ) -> tuple[Packet, Tensor]:  # fmt: skip
        """Compress a server's mean over all workers, plus decay residual.

        Args:
            inbox: What the workers sent.
            residual: (d,) float32 or float64, what earlier answers left out.
            new_vector: Makes a vector of the residual's type and length with arbitrary content.
            decay: Factor of the residual.
            spec: As for a call, as all below.
            key: The key of random draws.
            offset: Number of the vector's first coordinate.

        Returns:
            The answer, and what it leaves out: (d,), the new residual.
        """
        corrected = inbox.sum()
        sent = self.with_residual(
            corrected, residual, divisor=inbox.n_workers, decay=decay, spec=spec, key=key, offset=offset
        )
        return sent, sent.unsent_of(corrected)

    def of_gradient(self, me: Worker, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Packet:
        """Compress a worker's gradient, for a method that `takes_gradient_tensors`.

        One that is not finite aborts the round.

        Args:
            me: The worker.
            spec: As for a call, as all below.
            key: The key of random draws.
            offset: Number of the gradient's first coordinate.
        """
        tensors = me.gradient_tensors
        if len(tensors) == 1 and tensors[0].dim() == 1 and tensors[0].dtype is me.memory.dtype:
            vector = tensors[0]
            me.require(all_finite(vector))
        else:
            vector = me.scratch()
            me.require(gather(tensors, vector))
        return self(vector, spec=spec, key=key, offset=offset)

    def of_measured(
        self, vector: Tensor, ends: Ends | None, *, replaces: bool = False, spec: ModelSpec | None = None,
        key: int = 0, offset: int = 0,
    ) -> Packet:  # fmt: skip
        """Compress a vector of which more may be known; to the bits of a call.

        Args:
            vector: (d,) float32 or float64, which stays as it is until the end of the round: it may be read late.
            ends: its minimum and maximum, (1,) each; None if they are not known.
            replaces: whether it may be overwritten by the packet's dense form.
            spec: As for a call, as all below.
            key: The key of random draws.
            offset: Number of the vector's first coordinate.
        """
        return self(vector, spec=spec, key=key, offset=offset)

    def of_mean(self, inbox: Inbox, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Packet:
        """Compress a server's mean over the workers whose packets are here.

        Args:
            inbox: What the workers sent.
            spec: As for a call, as all below.
            key: The key of random draws.
            offset: Number of the vector's first coordinate.
        """
        mean = inbox.mean()
        return self.of_measured(mean, inbox.ends_of(mean), replaces=True, spec=spec, key=key, offset=offset)

    @abstractmethod
    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        """Return what a peer accepts as the packet of a vector.

        Args:
            spec: The vector's tensors.
            stream: Name of the stream of the sender's keys that `key` comes from.
        """

    @abstractmethod
    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        """Return the contraction that the compressor promises: ||C(v) - v||^2 <= (1 - delta) ||v||^2.

        Args:
            vector: (d,) of any float type, v.
            spec: As for a call.

        Returns:
            delta; None where the compressor promises none.
        """

    def variances(self, vector: Tensor, spec: ModelSpec | None = None) -> Tensor | None:
        """Return the exact variance of each element over keys, E (C(v)_i - v_i)^2.

        Args:
            vector: (d,) of any float type, v.
            spec: As for a call.

        Returns:
            (d,) float64; None where no formula is known. An unbiased compressor has one.
        """
        return None

    def outgrows_residual(self, spec: ModelSpec) -> bool:
        """Return whether a residual is known to grow without bound with this compressor.

        It does where the compressor leaves out more than it is given.

        Args:
            d: Length of the vector.
            spec: As for a call.

        Returns:
            False where it is not known.
        """
        return False

    @abstractmethod
    def paper_bits(self, spec: ModelSpec) -> float:
        """Return the expected bits that the papers' formula counts.

        Args:
            spec: As for a call.
        """


@dataclass(frozen=True, kw_only=True)
class BlockCompressor(Compressor):
    """A compressor that computes scales and the like for each block of the vector."""

    blocks: str = hyperparameter(
        "layer", 'one scale for the "vector", for each "layer", or for each block of this many elements'
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_blocks(self.name, self.blocks)

    def lengths(self, d: int, spec: ModelSpec | None = None) -> BlockLengths:
        """Return the sizes of the blocks of d elements; `spec` as for a call."""
        return block_lengths(self.blocks, d, spec)


_LAYERS = "_laconic_layers"  # the attribute of a ModelSpec that has the lengths of its layers


def block_lengths(blocks: str, d: int, spec: ModelSpec | None = None) -> BlockLengths:
    """Return the sizes of the blocks of a vector.

    Args:
        blocks: "vector" for one block, "layer" for one block a layer, or a number of elements in each block.
        d: Length of the vector.
        spec: The vector's tensors, each of which is a layer; without it, the vector is one. A tensor without elements
            gets no block.
    """
    if blocks == "vector" or (blocks == "layer" and spec is None):
        return BlockLengths.uniform(d, d)
    if blocks == "layer":
        assert spec is not None
        assert spec.d == d, (spec.d, d)
        known = spec.__dict__  # asked for several times a round
        if _LAYERS not in known:
            known[_LAYERS] = BlockLengths.of(spec.block_sizes)
        layers: BlockLengths = known[_LAYERS]
        return layers
    return BlockLengths.uniform(int(blocks), d)


def block_bounds(blocks: str, spec: ModelSpec) -> Sequence[int]:
    """Return the numbers of the elements, but for 0, that a block begins with; `blocks` as for `block_lengths`."""
    if blocks == "vector":
        return ()
    if blocks == "layer":
        return tuple(accumulate(spec.block_sizes[:-1]))
    return range(int(blocks), spec.d, int(blocks))


def common_bounds(one: Sequence[int], other: Sequence[int]) -> Sequence[int]:
    """Return what two results of `server_bounds` for the same vector have in common, without listing a range."""
    if isinstance(one, range) and isinstance(other, range):
        step = math.lcm(one.step, other.step)
        return range(step, min(one.stop, other.stop), step)
    few, many = (other, one) if isinstance(one, range) else (one, other)
    allowed = many if isinstance(many, range) else frozenset(many)
    return tuple(bound for bound in few if bound in allowed)


def check_blocks(name: str, blocks: str) -> None:
    """Raise ValueError for a text that `block_lengths` does not take. `name` is that of the method or compressor."""
    if blocks not in ("vector", "layer") and not (blocks.isdecimal() and int(blocks) >= 1):
        raise ValueError(f'{name}: blocks={blocks!r} must be "vector", "layer" or a whole number of elements above 0')


def warn_of_growing_residual(method: str, key: str, compressor: Compressor, spec: ModelSpec) -> None:
    """Warn where a method with error feedback has a compressor with which its residual grows.

    Args:
        method: Name of the method.
        key: Name of the method's hyperparameter that holds the compressor.
        compressor: The compressor.
        spec: The vector's tensors, each of which is a layer; without it, the vector is one.
    """
    if compressor.outgrows_residual(spec):
        warnings.warn(
            f"{method}: what {key}={compressor.name} leaves out is larger than the vector itself, so the residual "
            f"grows "
            f"from round to round and training diverges; take finer settings (`laconic show {method}`), a compressor "
            "that contracts, such as scaled-sign or top-k, or csgd, which has no residual",
            stacklevel=5,  # the line that makes the simulation or the optimizer
        )


_OWN_TYPES = (torch.float32, torch.float64)


def as_values(vector: Tensor) -> Tensor:
    """Return the vector as contiguous float32 or float64; other float types become float32.

    Args:
        vector: (d,) of any float type.

    Raises:
        TypeError: The vector has another shape, or no float type.
    """
    if vector.ndim == 1 and vector.dtype in _OWN_TYPES:
        return vector.contiguous()
    if vector.ndim != 1 or not vector.is_floating_point():
        raise TypeError(
            f"a compressor takes a flat vector of floats, not {vector.dtype} of shape {tuple(vector.shape)}"
        )
    return vector.float()
