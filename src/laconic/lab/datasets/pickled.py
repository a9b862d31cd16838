"""Reads pickles of plain data and byte arrays, as CIFAR's batches are, without running anything that is in them.

A pickle is a program for a stack machine: its opcodes can import and call any function. Here a machine of our own knows
the opcodes that make texts, numbers, lists and dictionaries, and notes what numpy's arrays of bytes are made from. Any
other opcode, and any name but numpy's three, ends the reading. No class or function that a file names is looked up.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from laconic.errors import DatasetError
from laconic.lab.datasets.text_file import shown

_VALUES = frozenset(
    ["BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
     "SHORT_BINBYTES"]
)  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SKIPPED = frozenset(["PROTO", "FRAME"])
_OTHERS = frozenset(
    ["MARK", "EMPTY_LIST", "EMPTY_DICT", "TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT",
     "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "STOP"]
)  # fmt: skip
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_ALLOWED = _VALUES | _CONSTANTS.keys() | _TUPLES.keys() | _SKIPPED | _OTHERS
_MARK = object()


@dataclass(frozen=True)
class _Name:
    """The name of a class or function, which is not looked up."""

    text: str


class _BytesType:
    """What stands for numpy's dtype of unsigned bytes."""


@dataclass(eq=False)
class _Array:
    """What stands for an array until its state is read."""

    values: NDArray[numpy.uint8] | None = None


_ARRAY = _Name("numpy ndarray")
_TYPE = _Name("numpy dtype")
_MAKE_ARRAY = frozenset([_Name("numpy.core.multiarray _reconstruct"), _Name("numpy._core.multiarray _reconstruct")])
_KNOWN = _MAKE_ARRAY | {_ARRAY, _TYPE}


class _Fault(Exception):  # noqa: N818 - it never leaves this file
    """What is wrong at an opcode."""


