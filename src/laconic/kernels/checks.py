"""What every function of the face asks of its arguments, once a call: compiled code checks no index.

A tensor costs one or two microseconds, indices and codes one pass over them. Other values are not looked at.
All backends refuse the same, before anything is written.
"""

from collections.abc import Container, Sequence
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor
from torch.nn import Parameter

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.checked_tensors import CheckedTensors
from laconic.kernels.dispatch import fastest

FLOATS = (torch.float32, torch.float64)
ALL_FLOATS = (*FLOATS, torch.bfloat16, torch.float16)
BYTES = (torch.uint8,)
INDICES = (torch.int64,)
MAX_COUNT = 1 << 32  # coordinates; their numbers are hashed as 32 bits

_LARGEST = {dtype: torch.finfo(dtype).max for dtype in ALL_FLOATS}
_INFINITE = float("inf")
_PLAIN_TYPES = (Tensor, Parameter)
_NO_DISPATCH = Tensor.__torch_dispatch__
_PLACE = "_laconic_place"  # the attribute of a tensor that says where it was found to be ordinary
_NONE: dict[str, int] = {}


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor's memory, if it has some, holds its values: it is not lazily negated, and of no subclass.

    A subclass may mean something else by its memory; operations of torch know.
    """
    return type(tensor) in _PLAIN_TYPES and not tensor.is_neg()


def has_memory(tensor: Tensor) -> bool:
    """Return whether all elements of a tensor lie in memory of its own, in rows.

    Not so: meta tensors, sparse layouts, wrappers such as DTensor, tensors within `torch.func`, and storage that was
    freed or shortened, as sharding and offloading leave it.
    """
    if type(tensor) not in _PLAIN_TYPES and type(tensor).__torch_dispatch__ is not _NO_DISPATCH:
        return False
    try:
        storage = tensor.untyped_storage()
        n_bytes = tensor.nbytes  # of all elements, as they lie behind each other in rows
        if n_bytes == 0:
            return tensor.layout is torch.strided and not tensor.is_meta
        if not tensor.is_contiguous():
            reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
            n_bytes = (1 + reach) * tensor.itemsize
        end = tensor.storage_offset() * tensor.itemsize + n_bytes
        return storage.nbytes() >= end and storage.data_ptr() != 0 and tensor.layout is torch.strided
    except (RuntimeError, NotImplementedError):  # of a sparse layout, or a wrapper without storage
        return False


def overlaps(tensor: Tensor) -> bool:
    """Return whether two elements of a tensor may share memory, as those of an expanded one do."""
    if tensor.is_contiguous():
        return False
    reach = 0  # from the first element to the last one of the dimensions so far, the densest first
    for step, size in sorted(
        (step, size) for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1
    ):
        if step <= reach:
            return True
        reach += (size - 1) * step
    return False


def vector(
    call: str, name: str, given: Tensor, dtypes: Container[torch.dtype] | None = None, count: int | None = None,
    device: torch.device | None = None, *, written: bool = False, strided: bool = False,
) -> None:  # fmt: skip
    """Check one vector that a function reads.

    Args:
        call: Name of the function, for the messages.
        name: Name of the argument.
        given: The argument.
        dtypes: Types that it may have; None for any.
        count: Elements that it must have; None for any number.
        device: Where it must be; None for anywhere.
        written: Whether the function writes to it, so that it must be contiguous.
        strided: Whether it suffices then that no two elements share memory.

    Raises:
        TypeError: It is no vector with memory of its own, or has another type.
        ValueError: It has another length, is on another device, or cannot be written to.
    """
    known = given.__dict__ if type(given) is Tensor else _NONE
    is_contiguous = (_PLACE in known and known[_PLACE] == given.data_ptr()) or _is_ordinary(given)
    if not is_contiguous and (type(given) not in _PLAIN_TYPES or not has_memory(given) or given.is_neg()):
        _refuse(call, name, given)
    if given.ndim != 1 or (dtypes is not None and given.dtype not in dtypes):
        shape = tuple(given.shape)
        raise TypeError(f"{call}: {name} is {given.dtype} of shape {shape}; it must be a vector{_of(dtypes)}")
    if count is not None and given.shape[0] != count:
        raise ValueError(f"{call}: {name} has {given.numel()} elements; it must have {count}")
    if device is not None and given.device != device:
        raise ValueError(f"{call}: {name} is on {given.device}, the other tensors are on {device}; move one with .to()")
    if written and not is_contiguous and not given.is_contiguous() and not (strided and given.stride(0)):
        raise ValueError(
            f"{call}: {name} has the stride {given.stride(0)} and is written to; pass "
            f"{'its .clone()' if strided else 'a contiguous vector'}"
        )


output = partial(vector, written=True)
"""Check one vector that a function writes to. Arguments and exceptions as for `vector`."""


def _is_ordinary(given: Tensor) -> bool:
    """Return whether a tensor is plain, contiguous and in memory of its own, as nearly all are, and note where it lies.

    That holds as long as it lies there: freed, shortened or replaced memory is elsewhere. A vector that is used in
    every round is looked at once.
    """
    if type(given) not in _PLAIN_TYPES or not given.is_cpu or given.layout is not torch.strided:
        return False
    try:
        if not given.is_contiguous() or given.is_neg():
            return False
        n_bytes, storage = given.nbytes, given.untyped_storage()
        if n_bytes and storage.nbytes() < given.storage_offset() * given.itemsize + n_bytes:
            return False
        place = given.data_ptr() if storage.data_ptr() else 0  # a tensor within `torch.func` has none
    except (RuntimeError, NotImplementedError):  # of a wrapper without storage
        return False
    if n_bytes:
        given.__dict__[_PLACE] = place
    return place != 0 or not n_bytes


def note_place(vector: Tensor, place: int | None = None) -> Tensor:
    """Return a new, contiguous vector, with a note where it lies: kernels do not have to look at it then.

    Args:
        vector: The vector.
        place: Its `data_ptr()`, if that is known.
    """
    if vector.is_cpu:
        vector.__dict__[_PLACE] = vector.data_ptr() if place is None else place
    return vector


def part_of(vector: Tensor, start: int, stop: int) -> Tensor:
    """Return elements start .. stop-1 of a contiguous vector, as a view; where they lie is known if it is of all."""
    part, known = vector[start:stop], vector.__dict__
    if _PLACE in known and start < stop <= vector.shape[0]:
        part.__dict__[_PLACE] = known[_PLACE] + start * vector.itemsize
    return part


def tensors(call: str, given: Sequence[Tensor], count: int | None = None, *, written: bool = False) -> int:
    """Check tensors of any shapes that make one vector, and return how many elements they have in all.

    Args:
        call: Name of the function.
        given: The tensors.
        count: Elements that they must have in all; None for any number.
        written: Whether the function writes to them, so that no two elements may share memory.

    Raises:
        TypeError: One has no memory of its own.
        ValueError: They have another number of elements, or one is expanded and written to.
    """
    if type(given) is CheckedTensors and ((given.spans is not None and given.are_known()) or given.look()):
        total = given.total
    else:
        total = 0
        for place, tensor in enumerate(given):
            if not has_memory(tensor):
                _refuse(call, f"tensor {place} of {len(given)}", tensor)
            if written and overlaps(tensor):
                raise ValueError(
                    f"{call}: elements of tensor {place} of {len(given)}, of shape {tuple(tensor.shape)}, share "
                    "memory, as after expand(); pass its .clone()"
                )
            total += tensor.numel()
    if count is not None and total != count:
        raise ValueError(f"{call}: {len(given)} tensors have {total} elements in all; they must have {count}")
    return total


def indices(call: str, name: str, given: Tensor, count: int) -> None:
    """Check indices (k,) int64 of a vector of `count` elements: ascending, each once.

    Raises:
        TypeError: They are no int64 vector.
        IndexError: One is outside 0 .. count - 1.
        ValueError: They do not ascend.
    """
    vector(call, name, given, INDICES)
    if not fastest("position_streams", given.device).ascending(given, count):
        low, high = int(given.min()), int(given.max())
        if low < 0 or high >= count:
            raise IndexError(f"{call}: {name} has {low if low < 0 else high}, which is outside 0 .. {count - 1}")
        raise ValueError(f"{call}: {name} must ascend, each once; sort them, and leave out repeated ones")


def number(call: str, name: str, given: int, low: int, high: int) -> None:
    """Check a whole number. Raises ValueError outside low .. high."""
    if not low <= given <= high:
        raise ValueError(f"{call}: {name}={given} must be in {low} .. {high}")


def sum_of(call: str, vectors: Sequence[Tensor], out: Tensor, divisor: int) -> None:
    """Raise for a sum of vectors (d,), divided by `divisor`, that cannot be written to `out` (d,)."""
    output(call, "out", out, ALL_FLOATS)
    number(call, "number of vectors", len(vectors), 1, MAX_COUNT)
    number(call, "divisor", divisor, 1, MAX_COUNT)
    for place, each in enumerate(vectors):
        vector(call, f"vector {place}", each, (out.dtype,), out.numel(), out.device)


def factors(call: str, name: str, given: Sequence[float], count: int, dtype: torch.dtype) -> None:
    """Check the factors of vectors that are added. torch adds no multiple whose factor the type cannot hold.

    Raises:
        ValueError: There are not `count` of them, or one is finite and beyond the largest number of the type.
    """
    number(call, f"number of {name}s", len(given), count, count)
    largest = _LARGEST[dtype]
    for factor in given:
        if largest < factor < _INFINITE or -_INFINITE < factor < -largest:
            raise ValueError(f"{call}: the {name} {factor} must be in {dtype}'s -{largest:.5g} .. {largest:.5g}")


def mask(call: str, offset: int, count: int, key: int, threshold: int, lowest: int = 0) -> None:
    """Check the coordinates, the key and the threshold of a keyed mask. Raises ValueError for what is out of range."""
    if not (0 <= offset <= offset + count <= MAX_COUNT and 0 <= key < 1 << 64):
        coordinates(call, offset, count, key)
    if not lowest <= threshold <= 1 << 32:
        raise ValueError(f"{call}: threshold={threshold} must be in {lowest} .. 2**32")


def coordinates(call: str, offset: int, count: int, key: int = 0) -> None:
    """Check which coordinates are hashed, and by which key. Raises ValueError for what is out of range."""
    if not 0 <= offset <= offset + count <= MAX_COUNT:
        raise ValueError(f"{call}: offset={offset} and count={count} must be within the coordinates 0 .. 2**32 - 1")
    if not 0 <= key < 1 << 64:
        raise ValueError(f"{call}: key={key} must be in 0 .. 2**64 - 1")


def packed(call: str, name: str, given: Tensor, n_bits: int, device: torch.device | None = None) -> None:
    """Check a packed stream of so many bits: as many bytes as it takes. Exceptions as for `vector`."""
    vector(call, name, given, BYTES, (n_bits + 7) // 8, device)


def stream(call: str, given: Tensor, n_selected: int) -> None:
    """Check that a stream on a mask has one bit, or one value, for each selected element. Raises ValueError."""
    expected = (n_selected + 7) // 8 if given.dtype == torch.uint8 else n_selected
    if given.shape[0] != expected:
        what = "bytes of bits" if given.dtype == torch.uint8 else "values"
        raise ValueError(f"{call}: {given.numel()} {what} for {n_selected} selected elements, which take {expected}")


def blocks(call: str, lengths: Sequence[int]) -> BlockLengths:
    """Check the lengths of blocks, and return them as one object, with the number of elements of all.

    Raises:
        ValueError: A length is below 1.
    """
    if type(lengths) is BlockLengths and lengths.total <= MAX_COUNT:
        return lengths
    try:
        made = BlockLengths.of(lengths)
    except ValueError as error:
        raise ValueError(f"{call}: {error}") from None
    number(call, "sum(lengths)", made.total, 0, MAX_COUNT)
    return made


def ends(
    call: str,
    given: Sequence[Tensor],
    lengths: BlockLengths,
    dtypes: Container[torch.dtype],
    device: torch.device,
) -> None:
    """Check vectors of one number for each block: its low and high end, or its scale. Exceptions as for `vector`."""
    for tensor in given:
        vector(call, "ends of blocks", tensor, dtypes, lengths.n_blocks, device)
        dtypes = (tensor.dtype,)  # of both ends


def _refuse(call: str, name: str, given: Tensor) -> NoReturn:
    """Raise TypeError for a tensor whose values are not in memory of its own, with what to pass instead."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{call}: {name} is {type(given).__name__}; it must be a tensor")
    kind = type(given).__name__
    if given.layout is not torch.strided:
        why = f"has the layout {given.layout}; pass its .to_dense()"
    elif type(given) not in _PLAIN_TYPES and type(given).__torch_dispatch__ is not _NO_DISPATCH:
        why = f"is a {kind}, which wraps other tensors; pass the plain one inside, such as .to_local() of a DTensor"
    elif given.is_meta:
        why = "is on the meta device, where tensors have no values; move the model with .to_empty() and load it"
    elif not has_memory(given):
        why = (
            "has no memory for its values: its storage was freed or is too short, as sharding and offloading leave it; "
            "bring them back first"
        )
    elif given.is_neg():
        why = "is lazily negated; pass its .resolve_neg()"
    else:
        why = f"is a {kind}; pass a plain tensor"
    raise TypeError(f"{call}: {name} {why}")


def _of(dtypes: Container[torch.dtype] | None) -> str:
    """Return the types as part of a message."""
    return f" of {', '.join(map(str, dtypes))}" if isinstance(dtypes, tuple) else ""
