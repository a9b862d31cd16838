"""Jobs for the tests of `run_tasks`; a module of its own, since a process that is spawned has to find them."""

import os

from laconic.lab.processes.pool import Figures, Reporter


def doubled(report: Reporter, number: int) -> Figures:
    report(0, 1, "begun")
    report(1, 1, "done")
    return {"twice": 2 * number}


def broken(report: Reporter) -> Figures:
    raise ArithmeticError("nothing adds up")


def dying(report: Reporter) -> Figures:
    os._exit(7)
