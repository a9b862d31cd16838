"""Imports go one way: a package imports only itself and the packages in its row."""

import ast
import functools
from collections import defaultdict
from pathlib import Path

import laconic
from support.sources import share_trees, tree_of

pytestmark = share_trees
ROOT = Path(laconic.__file__).parent

# From the bottom up. Every package may import the ground, which imports nothing of laconic.
GROUND = {
    "errors",
    "statements",
    "units",
    "hyperparameters",
    "random_keys",
    "buffer_pool",
    "torch_compat",
}
MAY_IMPORT = {
    "gossip": set(),
    "kernels": set(),
    "network": {"kernels"},
    "wire": {"kernels"},
    "telemetry": {"wire"},
    "contract": {"wire"},
    "compressors": {"contract", "wire", "kernels"},
    "policies": {"contract", "kernels"},
    "algorithms": {"contract", "compressors", "policies", "gossip", "wire", "kernels"},
    "protocol": {"contract", "compressors", "telemetry", "wire", "network", "kernels"},
    "faults": {"protocol", "contract", "telemetry", "network", "wire"},
    "drivers": {"faults", "protocol", "contract", "telemetry", "network", "wire", "kernels"},
    "training": {"drivers", "faults", "protocol", "contract", "telemetry", "network", "kernels"},
    "checkpoint": {"", "ddp", "training", "drivers", "lab"},
    "ddp": {"training", "drivers", "protocol", "contract", "telemetry", "kernels"},
    "fsdp": {"ddp", "training", "drivers", "protocol", "contract"},
    "": {"training", "faults", "algorithms", "policies", "contract", "compressors", "telemetry", "network", "gossip",
         "kernels"},
    "traffic": {"telemetry"},
    "lab": {"", "training", "drivers", "faults", "protocol", "contract", "telemetry", "network", "kernels"},
    "reproduce": {"lab", "training", "drivers", "protocol", "algorithms", "contract", "compressors", "telemetry",
                  "network", "wire", "gossip"},
    "planning": {"lab", "training", "drivers", "faults", "protocol", "algorithms", "contract", "telemetry", "network",
                 "wire", "kernels"},
    "bench": {"lab", "training", "telemetry", "contract", "compressors", "network", "wire", "kernels"},
    "report": {"planning", "reproduce", "lab", "protocol", "network", "gossip"},
    "cli": {"report", "bench", "planning", "reproduce", "lab", "protocol", "contract", "network", "gossip", ""},
    "__main__": {"cli", "lab"},
}  # fmt: skip
# Other packages import from these packages themselves, not from their modules (of the kernels: from `api`).
FACES = {
    "contract": "contract",
    "compressors": "compressors",
    "wire": "wire",
    "network": "network",
    "kernels": "kernels.api",
}
# Neither algorithms nor what they import use drivers, clocks or processes.
NO_IO = {"algorithms", "contract", "compressors", "policies", "gossip", "kernels", "hyperparameters", "random_keys"}
DOES_IO = {"laconic.kernels.cpu.cache", "laconic.kernels.cpu.private_folder"}  # keep machine code on disk
IO = ("torch.distributed", "socket", "time", "multiprocessing", "subprocess", "random", "os")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def package_of(module: str) -> str:
    return f"{module}.".split(".")[1]


def offered_by(path: Path) -> set[str]:
    """The names that a package imports and re-exports."""
    froms = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom)]
    return {name.asname or name.name for node in froms for name in node.names}


@functools.cache
def offered() -> dict[str, set[str]]:
    return {module: offered_by(path) for module, path in FILES.items() if path.name == "__init__.py"}


def imports_of(module: str) -> set[str]:
    """Every import, including those in functions and for type checking; a name that is a module counts as a module."""
    found = set()
    for node in ast.walk(tree_of(FILES[module])):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            for name in node.names:
                if name.name in offered().get(node.module, ()):  # the package's own name, though a module has it too
                    found.add(node.module)
                    continue
                full = f"{node.module}.{name.name}"
                found.add(full if full in FILES else node.module)
    return found


@functools.cache
def imports() -> dict[str, set[str]]:
    return {module: imports_of(module) for module in FILES}


@functools.cache
def our_imports() -> dict[str, set[str]]:
    return {module: {name for name in names if name in FILES} for module, names in imports().items()}


def test_a_package_imports_only_those_that_its_row_names():
    wrong = [
        f"{module} imports {name}"
        for module, names in our_imports().items()
        for name in names
        if ((package := package_of(module)) != (other := package_of(name))
        and other not in GROUND | MAY_IMPORT.get(package, set()))
        or (package in GROUND and other != package)
    ]  # fmt: skip
    assert not wrong
    assert {package_of(module) for module in FILES} == MAY_IMPORT.keys() | GROUND


def test_no_row_names_a_package_that_is_not_imported():
    used = defaultdict(set)
    for module, names in our_imports().items():
        used[package_of(module)] |= {package_of(name) for name in names} - GROUND - {package_of(module)}
    assert {package: names - used[package] for package, names in MAY_IMPORT.items() if names - used[package]} == {}


def test_no_circle_of_files_or_packages():
    packages = defaultdict(set)
    for module, names in our_imports().items():
        packages[package_of(module)] |= {package_of(name) for name in names} - {package_of(module)}
    for graph in (our_imports(), packages):
        left = {node: set(to) - {node} for node, to in graph.items()}
        while free := [node for node, to in left.items() if not to]:
            left = {node: to.difference(free) for node, to in left.items() if node not in free}
        assert not left, f"in or behind a circle: {sorted(left)}"


def test_no_import_bypasses_the_five_faces():
    passed = [
        f"{module} imports {name}"
        for module, names in our_imports().items()
        for name in names
        if (other := package_of(name)) in FACES
        and package_of(module) not in (other, "")
        and name != f"laconic.{FACES[other]}"
    ]
    assert not passed


def test_no_more_than_31_modules_and_packages_stand_at_the_top():
    assert len({package_of(module) for module in FILES} - {""}) <= 31


def test_no_algorithm_and_nothing_it_imports_does_input_or_output():
    doing = [
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in names
        if package_of(module) in NO_IO
        and module not in DOES_IO
        and any(name == io or name.startswith(f"{io}.") for io in IO)
    ]
    assert not doing


def test_no_file_is_longer_than_400_lines():
    files = [*FILES.values(), *Path(__file__).parent.rglob("*.py")]
    long = {str(path): n for path in files if (n := len(path.read_text().splitlines())) > 400}
    assert not long
