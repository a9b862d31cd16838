"""The options of `laconic run` and `laconic compare` that say where processes meet and where files go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from laconic.cli.json_output import json_option
from laconic.errors import Named, OptionError
from laconic.lab.defaults import LOG_KINDS, PICTURE_ENDINGS
from laconic.lab.options import PURE_NUMBER, OptionGroup, file_of_kind, listed, option
from laconic.lab.outputs import check_old_results

if TYPE_CHECKING:
    from laconic.lab.runs.logged_run import LogPlan
    from laconic.lab.runs.saved import Saving


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(OptionGroup):
    """Where the processes of a run meet, and where its files go."""

    port: int = option(
        0, "The port at which the processes meet on this machine; 0 takes a free one.", within="[0, 65535]",
        unit=PURE_NUMBER, hint="0 takes a free one",
    )  # fmt: skip
    out: Path | None = option(None, "The folder to write config, metrics, summary and curves to.", metavar="FOLDER")
    plot: tuple[Path, ...] = option(
        (), "A .png, .svg or .pdf file to draw the curves to. Can be given several times.", metavar="FILE",
        reads=file_of_kind(*PICTURE_ENDINGS),
    )  # fmt: skip
    log: tuple[str, ...] = option(
        (), f"Log every round and epoch to {listed(LOG_KINDS)}. Can be given several times.", metavar="KIND",
        choices=LOG_KINDS,
    )  # fmt: skip
    json: Path | None = json_option()
    config: Path | None = option(
        None, "A TOML file with options, such as the config.toml of a run. What is typed wins.", metavar="FILE"
    )
    overwrite: bool = option(False, "Replace the results of earlier runs in the folder of --out.")
    resume: bool = option(
        False, "Go on with the runs in the folder of --out, from their last saved epoch; what is finished is not run "
        "again.",
    )  # fmt: skip
    save_every: int | None = option(
        None, "The number of epochs after which each run saves itself in the folder of --out, for --resume.",
        within="[1, inf)", unit="epochs", metavar="E",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check that the options go together.

        Raises:
            OptionError: They do not.
        """
        super().__post_init__()
        if self.save_every is not None and self.out is None:
            raise OptionError(
                Named("save_every", self.save_every), " saves into a folder, so it needs ", Named("out"), " FOLDER"
            )

    def check_results(self, out: Path | None) -> None:
        """Check the options about earlier results in the folder that is written to.

        Raises:
            OptionError: They do not go together, or there is no folder.
        """
        check_old_results(out, overwrite=self.overwrite, resume=self.resume)

    def savings(self, names: Sequence[str], plugins: Sequence[str], *, in_folders: bool) -> "dict[str, Saving]":
        """Return where each run saves itself and goes on from, by method; nothing if it does neither."""
        from laconic.lab.runs.files import CHECKPOINT
        from laconic.lab.runs.saved import Saving

        if not (self.resume or self.save_every):
            return {}
        return {
            name: Saving(
                file=folder / CHECKPOINT, every=self.save_every, resume=self.resume, plugins=tuple(plugins)
            )
            for name, folder in self._folders(names, in_folders=in_folders).items()
        }  # fmt: skip

    def logs(self, names: Sequence[str], *, in_folders: bool) -> "dict[str, LogPlan]":
        """Return where each run logs, by method; nothing if it does not.

        Raises:
            OptionError: A kind of log is not installed, or needs a folder.
        """
        from laconic.lab.runs.logged_run import LogPlan, check_logs

        check_logs(self.log, self.out)
        folders = self._folders(names, in_folders=in_folders)
        return {name: LogPlan(kinds=self.log, folder=folders.get(name)) for name in names} if self.log else {}

    def _folders(self, names: Sequence[str], *, in_folders: bool) -> dict[str, Path]:
        """Return the folder of each run, by method; nothing without --out."""
        if self.out is None:
            return {}
        return {name: self.out.absolute() / name if in_folders else self.out.absolute() for name in names}
