"""The error classes of laconic. Wrong arguments raise Python's ValueError or TypeError."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath


class LaconicError(Exception):
    """Base class of all errors below."""


class ContractError(LaconicError, RuntimeError):
    """An algorithm or a peer violated the rules of a round."""


class NonFiniteError(LaconicError):
    """A worker's vector holds inf or NaN. The round is aborted; users never see this error."""


class ReplicaError(LaconicError, RuntimeError):
    """Ranks that should have equal parameters have different ones."""


class SetupError(LaconicError, ValueError):
    """Ranks were started with different settings."""


class PeerLostError(LaconicError, RuntimeError):
    """A rank did not answer before the deadline. The process group cannot be used any more."""

    cause = ""
    """The text without what it says of rounds, where it does."""


class ClosedError(LaconicError):
    """An optimizer was closed and is asked to communicate."""


class PayloadsLostError(LaconicError, RuntimeError):
    """A transfer of payloads over the second process group failed. The channel's own connections still work."""


class WireError(LaconicError, ValueError):
    """A buffer is not a valid frame. Nothing in it may be used."""


class LaunchError(LaconicError, RuntimeError):
    """A child process failed or died; the message names it and the reason."""


class DatasetError(LaconicError, ValueError):
    """A data file is missing, truncated, of another type, or unexpected."""


class CheckpointError(LaconicError, ValueError):
    """A saved checkpoint is damaged, not complete, or not one that can be loaded here. Nothing has changed."""


class CheckpointFormatError(CheckpointError):
    """A checkpoint is of a version of laconic whose files this one does not read."""


class Spelling(Enum):
    """How a message names options: as they were given."""

    ARGUMENT = "argument"
    """`epochs=0`, in Python."""
    FLAG = "flag"
    """`--epochs 0`, on the command line."""
    KEY = "key"
    """`epochs = 0`, in a TOML file."""


@dataclass(frozen=True)
class Named:
    """An option in a message: its name, and the value that it has or should have."""

    option: str
    value: object = ...
    """`...` for the name alone."""
    quoted: bool = False
    """Whether a text is in quotes behind a flag: one that is refused."""

    def spelled(self, spelling: Spelling) -> str:
        """Return the text."""
        name = self.option.rstrip("_")  # `as_`, where a name is a word of Python
        name = f"--{name.replace('_', '-')}" if spelling is Spelling.FLAG else name
        if self.value is ... or (spelling is Spelling.FLAG and self.value is True):
            return name
        if spelling is Spelling.FLAG:
            shown = str(_typed(self.value))
            quotes = (self.quoted and isinstance(self.value, str)) or not shown.isprintable()
            return f"{name} {shown!r}" if quotes else f"{name} {shown}"
        if spelling is Spelling.ARGUMENT:
            return f"{name}={self.value!r}"
        value = str(self.value) if isinstance(self.value, PurePath) else self.value  # a text, in a file
        return f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}"


def _typed(value: object) -> object:
    """Return a number as a user types it: 2 for 2.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


class OptionError(LaconicError, ValueError):
    """An option is wrong. `str` of it names options as arguments of Python."""

    def __init__(self, *parts: str | Named) -> None:
        """Keep the parts of the message, which are joined without spaces."""
        super().__init__(*parts)

    def spelled(self, spelling: Spelling) -> str:
        """Return the message, with the options named as they were given."""
        return "".join(part if isinstance(part, str) else part.spelled(spelling) for part in self.args)

    def __str__(self) -> str:
        return self.spelled(Spelling.ARGUMENT)


@contextmanager
def option_named(option: str, file: PurePath | str, hint: str = "") -> Iterator[None]:
    """Name the option that gave a file where the file cannot be read: OptionError in place of OSError.

    Args:
        option: The option.
        file: The file, as it was given.
        hint: What follows the reason.
    """
    try:
        yield
    except OSError as error:
        raise OptionError(Named(option, file), f": it cannot be read: {error.strerror or error}{hint}") from None


class SavedRunError(OptionError):
    """A run cannot go on from what was saved of it."""
