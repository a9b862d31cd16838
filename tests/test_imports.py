"""Imports point one way. A room may import the rooms that its row names, and itself; nothing else of ours."""

import ast
from pathlib import Path

import laconic

ROOT = Path(laconic.__file__).parent

LOW = {"kernels", "clock", "quantities", "keys", "knobs"}
WIRE = LOW | {"wire", "network", "schedules", "async_timing", "compute_times", "staleness"}
CONTRACT = WIRE | {"compressors", "memory", "topology", "contract", "skipping", "laziness", "faults"}
DRIVERS = CONTRACT | {"drivers"}
USER = DRIVERS | {"algorithms", "flat", "rates", "traffic", "saving", "optimizer", "simulation"} | {
    "evaluation", "local_steps", "replicas", "agreement",
}  # fmt: skip
LAB = USER | {"lab", "plugins", ""}

MAY_IMPORT = {
    "kernels": set(),
    "clock": set(),
    "quantities": set(),
    "keys": set(),
    "knobs": set(),
    "topology": {"knobs"},
    "network": {"clock", "keys"},
    "compute_times": {"keys"},
    "schedules": {"network", "kernels"},
    "staleness": set(),
    "async_timing": {"network", "schedules", "staleness"},
    "wire": {"kernels"},
    "memory": {"wire"},
    "compressors": {"wire", "kernels", "knobs"},
    "contract": {"wire", "memory", "topology", "staleness", "keys", "knobs"},
    "skipping": {"contract", "knobs"},
    "laziness": {"contract", "kernels", "knobs"},
    "algorithms": {
        "contract",
        "compressors",
        "memory",
        "topology",
        "staleness",
        "wire",
        "knobs",
        "kernels",
        "skipping",
        "laziness",
    },
    "faults": {"contract", "keys", "knobs"},
    "drivers": CONTRACT,
    "flat": {"kernels"},
    "rates": {"contract"},
    "traffic": {"wire"},
    "evaluation": {"flat"},
    "local_steps": {"contract", "flat", "rates"},
    "saving": {"drivers", "memory", "flat", "optimizer"},  # optimizer: for its type alone
    "optimizer": USER,
    "simulation": USER,
    "agreement": {"drivers"},
    "replicas": {"drivers", "optimizer"},
    "plugins": set(),
    "lab": LAB,
    "benches": LAB,
    "planning": LAB | {"planning"},
    "report": LAB | {"planning", "report"},
    "cli": LAB | {"planning", "report", "benches", "cli"},
    "": USER,
}

# An algorithm knows nothing of drivers, clocks, networks or processes; nor does anything that it is made of.
NO_IO = (
    "algorithms", "contract", "compressors", "memory", "topology", "staleness", "skipping", "laziness", "knobs", "keys",
    "kernels",
)  # fmt: skip
IO = ("torch.distributed", "socket", "time", "multiprocessing", "subprocess", "random", "os")


def room_of(path: Path) -> str:
    inside = path.relative_to(ROOT)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem.replace("__init__", "")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= (
                {f"{node.module}.{name.name}" for name in node.names} if node.module == "laconic" else {node.module}
            )
    return found


FILES = sorted(ROOT.rglob("*.py"))


def test_a_room_imports_only_the_rooms_below_it():
    for path in FILES:
        room = room_of(path)
        ours = {name for name in imports_of(path) if name == "laconic" or name.startswith("laconic.")}
        rooms = {f"{name}.".split(".")[1] for name in ours}
        rooms = {name if name in MAY_IMPORT else "" for name in rooms}
        assert rooms <= MAY_IMPORT[room] | {room}, f"{path} imports {sorted(rooms - MAY_IMPORT[room])}"


def test_no_algorithm_and_nothing_it_is_made_of_does_input_or_output():
    for path in FILES:
        if room_of(path) in NO_IO:
            assert not {name for name in imports_of(path) for io in IO if name == io or name.startswith(f"{io}.")}, path


def test_no_file_is_longer_than_400_lines():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, path


def test_all_names_what_the_package_offers_in_order():
    public = {name for name in vars(laconic) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(laconic, name), type(laconic)) and name != "algorithm"}
    assert set(laconic.__all__) == public - modules
    assert laconic.__all__ == sorted(
        laconic.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
