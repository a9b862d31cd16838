"""The `laconic` command, run in this process as its entry point runs it."""

import contextlib
import io
import sys
from dataclasses import dataclass

from laconic.cli.app import main


@dataclass(frozen=True)
class CommandResult:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def laconic(*arguments: str) -> CommandResult:
    """Run the command with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["laconic", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0
    else:
        code = 0
    finally:
        sys.argv = before
    return CommandResult(code, out.getvalue(), err.getvalue())
