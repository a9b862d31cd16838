"""A checkpoint's files: what can stand in them, who reads them, and that no damaged or foreign one is loaded."""

import inspect
import json
import math
import os
import shutil

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

import laconic
from laconic.checkpoint.folders import MANIFEST, Manifest, Writing
from laconic.checkpoint.parts import FORMAT, Part, file_of
from laconic.checkpoint.sealed import sealed, unsealed
from laconic.checkpoint.trees import flattened, rebuilt
from support import optimizers, small_model

pytestmark = pytest.mark.usefixtures("group_of_one")

TIED = torch.arange(3.0)
STATE = {
    "numbers": [0, -1, 1 << 70, 2.5, -0.0, math.inf, -math.inf, True, None],
    "texts": ["", "a/b", "\u00e9", "tensor"],
    "tensor": {"tensor": "of the user"},
    3: "whole number", "3": "text", (1, "x"): b"\x00\xff",
    "nested": {"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}},
    "tensors": [torch.tensor(2.0), torch.zeros(0, 3), TIED, TIED, torch.ones(2, 3, dtype=torch.bfloat16).t(),
                torch.tensor([1j]).conj(), torch.tensor([True]), torch.arange(4)[::2]],
}  # fmt: skip


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def job(name="ec-sgd", adam=True):
    net = small_model.net()
    inner = torch.optim.Adam(net.parameters(), lr=0.01) if adam else None
    return net, optimizers.wrapped(net, name, "auto", inner)


def trained(steps, **options):
    net, opt = job(**options)
    for step in range(steps):
        optimizers.one_step(opt, net, 0, step)
    return net, opt


def small_checkpoint(folder, *states):
    """A checkpoint of a few hundred bytes, of as many ranks as states."""
    writing = Writing.begin(folder, 5)
    parts = [Part.of(state, rank) for rank, state in enumerate(states)]
    listed = []
    for part in parts:
        shared = parts[0].digests if part.rank else {}
        path = writing.unfinished / file_of(part.rank)
        checksum = part.write(path, shared, ranks=len(parts), step=5, save=writing.save)
        listed.append({"bytes": path.stat().st_size, "checksum": checksum})
    writing.finish(listed)
    return writing.path


def read(path):
    manifest = Manifest.read(path)
    leading = manifest.part(0)
    return [(leading if rank == 0 else manifest.part(rank)).state(leading) for rank in range(manifest.n_ranks)]


def test_a_state_comes_back_as_it_was_with_all_its_types():
    tree, tensors = flattened(STATE, "rank0")
    assert same(rebuilt(json.loads(json.dumps(tree)), tensors), STATE)
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert len({tensor.data_ptr() for tensor in tensors.values() if tensor.numel()}) == len(tensors) - 1


def test_what_no_file_of_state_can_hold_is_named_with_its_place():
    for value in (object(), {1, 2}, 1j, torch.eye(2).to_sparse(), torch.zeros(1, device="meta"), nn.Linear(1, 1)):
        with pytest.raises(TypeError, match=r"^extra/0 is"):
            flattened({"extra": [value]}, "rank0")


def test_one_file_of_state_is_read_by_weights_only_safetensors_and_torchs_distributed_checkpoint(tmp_path):
    net, opt = trained(3)
    path = laconic.checkpoint.save(tmp_path, opt, step=3, extra={"epoch": 1})
    file = path / "rank0.safetensors"
    by_safetensors = safetensors.torch.load_file(file)
    tables = [by_safetensors]
    if "safetensors" in inspect.getsource(torch.serialization):  # older versions of torch do not read the format
        tables.append(torch.load(file, weights_only=True))
    reader = dcp.HuggingFaceStorageReader(str(path))
    listed = reader.read_metadata().state_dict_metadata
    by_dcp = {name: torch.empty(each.size, dtype=each.properties.dtype) for name, each in listed.items()}
    dcp.load(by_dcp, storage_reader=reader)
    residual = opt.driver.worker.me.memory.saved()["residual"]
    for table in (*tables, by_dcp):
        assert table.keys() == by_safetensors.keys()
        assert all(torch.equal(table[name], value) for name, value in by_safetensors.items())
        assert torch.equal(table["rank0/model/0.weight"], net[0].weight)
        assert torch.equal(table["rank0/inner/state/0/exp_avg"], opt.state[net[0].weight]["exp_avg"])
        assert torch.equal(table["rank0/laconic/driver/worker/memory/residual/0.weight/0"], residual[:66])


def test_what_all_ranks_have_alike_is_written_once(tmp_path):
    alike = torch.arange(1000.0)
    states = [{"model": alike, "own": torch.full((3,), float(rank))} for rank in range(3)]
    path = small_checkpoint(tmp_path, *states)
    assert same(read(path), states)
    sizes = [(path / f"rank{rank}.safetensors").stat().st_size for rank in range(3)]
    assert sizes[0] > 4000 > 2000 > max(sizes[1:])


def mutations_of(data, every):
    """One byte of every so many is another; of every one, in each of its bits. Or all behind it is missing."""
    for place in range(0, len(data), every):
        for bit in range(8) if every == 1 else [place % 8]:
            yield f"bit {bit} of byte {place}", data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]
        yield f"truncated to {place}", data[:place]
    yield "longer", data + b"\0"
    yield "twice", data + data


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.nightly)])
def test_no_flipped_or_missing_byte_is_taken_for_what_was_written(every, tmp_path):
    states = [{"a": torch.tensor([1.0, 2.0]), "b": rank} for rank in range(2)]
    path = small_checkpoint(tmp_path, *states)
    for file in path.iterdir():
        data = file.read_bytes()
        for what, mutated in mutations_of(data, every):
            file.write_bytes(mutated)
            try:
                assert same(read(path), states), f"{file.name}, {what}"  # such as a byte of safetensors' own remarks
            except laconic.CheckpointError as error:
                assert file.name in str(error), f"{file.name}, {what}"  # noqa: PT017 - most raise, some need not
        file.write_bytes(data)
    assert same(read(path), states)


