"""Jobs for the tests of `run_jobs`; a module of its own, since a process that is spawned has to find them."""

import os

from laconic.lab.processes.pool import Figures, Tell


def doubled(tell: Tell, number: int) -> Figures:
    tell(0, 1, "begun")
    tell(1, 1, "done")
    return {"twice": 2 * number}


def broken(tell: Tell) -> Figures:
    raise ArithmeticError("nothing adds up")


def dying(tell: Tell) -> Figures:
    os._exit(7)
