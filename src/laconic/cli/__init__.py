"""The command line: `laconic list`, `show`, `run`, `compare`, `plan`, `timeline`, `bench`, `reproduce`."""

from laconic.cli.app import main

__all__ = ["main"]
