"""The experiments that come with laconic: TOML files, by name. Importing this file loads no torch."""

from pathlib import Path

from laconic.errors import OptionError
from laconic.hyperparameters import near_misses

FOLDER = Path(__file__).parents[2] / "experiments"


def shipped_experiments() -> list[str]:
    """Return the files that come with laconic, as they are given: "experiments/quick.toml"."""
    return [f"{FOLDER.name}/{path.name}" for path in sorted(FOLDER.glob("*.toml"))]


def experiment_file(path: Path) -> Path:
    """Return the file of an experiment: the one at this path, or else the one of this name that comes with laconic.

    Raises:
        OptionError: There is neither.
    """
    if path.exists() or str(path) not in shipped_experiments():
        if path.is_file():
            return path
        known = shipped_experiments()
        what = "no file" if path.exists() else "not there"
        raise OptionError(
            f"{path} is {what}; give a TOML file, or one that comes with laconic: {', '.join(known)}"
            f"{near_misses(str(path), known)}"
        )
    return FOLDER / path.name