def read_pickled(path: Path, *, max_bytes: int) -> dict[str, Any]:
    """Return the dictionary in a file: texts as keys; texts, numbers, lists and arrays of bytes as values.

    Args:
        path: The file.
        max_bytes: The maximum size of the file.

    Raises:
        DatasetError: The file is larger, breaks off, is no pickle, or holds anything else.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise DatasetError(f"{path}: is {size:,} bytes long, must be at most {max_bytes:,}; is it another file?")
    data = path.read_bytes()
    if data[:1] != b"\x80":
        raise DatasetError(
            f"{path}: begins with {data[:4]!r}, must be a pickle; unpack an archive, fetch other files again"
        )
    machine, place = _Machine(), 0
    try:
        stream = io.BytesIO(data)
        while not machine.has_ended:
            place = stream.tell()
            opcode = _opcode(stream)
            machine.take(opcode.name, _argument(opcode, stream))
    except _Fault as fault:
        raise DatasetError(
            f"{path}: byte {place:,}: {fault}; no batch of CIFAR has that, so nothing more was read and nothing was "
            "run: do not open the file with pickle, and fetch it again from its source"
        ) from None
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: breaks off or is damaged after byte {place:,} of {size:,} ({error}); fetch it again"
        ) from None
    found = machine.result
    if not isinstance(found, dict) or not all(isinstance(key, str | bytes) for key in found):
        raise DatasetError(
            f"{path}: holds a {type(found).__name__}, must hold a dictionary of texts; is it another file?"
        )
    return {
        key if isinstance(key, str) else key.decode("latin-1"): one.values if isinstance(one, _Array) else one
        for key, one in found.items()
    }


def _opcode(stream: io.BytesIO) -> pickletools.OpcodeInfo:
    """Return the next opcode, one of those that are known here."""
    code = stream.read(1)
    if not code:
        raise ValueError("there is no end mark")
    opcode = _OPCODES.get(code)
    if opcode is None or opcode.name not in _ALLOWED:
        raise _Fault(f"the opcode {repr(code) if opcode is None else opcode.name}")
    return opcode


def _argument(opcode: pickletools.OpcodeInfo, stream: io.BytesIO) -> Any:  # noqa: ANN401 - what the opcode has
    """Read the argument of an opcode."""
    if opcode.name == "GLOBAL":
        return " ".join(stream.readline().decode("latin-1").rstrip("\n") for _ in range(2))
    return None if opcode.arg is None else opcode.arg.reader(stream)


class _Machine:
    """The stack and memo of a pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.result: object = None
        self.has_ended = False
        self._handlers: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self._stack.append(_MARK),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "TUPLE": lambda _: self._stack.append(tuple(self._above_mark())),
            "APPEND": lambda _: self._append([self._pop()]),
            "APPENDS": lambda _: self._append(self._above_mark()),
            "SETITEM": lambda _: self._set_items([self._stack.pop(-2), self._pop()]),
            "SETITEMS": lambda _: self._set_items(self._above_mark()),
            "BINPUT": self._note, "LONG_BINPUT": self._note,
            "MEMOIZE": lambda _: self._note(len(self._memo)),
            "BINGET": self._recall, "LONG_BINGET": self._recall,
            "GLOBAL": lambda text: self._stack.append(_known(text)),
            "STACK_GLOBAL": lambda _: self._stack.append(_known(_joined(*self._pop_two()))),
            "REDUCE": lambda _: self._stack.append(_made(*self._pop_two())),
            "BUILD": lambda _: self._build(self._pop()),
            "STOP": lambda _: self._stop(),
        }  # fmt: skip

    def take(self, name: str, argument: Any) -> None:  # noqa: ANN401 - what the opcode has
        """Do what one opcode says, or refuse it."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            parts = [self._pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(parts)))
        elif name not in _SKIPPED:
            self._handlers[name](argument)

    def _pop(self) -> Any:  # noqa: ANN401
        one = self._stack.pop()
        if one is _MARK:
            raise _Fault("a value is missing")
        return one

    def _pop_two(self) -> tuple[Any, Any]:
        second = self._pop()
        return self._pop(), second

    def _above_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                parts = self._stack[place + 1 :]
                del self._stack[place:]
                return parts
        raise _Fault("a mark is missing")

    def _append(self, parts: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise _Fault("items of what is no list")
        self._stack[-1].extend(parts)

    def _set_items(self, parts: list[Any]) -> None:
        if (
            type(self._stack[-1]) is not dict
            or len(parts) % 2
            or not all(type(key) in (str, bytes) for key in parts[::2])
        ):
            raise _Fault("entries of what is no dictionary of texts")
        self._stack[-1].update(zip(parts[::2], parts[1::2], strict=True))

    def _note(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _recall(self, number: int) -> None:
        if number not in self._memo:
            raise _Fault("a value that was never noted")
        self._stack.append(self._memo[number])

    def _build(self, state: object) -> None:
        """Give an array its values. The type's state says nothing more: single bytes have no order."""
        made = self._stack[-1]
        if isinstance(made, _Array) and made.values is None:
            made.values = _values(state)
        elif not isinstance(made, _BytesType):
            raise _Fault("the state of what is no array")

    def _stop(self) -> None:
        self.has_ended = True
        self.result = self._pop()
        if self._stack:
            raise _Fault("more than one object")


def _joined(module: object, name: object) -> str:
    if not isinstance(module, str) or not isinstance(name, str):
        raise _Fault("a name that is no text")
    return f"{module} {name}"


def _known(text: str) -> _Name:
    name = _Name(text)
    if name not in _KNOWN:
        raise _Fault(f"the name {shown('.'.join(text.split(' ')))}, which could run code")
    return name


def _made(maker: object, arguments: object) -> object:
    if isinstance(maker, _Name) and isinstance(arguments, tuple) and arguments:
        if maker == _TYPE and arguments[0] in ("u1", b"u1"):
            return _BytesType()
        if maker in _MAKE_ARRAY and arguments[0] == _ARRAY:
            return _Array()
    raise _Fault("a call that makes no array of unsigned bytes")


def _values(state: object) -> NDArray[numpy.uint8]:
    """Return the array that numpy's state describes: version, shape, type, whether columns come first, data."""
    if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _BytesType)):
        raise _Fault("the state of no array of unsigned bytes")
    _, shape, _, by_columns, data = state
    if not isinstance(shape, tuple) or not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise _Fault("a shape that is none")
    if by_columns or not isinstance(data, str | bytes):
        raise _Fault("an array that is not laid out by rows")
    content = data.encode("latin-1") if isinstance(data, str) else data
    n = 1
    for size in shape:
        n *= size
    if n != len(content):
        raise _Fault(f"an array of shape {shape} with {len(content):,} bytes")
    return numpy.frombuffer(content, dtype=numpy.uint8).reshape(shape)
