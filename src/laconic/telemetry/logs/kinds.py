"""The kinds of logs, and what each needs. Importing this file loads nothing heavy."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from laconic.errors import Named, OptionError
from laconic.hyperparameters import near_misses

LOG_KINDS = ("jsonl", "tensorboard", "wandb", "trackio")
"""The names of the kinds. All but "jsonl" are packages of the same name."""
_IN_FOLDER = ("jsonl", "tensorboard")


def check_kinds(kinds: Sequence[str], folder: Path | None, *, folder_option: str) -> None:
    """Refuse logs that cannot be written, before anything is trained.

    Args:
        kinds: Their names.
        folder: The folder for their files; None if there is none.
        folder_option: The option that would give it.

    Raises:
        OptionError: A kind is unknown, twice there or not installed, or needs a folder.
    """
    for number, kind in enumerate(kinds):
        wanted = Named("log", kind, quoted=True)
        if kind not in LOG_KINDS:
            hint = near_misses(kind, list(LOG_KINDS)) if isinstance(kind, str) else ""
            raise OptionError(wanted, f" must be one of {', '.join(LOG_KINDS)}{hint}")
        if kind in kinds[:number]:
            raise OptionError(Named("log", kind), " is given twice; once is enough")
        if kind != "jsonl" and find_spec(kind) is None:
            raise OptionError(
                Named("log", kind), f" needs the package {kind}, which is not installed: pip install {kind}"
            )
        if kind in _IN_FOLDER and folder is None:
            raise OptionError(Named("log", kind), " writes files, so it needs ", Named(folder_option), " FOLDER")
