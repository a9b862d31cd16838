"""How ranks of finished runs end: thousands of launches of two ranks, each of which must exit with code 0.

    python benchmarks/launches.py --launches 2000 --load 2

Ranks are forked from one process that has imported torch and laconic and has loaded the kernels, so that a launch
takes half a second. A rank ends as a script does: `Py_Exit` runs what is registered with atexit, takes the
interpreter down and then runs the destructors of C++ objects. `--load` runs so many busy processes beside them.
"""

import argparse
import collections
import ctypes
import gc
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import laconic

STEPS = 4
LIMIT_S = 120
ENDINGS = ("destroys", "leaves")  # whether the script calls destroy_process_group at its end
METHODS = {
    "sgd": lambda: laconic.SGD(),
    "ec-sgd": lambda: laconic.ECSGD(),
    "ssgd-mv": lambda: laconic.SSGDMV(density=0.1),
    "lasg": lambda: laconic.LASG(),
}


def main() -> None:
    """Launch, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=2000)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--load", type=int, default=0, help="busy processes beside the launches")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    warm_up()
    busy = [fork(spin) for _ in range(options.load)]
    ended: collections.Counter[tuple[str, str, int]] = collections.Counter()
    start = time.monotonic()
    n = 0
    try:
        while n < options.launches and time.monotonic() - start < options.seconds:
            name, ending = list(METHODS)[n % len(METHODS)], ENDINGS[n // len(METHODS) % len(ENDINGS)]
            for code in launch(options.ranks, name, ending):
                ended[name, ending, code] += 1
            n += 1
    finally:
        for process in busy:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    say(f"{n} launches of {options.ranks} ranks, {options.load} busy processes, {time.monotonic() - start:.0f} s")
    for name in METHODS:
        for ending in ENDINGS:
            codes = {code: times for (of, how, code), times in sorted(ended.items()) if (of, how) == (name, ending)}
            say(f"{name:8} {ending:9} ranks by exit code: {codes}")
    sys.exit(any(code for _, _, code in ended))


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def warm_up() -> None:
    """Import, compile and load what ranks need, without starting a thread: a few steps in the simulator."""
    for make in METHODS.values():
        model = torch.nn.Linear(20, 5)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        simulation = laconic.Simulation(model, inner, make(), workers=2, layout="rank0", frames="encoded")
        for _ in range(STEPS):
            simulation.step(lambda rank, model=model: model(torch.ones(8, 20)).square().mean())  # type: ignore[misc]
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads: processes that are forked now have only one of them"
    gc.collect()
    gc.freeze()  # a rank's last collection would walk, and so copy, all that it was forked with: a second a launch


def launch(n: int, name: str, ending: str) -> list[int]:
    """Run `n` ranks to their end; return their exit codes, below 0 for a signal."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = [fork(lambda rank=rank: act(rank, n, Path(folder) / "port", name, ending)) for rank in range(n)]
        codes = []
        for process in ranks:
            _, status = os.waitpid(process, 0)
            codes.append(os.waitstatus_to_exitcode(status))
        return codes


def fork(task: Callable[[], object]) -> int:
    """Run a task in a process of its own, which ends like a script; return its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        signal.alarm(LIMIT_S)
        task()
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    ctypes.pythonapi.Py_Exit(ctypes.c_int(code))
    raise AssertionError("Py_Exit does not return")


def act(rank: int, n: int, port: Path, name: str, ending: str) -> None:
    """Train a few steps as one rank."""
    store = meet(rank, port)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=timedelta(seconds=LIMIT_S))
    torch.manual_seed(rank)
    model = torch.nn.Linear(20, 5)
    opt = laconic.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), METHODS[name](), model=model, layout="rank0"
    )
    for _ in range(STEPS):
        inputs = torch.randn(8, 20)

        def closure(inputs: torch.Tensor = inputs) -> torch.Tensor:
            opt.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            return loss

        opt.step(closure)
    opt.total_traffic()
    if ending == "destroys":
        dist.destroy_process_group()


def meet(rank: int, port: Path) -> dist.Store:
    """Return the store, which rank 0 holds and whose port is in a file."""
    patience = timedelta(seconds=LIMIT_S)
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=patience)
        written = port.with_suffix(".new")
        written.write_text(str(store.port))
        written.rename(port)
        return store
    while not port.exists():
        time.sleep(0.001)
    return dist.TCPStore("127.0.0.1", int(port.read_text()), is_master=False, timeout=patience)


def spin() -> None:
    """Keep a core busy."""
    signal.alarm(0)
    while True:
        pass


if __name__ == "__main__":
    main()
