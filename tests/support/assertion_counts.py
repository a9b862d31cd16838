"""Counts the assertions that pass, so that a change of the tests can be held to have as many as before.

    PYTHONPATH=tests/support PYTHONPYCACHEPREFIX=/tmp/counted pytest -n 2 -p assertion_counts \
        -o enable_assertion_pass_hook=true

It prints the total, and with COUNTS=FILE in the environment writes the count of every test function as JSON. The prefix
is for bytecode of its own: what pytest has compiled without the hook does not call it.
"""

import json
import os
from collections import Counter

import pytest

_passed: Counter[str] = Counter()


def pytest_assertion_pass(item):
    _passed[item.nodeid.partition("[")[0]] += 1


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of the processes that xdist gives the tests to
        session.config.workeroutput["assertions"] = dict(_passed)


@pytest.hookimpl(optionalhook=True)  # of xdist
def pytest_testnodedown(node):
    _passed.update(getattr(node, "workeroutput", {}).get("assertions", {}))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{_passed.total():,} assertions passed in {len(_passed):,} test functions")
    if "COUNTS" in os.environ:
        with open(os.environ["COUNTS"], "w", encoding="utf-8") as file:
            json.dump(dict(sorted(_passed.items())), file, indent=1)
