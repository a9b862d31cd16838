"""Packets of vectors that are not in the host's memory: what is copied to the host is what is sent, and no more; and
nothing at all where it is sent from there.

There is no GPU here. A vector with the stand-in's device is a tensor that no numpy can read; every operation on it is
done on the CPU and hands back another such tensor, but for copies to the host and single numbers, which are noted.
"""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from laconic.compressors import COMPRESSORS, QSGD, Fractional, Quantized, ScaledSign, Sign, Ternary, TopK
from laconic.contract import ModelSpec
from laconic.kernels import checks
from laconic.wire import HEADER_BYTES, Frame, Header, encode, encode_split

D = 6000
LAYERS = (4000, 1990, 10)
HEADER = Header(role="worker", rank=0, round=0)
KEY = 0x4806654E26238EC1

ALL = [make() for make in COMPRESSORS.values()]
ALL += [
    Sign(keep=0.3), ScaledSign(blocks="512"), Fractional(bits=9), Ternary(entropy=True),
    Quantized(bits=2, entropy=True), QSGD(levels=100), TopK(code="list"), TopK(code="rice"), TopK(code="entropy"),
]  # fmt: skip


class Elsewhere(Tensor):
    """A tensor whose numbers are not the host's to read. Its device says "meta", the one that needs no driver."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor):
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise AssertionError(f"{operation} on a tensor elsewhere, and nobody noted it")


class Noted(TorchDispatchMode):
    """Does the operations, and notes in `bytes_copied` the size of everything that comes to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_copied = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = []
        tree_map_only(Elsewhere, there.append, (args, kwargs))
        stays = bool(there)
        inner_args, inner_kwargs = tree_map_only(Elsewhere, lambda one: one.held, (args, kwargs))
        if inner_kwargs.get("device") is not None:
            stays = torch.device(inner_kwargs["device"]).type == "meta"
            inner_kwargs["device"] = torch.device("cpu")
            if there and not stays:
                self.note(there[0])
        if operation is torch.ops.aten._local_scalar_dense.default:
            self.note(args[0])
        if operation is torch.ops.aten.copy_.default and there and not isinstance(args[0], Elsewhere):
            self.note(args[1])
        made = operation(*inner_args, **inner_kwargs)
        if there and operation._schema.is_mutable:
            return args[0]
        return tree_map_only(Tensor, Elsewhere, made) if stays else made

    def note(self, tensor: Tensor) -> None:
        self.bytes_copied.append(tensor.numel() * tensor.element_size())


@pytest.fixture
def stand_in(monkeypatch):
    """torch.tensor, which no dispatch mode sees, makes tensors of the stand-in's device too."""
    make = torch.tensor

    def tensor(data, *, device=None, **kwargs):
        there = device is not None and torch.device(device).type == "meta"
        return Elsewhere(make(data, **kwargs)) if there else make(data, device=device, **kwargs)

    monkeypatch.setattr(torch, "tensor", tensor)
    for name in ("has_memory", "is_plain"):  # kernels refuse it otherwise: a wrapper has no memory of its own
        asked = getattr(checks, name)
        monkeypatch.setattr(checks, name, lambda tensor, asked=asked: type(tensor) is Elsewhere or asked(tensor))


def work_on_the_host(compressor, packet) -> int:
    """How many bytes come to the host to be coded there: positions and symbols, in the code "entropy"."""
    positions = 8 * len(packet.indices) if getattr(compressor, "code", None) == "entropy" else 0
    symbols = len(packet.packed) if getattr(compressor, "entropy", False) else 0
    return positions + symbols


@pytest.mark.parametrize("compressor", ALL, ids=repr)
def test_what_comes_to_the_host_is_what_is_sent(stand_in, compressor):
    vector = torch.randn(D, generator=torch.Generator().manual_seed(3))
    here = encode(Frame(header=HEADER, packet=compressor(vector, spec=ModelSpec.of_sizes(*LAYERS), key=KEY)))
    with Noted() as noted:
        packet = compressor(Elsewhere(vector), spec=ModelSpec.of_sizes(*LAYERS), key=KEY)
        assert packet.finite
        there = encode(Frame(header=HEADER, packet=packet))
    assert there.numel() == here.numel()
    assert sum(noted.bytes_copied) <= there.numel() + work_on_the_host(compressor, packet)


@pytest.mark.parametrize("compressor", ALL, ids=repr)
def test_of_a_split_frame_nothing_comes_to_the_host_but_single_numbers(stand_in, compressor):
    vector = torch.randn(D, generator=torch.Generator().manual_seed(3))
    here = encode(Frame(header=HEADER, packet=compressor(vector, spec=ModelSpec.of_sizes(*LAYERS), key=KEY)))
    with Noted() as noted:
        packet = compressor(Elsewhere(vector), spec=ModelSpec.of_sizes(*LAYERS), key=KEY)
        assert packet.finite
        there = encode_split(Frame(header=HEADER, packet=packet), torch.device("meta"))
    assert isinstance(there.payload, Elsewhere)
    assert torch.equal(there.payload.held, here[HEADER_BYTES:])
    more_than_a_number = [n_bytes for n_bytes in noted.bytes_copied if n_bytes > 8]
    assert sum(more_than_a_number) <= work_on_the_host(compressor, packet)
    assert len(noted.bytes_copied) < D // 100
