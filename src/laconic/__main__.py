"""`python -m laconic` and the command `laconic`. A signal during loading ends the process without a traceback."""

from laconic.lab.processes.stopping import ended_at_once_by_signals


def main() -> None:
    """Load and run the command line."""
    with ended_at_once_by_signals():
        from laconic.cli.app import main as run
    run()


if __name__ == "__main__":
    main()
