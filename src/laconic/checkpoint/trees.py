"""State as a tree of JSON and a flat table of tensors: what any carrier of named tensors can hold.

In the JSON a tensor is `{"tensor": name}`. Every other object has one key, too, which says what it stands for; so no
data of a user are mistaken for a tensor's name.
"""

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from laconic.errors import CheckpointError

try:
    from isal.isal_zlib import adler32, crc32
except ImportError:  # no build of it for this machine; the same sums take longer
    from zlib import adler32, crc32


def flattened(state: Mapping[str, Any], prefix: str) -> tuple[Any, dict[str, Tensor]]:
    """Return a state as JSON, and its tensors by name: their place in the state, behind `prefix`.

    Args:
        state: tensors and plain data: None, bool, int, float, str, bytes, and lists, tuples and dicts of these.
        prefix: where the state stands in a table of several.

    Returns:
        the tree; the tensors, contiguous, on the CPU, each with memory of its own.

    Raises:
        TypeError: something else is in the state; the message names its place.
    """
    flattening = _Flattening(prefix)
    return flattening.node(state, ""), flattening.tensors


class _Flattening:
    """The tensors that one state has, as they are found."""

    def __init__(self, prefix: str) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._prefix = prefix
        self._storages: set[int] = set()

    def node(self, value: object, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON of a value at a place."""
        if value is None or type(value) in (bool, int, str):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": repr(float(value))}
        if isinstance(value, Tensor):
            return {"tensor": self._named(value, path)}
        if isinstance(value, bytes):
            return {"bytes": base64.b64encode(value).decode()}
        if isinstance(value, list | tuple):
            nodes = [self.node(each, f"{path}/{number}") for number, each in enumerate(value)]
            return nodes if isinstance(value, list) else {"tuple": nodes}
        if isinstance(value, Mapping):
            if all(type(key) is str for key in value):
                return {"map": {key: self.node(each, f"{path}/{key}") for key, each in value.items()}}
            return {"pairs": [[self.node(key, path), self.node(each, f"{path}/{key}")] for key, each in value.items()]}
        raise TypeError(
            f"{path.lstrip('/')} is {value!r:.60} of {type(value).__name__}; a file of state holds "
            "tensors, numbers, texts, bytes, lists, tuples and dicts"
        )

    def _named(self, value: Tensor, path: str) -> str:
        if value.layout is not torch.strided or value.is_meta or value.is_quantized or hasattr(value, "to_local"):
            raise TypeError(
                f"{path.lstrip('/')} is a {type(value).__name__} ({value.layout}, on {value.device}); a "
                "file of state holds dense tensors with memory of their own"
            )
        tensor = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        if storage in self._storages:  # tied: a file has each tensor for itself
            tensor = tensor.clone()
        self._storages.add(storage)
        name = f"{self._prefix}{path}"
        while name in self.tensors:  # of a key with a slash, or of the number 1 beside the text "1"
            name += "'"
        self.tensors[name] = tensor
        return name


def rebuilt(tree: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    """Return the state that `flattened` was given.

    Raises:
        CheckpointError: it is no such tree, or a tensor is missing.
    """
    try:
        return _value(tree, tensors)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"its tree of state cannot be read: {error!r:.200}") from error


def _value(node: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    if isinstance(node, list):
        return [_value(each, tensors) for each in node]
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "map":
        return {key: _value(each, tensors) for key, each in content.items()}
    return _KINDS[kind](content, tensors)


_KINDS: dict[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "tensor": lambda content, tensors: tensors[content],
    "float": lambda content, _: float(content),
    "bytes": lambda content, _: base64.b64decode(content, validate=True),
    "tuple": lambda content, tensors: tuple(_value(each, tensors) for each in content),
    "pairs": lambda content, tensors: {_value(key, tensors): _value(each, tensors) for key, each in content},
}


def digest_of(tensor: Tensor) -> str:
    """Return a checksum of a tensor's type, shape and bytes.

    Two sums of 32 bits that look at different things: one alone would some day mistake a tensor of a rank for another
    one of rank 0, and a cryptographic hash takes as long as writing the file.
    """
    data = tensor.reshape(-1).view(torch.uint8).numpy()
    about = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return f"{crc32(data, crc32(about)):08x}{adler32(data, adler32(about)):08x}"
