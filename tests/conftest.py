"""`--load FILE`: enter algorithms from a file, so that the contract tests run over them too."""

import torch

from laconic.plugins import load_plugins


def pytest_addoption(parser):
    parser.addoption("--load", action="append", default=[], help="a Python file with algorithms of one's own")


def pytest_configure(config):
    torch.set_num_threads(1)
    load_plugins(config.getoption("--load"))
