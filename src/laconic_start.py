"""The `laconic` command's first lines, and what a stopped command says. Loading torch takes seconds; this does not."""

import os
import signal


def main() -> None:
    """Load the command line, then run it. Stopped meanwhile, it ends at once: nothing is begun that has to be ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_at_once)
    from laconic.cli.app import main as run

    run()


def stopped_line(number: int) -> str:
    """What a command says that a signal has stopped."""
    return "stopped" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def exit_code(number: int) -> int:
    """What shells report for a process that a signal has stopped: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


def end_at_once(number: int, frame: object = None) -> None:
    """End this process, with that line."""
    os.write(2, f"{stopped_line(number)}\n".encode())
    os._exit(exit_code(number))
