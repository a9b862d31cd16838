"""The command line: `laconic list`, `show`, `run`, `compare`, `bench`, `reproduce`."""

from laconic.cli.app import main

__all__ = ["main"]
