"""`laconic check`: whether the machines that torchrun has brought together can train, before they do."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from laconic.cli.exit_codes import ANSWER_IS_NO
from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet
from laconic.cli.json_output import JsonOutput, json_option, json_output
from laconic.cli.lazy import load_torch
from laconic.errors import LaunchError, OptionError, PeerLostError, WireError
from laconic.lab.defaults import LAUNCHER_VARIABLES
from laconic.lab.options import OptionGroup, option
from laconic.lab.processes.launcher import started_as_rank
from laconic.report.terminal import terminal
from laconic.report.visible import visible

_HOW = (
    "start it on every machine as the run itself, for instance: torchrun --nnodes 2 --nproc-per-node 1 --node-rank 0 "
    "--master-addr 10.0.0.1 --master-port 29500 --no-python laconic check"
)


@dataclass(frozen=True, kw_only=True)
class CheckOptions(OptionGroup):
    """How long the check waits."""

    timeout_s: float = option(
        60.0, "The number of seconds that a rank waits for another.", within="(0, inf)", unit="seconds"
    )
    json: Path | None = json_option()


@with_flags(CheckOptions, needs_torch=False)
def check(context: typer.Context, options: CheckOptions) -> None:
    """Check under torchrun that all machines agree and reach each other, and how fast, with exit code 0 or 1."""
    if not started_as_rank():
        missing = [name for name in LAUNCHER_VARIABLES if name not in os.environ]
        raise OptionError(
            f"laconic check compares the processes of several machines, and torchrun, which sets {', '.join(missing)}, "
            f"has not started this one; {_HOW}"
        )
    with json_output(options.json if os.environ["RANK"] == "0" else None) as file:
        _check(options, file, notes=not is_quiet(context))


def _check(options: CheckOptions, file: JsonOutput, *, notes: bool) -> None:
    load_torch()
    from laconic.lab.check.ranks_check import Findings, check_ranks

    def show(found: Findings) -> None:
        written = file.write(found.as_data())
        if not file.in_place_of_tables:
            _print(found.lines)
            _print([f"note: {remark}" for remark in found.remarks])
            _print([f"mend: {problem}" for _, problem in found.problems] or ["all ranks agree and reach each other"])
            _print([written] if written and notes else [])
        sys.stdout.flush()

    try:
        found = check_ranks(options.timeout_s, show)
    except (LaunchError, PeerLostError, WireError) as error:
        file.write(Findings(shown=(), problems=[(int(os.environ["RANK"]), str(error))]).as_data())
        _print([f"mend: {error}"], stderr=True)
        raise typer.Exit(ANSWER_IS_NO) from error
    rank = int(os.environ["RANK"])
    if rank > 0:  # whoever sits at that machine does not see rank 0's output
        _print([f"mend: {problem}" for odd, problem in found.problems if odd == rank], stderr=True)
    if found.problems:
        raise typer.Exit(ANSWER_IS_NO)


def _print(lines: Sequence[str], *, stderr: bool = False) -> None:
    """Print lines that no width of a terminal breaks."""
    console = terminal(stderr=stderr)
    for line in lines:
        console.print(visible(line), soft_wrap=True)
