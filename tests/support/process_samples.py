"""Objects and jobs for the tests of child processes; a module of its own, since these import it, and quickly."""

import ctypes
import importlib
import os
import random
import signal
import sys
import threading
from pathlib import Path


class Sample:
    """In a child process."""

    def __init__(self, sign=None):
        if sign is not None:
            Path(sign).touch()
            signal.pause()  # as if an import never ended

    def pid(self):
        return os.getpid()

    def has_imported(self, module):
        return module in sys.modules

    def surroundings(self, variable, module):
        """What is of the moment of its start, after a line on each stream."""
        sys.stdout.write("to output\n")
        sys.stderr.write("to error\n")
        return os.getcwd(), os.environ.get(variable), importlib.import_module(module).VALUE

    def random_numbers(self):
        import numpy as np

        return random.random(), float(np.random.rand())

    def report_numbers(self, report):
        for number in range(3):
            report(number)
        return "done"

    def fail(self):
        raise ArithmeticError("nothing adds up")

    def ignore_sigterm(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def stop_itself(self):
        os.kill(os.getpid(), signal.SIGSTOP)

    def pause(self, sign):
        Path(sign).touch()
        signal.pause()

    def hold_the_interpreter(self, sign):
        Path(sign).touch()
        ctypes.PyDLL(None).sleep(3600)  # no other thread of this process runs meanwhile


class Parent:
    """In a child process that has a child of its own."""

    def start(self, *arguments, **environment):
        from laconic.lab.processes.supervise import Child

        self.child = Child("inner", Sample, *arguments, environment=environment)
        return [self.child.pid]

    def start_fresh(self):
        return self.start(OF_ITS_OWN="1")

    def start_each_kind(self, folder):
        """One that a thread started which has ended, one that makes its object, and two that hold their interpreters.

        Each makes a sign. The first and the third are fresh interpreters: there is no template yet, or it is not used.
        """
        thread = threading.Thread(target=self.start)
        thread.start()
        thread.join()
        pids = [self.child.call("pid")]
        of_thread = self.child
        of_thread.request("pause", {"sign": f"{folder}/of a thread"})
        pids += self.start(f"{folder}/making")
        making = self.child
        pids += self.start_fresh()
        fresh = self.child
        pids += self.start()
        fresh.request("hold_the_interpreter", {"sign": f"{folder}/fresh"})
        self.child.request("hold_the_interpreter", {"sign": f"{folder}/forked"})
        self.others = of_thread, making, fresh
        return pids


class Dividing:
    """In a child process, which has no kernels yet."""

    def divide(self, folder):
        os.environ["NUMBA_CACHE_DIR"] = folder
        import torch

        from laconic.kernels import api as kernels

        vector = torch.tensor([8.0])
        kernels.divide(vector, 2)
        sys.stdout.write(f"{vector.item()}\n")
        from laconic.kernels.cpu import finite

        return finite._divide.stats.cache_misses.total()


class Rank:
    """In a rank."""

    def meet(self, failing=(), ending=()):
        """All ranks wait for each other, but for those that fail or end."""
        import torch
        import torch.distributed as dist

        if dist.get_rank() in failing:
            raise ArithmeticError("nothing\nadds up")  # of a message of two lines one is made
        if dist.get_rank() in ending:
            os._exit(7)
        total = torch.ones(1)
        dist.all_reduce(total)
        return total

    def meet_and_abort(self, aborting):
        """All ranks wait for each other; then some of them abort before they have answered."""
        import torch.distributed as dist

        total = self.meet()
        if dist.get_rank() in aborting:
            os.abort()
        return total


def figures_of(report):
    return {"figure": 1.5}


def killed(report):
    os.kill(os.getpid(), signal.SIGKILL)


def stops_its_parent(report):
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()