HOSTILE = {
    "tree": [[], {}, {"map": []}, {"map": {"a": {"tensor": "rank0/none"}}}, {"tensor": 3}, {"call": "x"},
             {"float": "x"}, {"bytes": "?"}, {"pairs": [[[], 1]]}, {"pairs": [1]}, {"tuple": 5},
             {"map": {}, "tuple": []}, "x", None],
    "format": [0, FORMAT + 1, "1", None, True], "rank": [1, -1, "0"], "ranks": [2, 0], "step": [4, None], "save": [2],
    "tensors": [{}, {"a": "0"}, {"a": 1}, [], {"b": "0"}], "laconic": [3],
}  # fmt: skip


def test_a_hostile_file_whose_checksums_are_right_is_refused(tmp_path):
    path = small_checkpoint(tmp_path, {"a": torch.ones(2)})
    file, manifest = path / "rank0.safetensors", path / MANIFEST
    tensors, content = safetensors.torch.load_file(file), unsealed(manifest.read_bytes())
    description = unsealed(tensors["rank0/laconic"].numpy().tobytes())
    for key, values in HOSTILE.items():
        for value in values:
            packed = sealed({**description, key: value})
            data = safetensors.torch.save(
                {**tensors, "rank0/laconic": torch.frombuffer(bytearray(packed), dtype=torch.uint8)}
            )
            file.write_bytes(data)
            part = {"file": file.name, "bytes": len(data), "checksum": json.loads(packed)["checksum"]}
            manifest.write_bytes(sealed({**content, "parts": [part]}))
            try:
                state = read(path)
            except laconic.CheckpointError:
                continue
            assert key == "tree", f"{key}={value!r} was read as {state}"
            assert not isinstance(state[0], dict) or state[0] in ({}, {"map": {}}), (
                f"{key}={value!r} was read as {state}"
            )


def test_manifests_of_other_files_are_refused(tmp_path):
    path = small_checkpoint(tmp_path, {"a": torch.ones(2)}, {"a": torch.zeros(2)})
    manifest = path / MANIFEST
    content = unsealed(manifest.read_bytes())
    one, other = content["parts"]
    for parts in (
        [],
        [one],
        [other, one],
        [one, other, other],
        [{**one, "file": "../x"}, other],
        [{**one, "bytes": -1}],
    ):
        manifest.write_bytes(sealed({**content, "parts": parts}))
        with pytest.raises(laconic.CheckpointError):
            read(path)


