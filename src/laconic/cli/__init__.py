"""The command line: `laconic list`, `show`, `run`, `compare`."""

from laconic.cli.app import main

__all__ = ["main"]
