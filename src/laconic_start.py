"""The `laconic` command's first lines. Loading torch takes seconds; Ctrl-C meanwhile ends without a traceback."""

import signal


def main() -> None:
    """Load the command line, then run it."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from laconic.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()
