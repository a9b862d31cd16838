"""`--load FILE`: enter algorithms from a file, so that the contract tests run over them too.

`--fault-seed SEED`: try that fault plan alone.
"""

import torch

import small
from laconic.plugins import load_plugins


def pytest_addoption(parser):
    parser.addoption("--load", action="append", default=[], help="a Python file with algorithms of one's own")
    parser.addoption("--fault-seed", type=int, help="the one fault plan to try in tests/test_faults.py")


def pytest_configure(config):
    torch.set_num_threads(1)
    load_plugins(config.getoption("--load"))


def pytest_sessionstart(session):
    """Compile the kernels before the tests' processes start, each of which would compile all that it uses."""
    if session.config.getoption("numprocesses", None):  # not in one of the processes that it gives the tests to
        small.use_every_method()
