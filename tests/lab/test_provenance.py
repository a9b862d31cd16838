"""What a machine does not say about itself costs no result."""

import os
import platform

from laconic.lab.provenance import machine, versions


def fails(*arguments):
    raise OSError("unknown")


def test_what_cannot_be_found_out_is_none(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(platform, "machine", fails)
    monkeypatch.setattr(platform, "python_version", fails)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine() == {"processor": None, "cores": None, "memory_bytes": None}
    assert versions()["python"] is None
    assert versions()["torch"]
