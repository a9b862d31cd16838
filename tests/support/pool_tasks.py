"""Jobs for the tests of `run_jobs`; a module of its own, since a process that is spawned has to find them."""

import os

from laconic.lab.processes.pool import Figures, Reporter


def doubled(tell: Reporter, number: int) -> Figures:
    tell(0, 1, "begun")
    tell(1, 1, "done")
    return {"twice": 2 * number}


def broken(tell: Reporter) -> Figures:
    raise ArithmeticError("nothing adds up")


def dying(tell: Reporter) -> Figures:
    os._exit(7)