def test_the_newest_complete_checkpoint_is_found_whatever_else_is_there(tmp_path):
    net, opt = job()
    assert laconic.checkpoint.load(tmp_path / "nothing", opt) is None
    assert laconic.checkpoint.newest(tmp_path / "nothing") is None
    paths = [laconic.checkpoint.save(tmp_path, opt, step=step, keep=5) for step in (10, 20, 5)]
    assert [path.name for path in paths] == ["000001-step-10", "000002-step-20", "000003-step-5"]
    (Writing.begin(tmp_path, 30).unfinished / file_of(0)).write_bytes(b"killed here")
    (tmp_path / "000009-step-x").mkdir()
    (tmp_path / "notes.txt").touch()
    assert laconic.checkpoint.newest(tmp_path) == paths[2]
    assert laconic.checkpoint.load(tmp_path, opt).step == 5  # the last that was saved
    laconic.checkpoint.check(paths[2])
    assert laconic.checkpoint.load(paths[1], opt).step == 20
    (paths[2] / "rank0.safetensors").write_bytes(b"")
    with pytest.warns(
        laconic.LaconicWarning, match=r"000003-step-5.rank0.safetensors: it has 0 bytes of .*000002-step-20"
    ):
        assert laconic.checkpoint.load(tmp_path, opt).step == 20
    for refuses in (lambda path: laconic.checkpoint.load(path, opt), laconic.checkpoint.check):
        with pytest.raises(laconic.CheckpointError, match="it has 0 bytes"):
            refuses(paths[2])
    shutil.copy(paths[0] / "rank0.safetensors", paths[1])
    (paths[0] / MANIFEST).unlink()
    with pytest.raises(
        laconic.CheckpointError, match=r"another save(.|\n)*000001-step-10.manifest.json: it cannot be read"
    ):
        laconic.checkpoint.load(tmp_path, opt)
    small_checkpoint(tmp_path, {"a": 1})
    with pytest.raises(laconic.CheckpointError, match="has no state of a job"):
        laconic.checkpoint.load(tmp_path, opt)
    assert optimizers.state_of(opt)["inner"] == []
    del net


def test_a_checkpoint_of_a_later_format_is_not_passed_over(tmp_path):
    _, opt = job()
    laconic.checkpoint.save(tmp_path, opt, step=1)
    manifest = laconic.checkpoint.save(tmp_path, opt, step=2) / MANIFEST
    manifest.write_bytes(sealed({**unsealed(manifest.read_bytes()), "format": FORMAT + 1, "laconic": "9.0"}))
    with pytest.raises(laconic.CheckpointError, match=f"the format {FORMAT + 1} of laconic '9.0'; this is laconic"):
        laconic.checkpoint.load(tmp_path, opt)


class Stubborn:
    """An object that loads one state only."""

    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        if state["value"] == 2:
            raise RuntimeError("not two")
        self.value = state["value"]


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path):
    _, opt = trained(2)
    objects = {"a": Stubborn(1), "b": Stubborn(2)}
    laconic.checkpoint.save(tmp_path / "net", opt, step=2, objects=objects)
    laconic.checkpoint.save(tmp_path / "method", trained(1, name="compskip")[1], step=2)
    other = nn.Linear(6, 3)
    inner = torch.optim.SGD(other.parameters(), lr=0.1)
    other_opt = laconic.DistributedOptimizer(inner, laconic.ECSGD(), model=other)
    laconic.checkpoint.save(tmp_path / "model", other_opt, step=2)
    laconic.checkpoint.save(tmp_path / "inner", trained(2, adam=False)[1], step=2)
    net, opt = trained(1)
    here = {"a": Stubborn(7), "b": Stubborn(7)}
    torch.manual_seed(3)
    before = small_model.values(net), optimizers.state_of(opt), torch.get_rng_state()
    for folder, objects, message in (
        ("net", here, r"objects\['b'\] cannot load its state: RuntimeError\('not two'\)"),
        ("net", {}, r"it has the objects \['a', 'b'\], and here are \[\]"), ("model", {}, "is it another model"),
        ("method", {}, "algorithm is 'compskip' in the saved state and 'ec-sgd' here"),
        ("inner", {}, "of parameter group 0 is missing"),
    ):  # fmt: skip
        with pytest.raises(laconic.CheckpointError, match=message):
            laconic.checkpoint.load(tmp_path / folder, opt, objects=objects)
        after = small_model.values(net), optimizers.state_of(opt), torch.get_rng_state()
        torch.testing.assert_close(after, before, rtol=0, atol=0)
        assert [each.value for each in here.values()] == [7, 7]


