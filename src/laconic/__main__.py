"""The entry point of `python -m laconic` and `laconic`. A signal during the import ends it without a traceback."""

from laconic.lab.processes.stopping import ended_at_once_by_signals


def main() -> None:
    """Load the command line, then run it."""
    with ended_at_once_by_signals():
        from laconic.cli.app import main as run
    run()


if __name__ == "__main__":
    main()
