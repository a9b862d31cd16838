"""Logs and observers get every round, and none of them can end a training or change a bit of it."""

import importlib.util
import json
import shutil

import pytest
import torch

import laconic
from laconic.errors import OptionError
from laconic.telemetry.logs.jsonl import FILE
from support.ranks import run_ranks
from support.tracker_module import calls_in, install_tracker

ROUNDS = 4


def small_simulation(algorithm=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    return laconic.Simulation(model, inner, algorithm or laconic.ECSGD(), workers=3, layout="rank0", lr="kept")


def train(simulation, rounds=ROUNDS):
    """The parameters after some rounds."""
    inputs = torch.arange(18.0).view(3, 6) / 18
    for _ in range(rounds):
        simulation.step(lambda rank: simulation.model(inputs[rank]).square().sum())
    return simulation.parameters_of(0)


def lines_of(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_a_file_of_lines_has_the_settings_and_every_round_and_its_bytes_add_up_to_the_traffic(tmp_path):
    simulation = small_simulation()
    with laconic.RunLog("jsonl", folder=tmp_path, name="mine", config={"lr": 0.1}) as log:
        log.observe(simulation, residual_norm=True)
        train(simulation)
        log.log({"loss": torch.tensor(0.5, requires_grad=True), "nothing": float("nan")}, step=ROUNDS)
    begun, *rounds, own, ended = lines_of(tmp_path)
    assert (begun["event"], begun["name"], begun["config"]) == ("init", "mine", {"lr": 0.1})
    assert [line["step"] for line in rounds] == [1, 2, 3, 4]
    assert sum(line["round/up_wire_bytes"] for line in rounds) == simulation.traffic.up.wire_bytes
    assert sum(line["round/down_wire_bytes"] for line in rounds) == simulation.traffic.down.wire_bytes
    assert all(line["round/residual_norm"] > 0 for line in rounds)
    assert (own["loss"], own["nothing"], own["step"], ended["event"]) == (0.5, None, ROUNDS, "finish")


def test_a_log_that_goes_on_after_some_rounds_has_each_step_once(tmp_path):
    for start, rounds in ((0, 3), (2, 2)):  # the third round was not saved, and is run again
        simulation = small_simulation()
        simulation.driver.rounds = start
        with laconic.RunLog("jsonl", folder=tmp_path, start=start) as log:
            log.observe(simulation)
            train(simulation, rounds)
        with (tmp_path / FILE).open("a") as stream:
            stream.write('{"event": "log", "st')  # of a process that was killed while it wrote
    lines = (tmp_path / FILE).read_text().splitlines()[:-1]
    assert [json.loads(line).get("step") for line in lines] == [None, 1, 2, 3, 4, None]


def test_an_observer_that_raises_is_named_once_and_the_training_ends_with_the_same_bits(stated):
    expected = train(small_simulation())
    simulation, seen = small_simulation(), []

    def broken_observer(stats):
        raise KeyError("no such key")

    laconic.observe(simulation, broken_observer)
    laconic.observe(simulation, seen.append)
    assert torch.equal(train(simulation), expected)
    assert [stats.round for stats in seen] == [0, 1, 2, 3]
    (text,) = stated.messages
    assert "broken_observer raised KeyError: 'no such key' in round 0; training goes on without it" in text


def test_what_cannot_be_observed_is_refused():
    with pytest.raises(TypeError, match=r"job=.*must be a laconic\.DistributedOptimizer or a laconic\.Simulation"):
        laconic.observe(torch.nn.Linear(1, 1), print)
    with pytest.raises(TypeError, match="observer=3 must be a function"):
        laconic.observe(small_simulation(), 3)


def test_trackers_get_init_log_and_finish_in_their_public_shape(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "links")
    files = {name: install_tracker(monkeypatch, tmp_path, name) for name in ("wandb", "trackio")}
    simulation = small_simulation()
    with laconic.RunLog("wandb", "trackio", folder=tmp_path, name="a", group="b", config={"lr": 0.1}) as log:
        log.observe(simulation)
        train(simulation, 2)
    for name, own in (("wandb", {"group": "b", "dir": str(tmp_path)}), ("trackio", {})):
        calls = calls_in(files[name])
        project = {"wandb": "links", "trackio": "laconic"}[name]
        assert calls[0] == ("init", {"project": project, "name": "a", "config": {"lr": 0.1}, **own})
        assert [(call, arguments.get("step")) for call, arguments in calls[1:]] == [
            ("log", 1), ("log", 2), ("finish", None),
        ]  # fmt: skip
        sent = sum(arguments["values"]["round/up_wire_bytes"] for _, arguments in calls[1:-1])
        assert sent == simulation.traffic.up.wire_bytes


def test_a_log_that_fails_is_named_once_and_the_others_go_on(tmp_path, monkeypatch, stated):
    tracker = install_tracker(monkeypatch, tmp_path, "wandb")
    with laconic.RunLog("wandb", "jsonl", folder=tmp_path) as log:
        for step, fails in enumerate([0, 1, 0, 1], start=1):
            log.log({"fails": fails}, step)
    assert [line.get("step") for line in lines_of(tmp_path)] == [None, 1, 2, 3, 4, None]
    assert [name for name, _ in calls_in(tracker)] == ["init", "log"]
    assert stated.messages == ["log wandb: ConnectionError: the server is gone; training goes on without it"]


def test_logs_that_cannot_begin_are_refused_in_one_line_before_anything_is_trained(tmp_path, monkeypatch):
    install_tracker(monkeypatch, tmp_path, "wandb")
    monkeypatch.setattr("laconic.telemetry.logs.kinds.find_spec", lambda name: None if name == "trackio" else True)
    (tmp_path / "file").write_text("")
    cases = [
        (("jsonll",), {}, "must be one of jsonl, tensorboard, wandb, trackio; did you mean jsonl?"),
        (("jsonl",), {}, "log='jsonl' writes files, so it needs folder"),
        (("jsonl", "jsonl"), {"folder": tmp_path}, "is given twice"),
        (("trackio",), {}, "log='trackio' needs the package trackio, which is not installed: pip install trackio"),
        (("wandb",), {"config": {"model": "refused"}}, "log='wandb' did not start: RuntimeError: no API key"),
        (("jsonl",), {"folder": tmp_path / "file"}, "log='jsonl' did not start: FileExistsError"),
    ]
    for kinds, options, text in cases:
        with pytest.raises(OptionError) as error:
            laconic.RunLog(*kinds, **options)
        assert text in str(error.value), kinds
    with laconic.RunLog("jsonl", folder=tmp_path) as log, pytest.raises(TypeError, match="log: loss='high' must be"):
        log.log({"loss": "high"}, 1)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_reads_the_curves_and_hides_what_a_continued_run_writes_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with laconic.RunLog("tensorboard", folder=tmp_path, name="mine", config={"lr": 0.1}, start=start) as log:
            for step in steps:
                log.log({"epoch/test_accuracy": 10 * start + step}, step)
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert read.Tags()["scalars"] == ["epoch/test_accuracy"]
    assert [(event.step, event.value) for event in read.Scalars("epoch/test_accuracy")] == [
        (1, 1), (2, 2), (3, 23), (4, 24),
    ]  # fmt: skip
    assert "| lr | 0.1 |" in str(read.Tensors("settings/text_summary")[0].tensor_proto.string_val)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_event_files_that_cannot_be_written_are_named_once_without_a_traceback(tmp_path, stated, capfd):
    earlier = laconic.RunLog("tensorboard", folder=tmp_path / "earlier")
    with laconic.RunLog("tensorboard", folder=tmp_path) as log:
        log.log({"loss": 1.0}, 1)
        earlier.finish()
        shutil.rmtree(tmp_path / "tensorboard")
        for step in range(2, 300):  # a thread of the package finds it out
            log.log({"loss": 1.0}, step)
    (line,) = stated.messages
    assert line.startswith("log tensorboard: FileNotFoundError: ")
    assert line.endswith("; training goes on without it")
    assert "Traceback" not in capfd.readouterr().err


def logged_on_a_rank(rank, folder):
    parameter = torch.nn.Parameter(torch.zeros(5))
    opt = laconic.DistributedOptimizer(torch.optim.SGD([parameter], lr=0.1), laconic.ECSGD(), layout="rank0")
    with laconic.RunLog("jsonl", folder=f"{folder}/{rank}") as log:
        log.observe(opt)
        for _ in range(2):
            parameter.grad = torch.ones(5)
            opt.step()
    return opt.traffic.down.local_bytes


@pytest.mark.slow
def test_over_processes_rank_0_alone_logs_with_the_seconds_of_its_phases(tmp_path):
    run_ranks(logged_on_a_rank, 2, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    rounds = lines_of(tmp_path / "0")[1:-1]
    assert [line["step"] for line in rounds] == [1, 2]
    assert all({"round/compute_s", "round/wait_s"} <= line.keys() for line in rounds)
