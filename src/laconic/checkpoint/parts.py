"""One file of state: what one rank keeps, as named tensors in the format of safetensors.

Beside the tensors it has one of bytes, `rankN/laconic`: a sealed description with the tree of the state and the
checksum of every tensor. A tensor that rank 0's file has with the same checksum is left out of the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from laconic import __version__
from laconic.checkpoint.sealed import check_content, checksum_in, sealed, unsealed
from laconic.checkpoint.trees import digest_of, flattened, rebuilt
from laconic.errors import CheckpointError, CheckpointFormatError
from laconic.lab.atomic import named_in_errors, sync_file

FORMAT = 1
"""Of the files. A file with a higher number is refused."""
_NUMBER = range(1 << 62)
_DESCRIPTION = {
    "format": int, "laconic": str, "torch": str, "rank": _NUMBER, "ranks": _NUMBER, "step": _NUMBER, "save": _NUMBER,
    "tensors": {str: str}, "tree": dict,
}  # fmt: skip


def file_of(rank: int) -> str:
    """Return the name of a rank's file."""
    return f"rank{rank}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one rank is about to write."""

    rank: int
    tree: Any
    tensors: Mapping[str, Tensor]
    digests: Mapping[str, str]
    """Checksums by name, without the part of the name that is the rank's."""

    @classmethod
    def of(cls, state: Mapping[str, Any], rank: int) -> "Part":
        """Take a rank's state apart. Raises TypeError for what no file of state can hold."""
        tree, tensors = flattened(state, f"rank{rank}")
        own = len(f"rank{rank}/")
        digests = {name[own:]: digest_of(tensor) for name, tensor in tensors.items()}
        return cls(rank=rank, tree=tree, tensors=tensors, digests=digests)

    def write(self, path: Path, shared: Mapping[str, str], *, ranks: int, step: int, save: int) -> str:
        """Write the file, bring it to disk, and return the checksum of its description.

        Args:
            path: where; nobody reads it before the checkpoint is complete.
            shared: checksums of what rank 0's file has; empty for rank 0's own.
            ranks: how many ranks save.
            step: the user's step.
            save: the number of this checkpoint in its folder.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        written = {
            f"rank{self.rank}/{name}": self.tensors[f"rank{self.rank}/{name}"]
            for name, digest in self.digests.items() if shared.get(name) != digest
        }  # fmt: skip
        description = sealed({
            "format": FORMAT, "laconic": __version__, "torch": torch.__version__, "rank": self.rank, "ranks": ranks,
            "step": step, "save": save, "tensors": dict(self.digests), "tree": self.tree,
        })  # fmt: skip
        written[_description_of(self.rank)] = torch.frombuffer(bytearray(description), dtype=torch.uint8)
        about = {"format": "pt", "laconic": __version__, "step": str(step), "rank": f"{self.rank} of {ranks}"}
        with named_in_errors(path):
            path.touch()
            mode = path.stat().st_mode  # what the user's umask wants; safetensors' own file is nobody else's to read
            try:
                safetensors.torch.save_file(written, path, about)  # from the tensors' memory, without a copy
            except SafetensorError as error:
                raise OSError(f"{path}: {error}") from None
            path.chmod(mode)
            sync_file(path)
        return checksum_in(description)


@dataclass(frozen=True, kw_only=True)
class ReadPart:
    """What was read of one rank's file; all its checksums were found to be right."""

    description: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    """By name, without the part of the name that is the rank's."""

    def state(self, leading: "ReadPart") -> Any:  # noqa: ANN401
        """Return the state that was saved.

        Args:
            leading: rank 0's file, which may have some of the tensors.

        Raises:
            CheckpointError: a tensor is in neither file.
        """
        rank, found = self.description["rank"], dict(self.tensors)
        for name, digest in self.description["tensors"].items():
            if name not in found:
                if leading.description["tensors"].get(name) != digest or name not in leading.tensors:
                    raise CheckpointError(f"the tensor {name!r:.200} is missing")
                found[name] = leading.tensors[name]
        return rebuilt(self.description["tree"], {f"rank{rank}/{name}": tensor for name, tensor in found.items()})


def read_part(data: bytes, rank: int, checksum: str) -> ReadPart:
    """Return what is in the bytes of a rank's file.

    Args:
        data: the bytes.
        rank: the rank.
        checksum: that of its description.

    Raises:
        CheckpointError: it is damaged, of another program, of another save or of another version.
    """
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"no file of safetensors, or a damaged one: {error!s:.200}") from None
    packed = tensors.pop(_description_of(rank), None)
    if packed is None or packed.dtype != torch.uint8 or packed.dim() != 1:
        raise CheckpointError(f"no file of rank {rank} of a checkpoint of laconic")
    text = packed.numpy().tobytes()
    description = unsealed(text)
    check_format(description)
    check_content(description, _DESCRIPTION)
    if checksum_in(text) != checksum:
        raise CheckpointError("it was written by another save than the manifest")
    own = f"rank{rank}/"
    found = {name.removeprefix(own): tensor for name, tensor in tensors.items()}
    for name, tensor in found.items():
        if digest_of(tensor) != description["tensors"].get(name):
            raise CheckpointError(f"the tensor {name!r:.200} is damaged: its bytes are not those that were written")
    return ReadPart(description=description, tensors=found)


def check_format(description: Mapping[str, Any]) -> None:
    """Raise CheckpointError if this version of laconic does not read a description."""
    number = description.get("format")
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise CheckpointFormatError(
            f"it has the format {number!r:.40} of laconic {description.get('laconic')!r:.40}; this is laconic "
            f"{__version__}, which reads up to {FORMAT}"
        )


def _description_of(rank: int) -> str:
    return f"rank{rank}/laconic"
