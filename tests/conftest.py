"""`--load FILE`: enter algorithms from a file, so that the contract tests run over them too.

`--fault-seed SEED`: try that fault plan alone.
"""

import torch

from laconic.plugins import load_plugins


def pytest_addoption(parser):
    parser.addoption("--load", action="append", default=[], help="a Python file with algorithms of one's own")
    parser.addoption("--fault-seed", type=int, help="the one fault plan to try in tests/test_faults.py")


def pytest_configure(config):
    torch.set_num_threads(1)
    load_plugins(config.getoption("--load"))
