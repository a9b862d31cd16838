"""`--load FILE`: register algorithms from a file, so that the contract tests run with them too.

`--fault-seed SEED`: run only that fault plan.
"""

import gc
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

COMPILED = "laconic/compiled kernels"

pytest.register_assert_rewrite("support")

# The duration of an example depends on how busy the machine is, and the initial one compiles kernels.
settings.register_profile("laconic", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("laconic")


def pytest_addoption(parser):
    parser.addoption("--load", action="append", default=[], help="A Python file with algorithms to test as well.")
    parser.addoption(
        "--fault-seed", type=int, help="The seed of the only fault plan to run in tests/faults/test_faults.py."
    )


def pytest_configure(config):
    for size in ("COLUMNS", "LINES"):  # a process that has loaded readline hands them on: 80 and 24 without a terminal
        os.environ.pop(size, None)
    if not os.access(os.path.expanduser("~"), os.W_OK):  # else each process would compile all kernels
        os.environ.setdefault("NUMBA_CACHE_DIR", str(config.rootpath / ".pytest_cache"))
    if not config.getoption("numprocesses", None):  # so it is in the worker processes of xdist, too
        prepare(config)


def prepare(config):
    """Load torch and the user's algorithms. The process that only deals out tests does without, and starts sooner."""
    import torch

    from laconic.contract import load_plugins

    torch.set_num_threads(1)
    load_plugins(config.getoption("--load"))


def pytest_sessionstart(session):
    """Compile the kernels before the test processes start, since each of them would compile what it uses."""
    if not session.config.getoption("numprocesses", None):
        return
    cache = getattr(session.config, "cache", None)  # None without pytest's cacheprovider
    if cache is None or not are_compiled(cache):
        use_every_method(session.config)
        if cache is not None:
            cache.set(COMPILED, state_of_kernels())


def use_every_method(config):
    """Use each method for a few rounds, half of ours in a process beside this one, for two cores compile sooner."""
    from laconic import ALGORITHMS

    half = sorted(name for name, cls in ALGORITHMS.items() if cls.mode != "arrivals")[::2]
    use = "import sys; from support.methods import use_methods; use_methods(sys.argv[1:])"
    path = os.pathsep.join(str(config.rootpath / name) for name in ("src", "tests"))
    quietly = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "PYTHONPATH": path}}
    with subprocess.Popen([sys.executable, "-c", use, *half], **quietly) as beside:
        prepare(config)
        from support.methods import IN_STEP, use_methods  # imported late, because --load registers algorithms

        use_methods([name for name in IN_STEP if name not in half])
    if beside.returncode:  # here one sees why
        use_methods(half)


def are_compiled(cache):
    """Whether a former run compiled the kernels as they are, so that the test processes only load them."""
    before, now = cache.get(COMPILED, {}), state_of_kernels()
    return before.get("folder") == now["folder"] and 0 < before["files"] <= now["files"]


def state_of_kernels():
    """The folder of compiled kernels, a digest of their sources, and how many files it has."""
    from laconic.kernels.cpu.cache import kernel_folder
    from laconic.kernels.cpu.sources import digest_of_all

    path = kernel_folder().path
    return {
        "folder": f"{path} {digest_of_all().hex()}",
        "files": 0 if path is None else len(list(path.glob("*.kernel"))),
    }


def pytest_collection(session):
    """Nearly all that is made by then stays to the end: to look for garbage takes long."""
    gc.disable()


def pytest_collection_finish(session):
    """The tests and modules stay to the end, so the garbage collector need not look at them again and again."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config, items):
    """If several processes share the tests, run the slow ones before the others, so that none is left for the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module")
def group_of_one(tmp_path_factory):
    """A process group of this process alone."""
    import torch.distributed as dist

    meeting = tmp_path_factory.mktemp("group") / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Statements(logging.Handler):
    """The messages of the logger "laconic" from a level on."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record):
        self.messages.append(record.getMessage())

    @property
    def text(self):
        return "\n".join(self.messages)


@pytest.fixture
def stated(monkeypatch):
    """What users are told through the log, as if nothing had been before.

    Instead of `caplog`, whose plugin is off: around each test it visits all loggers, and torch makes many.
    """
    from laconic import statements

    monkeypatch.setattr(statements, "_stated", set())
    logger, handler = logging.getLogger("laconic"), Statements(logging.WARNING)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
