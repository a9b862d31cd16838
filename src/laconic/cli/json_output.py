"""`--json`: the figures of a command as JSON, in a file or, in place of the table, on standard output."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from laconic.lab.json_text import json_text
from laconic.lab.options import option
from laconic.lab.outputs import OutputFile, output_file
from laconic.report.terminal import terminal
from laconic.report.visible import visible

STANDARD_OUTPUT = Path("-")


def json_option() -> Any:  # noqa: ANN401 - a field
    """Return the option `json`, which all commands have in the same words."""
    return option(
        None, "The file to write all figures to, as JSON; - prints them in place of the tables.", metavar="FILE"
    )


class JsonOutput:
    """Where the figures of a command go, beside its tables or in their place."""

    def __init__(self, file: OutputFile | None, *, prints: bool) -> None:
        """Keep the file; None for none."""
        self._file = file
        self.in_place_of_tables = prints
        """Whether only JSON is printed on standard output."""
        self.console = terminal(quiet=prints)
        """The console of the tables."""

    def write(self, data: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
        """Write the figures, and return the line that says where they are; an empty text if there is no file."""
        if self.in_place_of_tables:
            typer.echo(json_text(data, ascii_only=True), nl=False)
        if self._file is None:
            return ""
        self._file.write_text(json_text(data))
        return f"wrote {visible(str(self._file.path))}"


@contextmanager
def json_output(path: Path | None) -> Iterator[JsonOutput]:
    """Check, before the work, that the figures can be written.

    Raises:
        OptionError: They cannot.
    """
    if path is None or path == STANDARD_OUTPUT:
        yield JsonOutput(None, prints=path is not None)
        return
    with output_file(path, option="json") as file:
        yield JsonOutput(file, prints=False)
