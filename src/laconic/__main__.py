"""The entry point of `python -m laconic` and `laconic`. A signal ends it without a traceback."""

import os

from laconic.lab.processes.stopping import Stopped, end_at_once_on_signals, exit_at_once, print_anything


def main() -> None:
    """Load the command line, then run it."""
    end_at_once_on_signals()
    print_anything()
    # torch's own lines about connections that fail, with C++ stack traces; the error that follows says it in one.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    from laconic.cli.app import main as run

    try:
        run()
    except SystemExit as ending:
        if isinstance(ending.__context__, Stopped):
            exit_at_once(ending.__context__.number)
        raise


if __name__ == "__main__":
    main()