def test_wrong_arguments_are_named_before_anything_is_written(tmp_path):
    net, opt = job()
    bare = laconic.DistributedOptimizer(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1), laconic.SGD())
    save = laconic.checkpoint.save
    for call, kind, message in (
        (lambda: save(tmp_path, opt.inner, step=1), TypeError, "opt is a Adam; it must be a laconic.DistributedOptim"),
        (lambda: save(tmp_path, opt, step=-1), ValueError, "step=-1"),
        (lambda: save(tmp_path, opt, step=1.5), TypeError, "step=1.5 must be a whole number"),
        (lambda: save(tmp_path, opt, step=1, keep=0), ValueError, "keep=0"),
        (lambda: save(tmp_path, bare, step=1), ValueError, "model is not known"),
        (lambda: save(tmp_path, opt, step=1, objects={"x": 3}), TypeError, "objects\\['x'\\] is a int without"),
        (lambda: save(tmp_path, opt, step=1, extra={"x": {3}}), TypeError, "extra/x is .3. of set"),
        (lambda: laconic.checkpoint.load(tmp_path, net), TypeError, "opt is a Sequential"),
        (lambda: save(None, opt, step=1), TypeError, "folder=None must be a path"),
        (lambda: laconic.checkpoint.load(3, opt), TypeError, "folder=3 must be a path"),
        (lambda: laconic.checkpoint.newest(None), TypeError, "folder=None must be a path"),
        (lambda: laconic.checkpoint.check(3), TypeError, "folder=3 must be a path"),
    ):
        with pytest.raises(kind, match=message):
            call()
    assert not list(tmp_path.iterdir())


def test_what_is_no_folder_of_a_run_is_not_taken_for_the_start_of_one(tmp_path):
    _, opt = trained(1)
    saved = laconic.checkpoint.save(tmp_path / "run", opt, step=1)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (saved / "manifest.json", saved / "rank0.safetensors", tmp_path / "dangling", tmp_path / "loop"):
        with pytest.raises(
            laconic.CheckpointError, match=f"rank 0: .*{path.name}.* is no folder; give the folder of the"
        ):
            laconic.checkpoint.load(path, opt)
    with pytest.raises(ValueError, match="is a checkpoint itself; give the folder of the run"):
        laconic.checkpoint.save(saved, opt, step=2)
    assert laconic.checkpoint.load(tmp_path / "not there yet", opt) is None
    assert laconic.checkpoint.newest(tmp_path / "run") == saved


def simulated(workers, name="ec-sgd", seed=1):
    torch.manual_seed(seed)
    net = nn.Sequential(*small_model.net(), nn.BatchNorm1d(3), nn.Dropout(0.2))
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    algorithm = optimizers.methods.with_test_settings(name)
    simulation = laconic.Simulation(net, inner, algorithm, workers=workers, layout="rank0", seed=5, compute_s=0.01)

    def train(steps):
        for step in steps:
            simulation.step(lambda rank, step=step: small_model.loss(net, rank, step))

    return simulation, train


def test_a_simulation_goes_on_with_the_bits_of_a_straight_run(tmp_path):
    straight, train = simulated(3)
    train(range(6))
    simulation, train = simulated(3)
    train(range(3))
    laconic.checkpoint.save(tmp_path, simulation, step=3)
    simulation, train = simulated(3, seed=9)
    train(range(laconic.checkpoint.load(tmp_path, simulation).step, 6))
    assert torch.equal(small_model.values(simulation.model), small_model.values(straight.model))
    assert simulation.traffic == straight.traffic
    for name, buffer in straight.model.named_buffers():
        assert torch.equal(simulation.model.get_buffer(name), buffer)


def test_a_simulation_goes_on_from_ranks_and_ranks_from_a_simulation(tmp_path):
    net, opt = trained(2, adam=False)
    laconic.checkpoint.save(tmp_path / "ranks", opt, step=2)
    twin = small_model.net()
    inner = torch.optim.SGD(twin.parameters(), lr=opt.param_groups[0]["lr"])
    simulation = laconic.Simulation(twin, inner, opt.algorithm, workers=1, seed=5)
    laconic.checkpoint.load(tmp_path / "ranks", simulation)
    for step in (2, 3):
        optimizers.one_step(opt, net, 0, step)
        simulation.step(lambda rank, step=step: small_model.loss(twin, rank, step))
    assert torch.equal(small_model.values(twin), small_model.values(net))
    laconic.checkpoint.save(tmp_path / "simulation", simulation, step=4)
    back, opt = job(adam=False)
    assert laconic.checkpoint.load(tmp_path / "simulation", opt).step == 4
    assert torch.equal(small_model.values(back), small_model.values(net))


def test_files_have_the_permissions_that_the_users_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        path = small_checkpoint(tmp_path, {"model": torch.ones(3)})
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in path.iterdir()} == {
        "manifest.json": 0o640, "rank0.safetensors": 0o640,
    }  # fmt: skip
