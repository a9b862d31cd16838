"""Only `protocol` knows the layouts and modes by name: others ask for an attribute, such as `layout.has_server`."""

import ast
import functools
from pathlib import Path

import laconic
from laconic.contract import ALGORITHMS
from laconic.protocol.layout import LAYOUTS
from support.sources import share_trees, tree_of
from test_imports import FILES, package_of

pytestmark = share_trees

MODES = {cls.mode for cls in ALGORITHMS.values()}
NAMES = set(LAYOUTS) - {"auto"} | MODES
DRIVERS = {"Simulated", "SimulatedArrivals", "Processes", "ProcessArrivals"}
# (file, name): why it is not the name of a layout or mode
OTHER_MEANINGS = {
    ("network/patterns.py", "sharded"): "a message schedule of the book",
    ("report/timeline/named.py", "sharded"): "an example of `laconic timeline`",
    ("contract/algorithm.py", "arrivals"): "where the mode is turned into an attribute",
    ("contract/algorithm.py", "decentralized"): "the same",
    ("training/simulated_state.py", "arrivals"): "a key of a saved state",
    ("drivers/distributed/arrivals.py", "rounds"): "the same",
    ("training/buffers.py", "rank0"): "whose buffers all ranks get",
}
KEYS = NAMES - {"rounds", "arrivals"}  # these two are also keys of saved figures and states


def constants_in(nodes):
    return {node.value for outer in nodes for node in ast.walk(outer) if isinstance(node, ast.Constant)}


def names_asked_for(tree):
    """The names that are compared, matched, or keys."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            found |= NAMES & constants_in(
                [*node.comparators, node.left] if not isinstance(node.left, ast.Call) else node.comparators
            )
        elif isinstance(node, ast.MatchValue):
            found |= NAMES & constants_in([node.value])
        elif isinstance(node, ast.Dict):
            found |= KEYS & {key.value for key in node.keys if isinstance(key, ast.Constant)}
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            found |= KEYS & constants_in([node.slice])
    return found


def drivers_asked_for(tree):
    """The drivers that an isinstance names."""
    return {
        name.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        for name in ast.walk(node.args[1])
        if isinstance(name, ast.Name) and name.id in DRIVERS
    }


@functools.cache
def trees():
    return {module: tree_of(path) for module, path in FILES.items() if package_of(module) != "protocol"}


def file_of(module):
    return FILES[module].relative_to(Path(laconic.__file__).parent).as_posix()


def test_no_package_but_protocol_asks_for_a_layout_or_a_mode_by_name():
    found = {(file_of(module), name) for module, tree in trees().items() for name in names_asked_for(tree)}
    assert found - OTHER_MEANINGS.keys() == set()
    assert OTHER_MEANINGS.keys() - found == set(), "not needed any more"


def test_nothing_asks_which_driver_it_has():
    assert {module: names for module, tree in trees().items() if (names := drivers_asked_for(tree))} == {}


def test_asking_by_name_would_be_found():
    for text in ('layout.name == "peers"', 'x in ("rank0", "dedicated")', '{"sharded": 1}', 'table["allreduce"]',
                 'match m:\n    case "decentralized": pass'):  # fmt: skip
        assert names_asked_for(ast.parse(text)), text
    assert drivers_asked_for(ast.parse("isinstance(self.driver, (Processes, int))")) == {"Processes"}
