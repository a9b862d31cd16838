"""Local steps, dense epochs, warm-ups and decays: what is refused, what each step's learning rate is, what is
counted.
"""

import json
from dataclasses import replace

import pytest

import laconic
from laconic.kernels.cpu import threads
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.files import write_record
from laconic.lab.runs.launch import run_in_processes
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from support.deadlines import PATIENCE_S

# 1437 digits: 5 steps an epoch
SMALL = RunSettings(algorithm="sgd", model="linear", workers=2, batch_size=140, epochs=4, lr=1.0)


def ignore_progress(progress):
    pass


def learning_rates(**options):
    """The learning rate of every step of a run."""
    experiment = Experiment(replace(SMALL, **options))
    lr_schedule = experiment.scheduler()
    found = []
    for _ in range(experiment.steps):
        found.append(experiment.inner.param_groups[0]["lr"])
        experiment.inner.step()
        lr_schedule.step()
    return found


def test_the_step_lr_schedule_divides_by_ten_at_half_and_three_quarters_of_the_run():
    assert learning_rates(lr_schedule="step") == pytest.approx([1.0] * 10 + [0.1] * 5 + [0.01] * 5)


def test_decays_come_where_they_are_asked_for():
    assert learning_rates(lr_schedule="step", decay_at="0.9") == pytest.approx([1.0] * 18 + [0.1] * 2)


def test_a_warm_up_rises_in_even_steps_from_its_share_to_the_learning_rate():
    assert learning_rates(warm_up_epochs=1) == pytest.approx([0.2, 0.36, 0.52, 0.68, 0.84] + [1.0] * 15)
    assert learning_rates(warm_up_epochs=0.4, warm_up_from=0.5) == pytest.approx([0.5, 0.75] + [1.0] * 18)


def test_a_warm_up_and_an_lr_schedule_multiply():
    cosine, ramped = (
        learning_rates(lr_schedule="cosine"),
        learning_rates(lr_schedule="cosine", warm_up_epochs=1, warm_up_from=0.2),
    )
    warm_up_steps = learning_rates(warm_up_epochs=1, warm_up_from=0.2)
    assert ramped == pytest.approx(
        [learning_rate * share for learning_rate, share in zip(cosine, warm_up_steps, strict=True)]
    )


REFUSED = {
    "no local steps": ({"local_steps": 0}, "local_steps=0 must be at least 1"),
    "local steps of a method that needs gradients": (
        {"algorithm": "lasg", "local_steps": 2}, "lasg needs the gradient itself"),
    "dense epochs of a method without them": (
        {"dense_epochs": 1}, "dense_epochs=1: sgd has no dense rounds; leave it out, or take one of ssgd-mv"),
    "dense epochs and dense rounds": (
        {"algorithm": "ssgd-mv", "dense_epochs": 1, "set": {"dense_rounds": "3"}}, "give one of them"),
    "more dense epochs than epochs": (
        {"algorithm": "ssgd-mv", "dense_epochs": 5}, "dense_epochs=5 must be at most epochs=4"),
    "a warm-up of nothing": ({"warm_up_epochs": 0}, "warm_up_epochs=0 must be above 0"),
    "a warm-up longer than the run": ({"warm_up_epochs": 4.5}, "warm_up_epochs=4.5 must be at most epochs=4"),
    "a warm-up that falls": ({"warm_up_epochs": 1, "warm_up_from": 1.5},
        "warm_up_from=1.5 must be in (0, 1]"),
    "a warm-up without its length": ({"warm_up_from": 0.5},
        "warm_up_from=0.5 needs warm_up_epochs"),
    "decays of a schedule that has none": ({"decay_at": "0.5"},
        "decay_at='0.5' is for lr_schedule='step', not constant"),
    "decays that are no shares": ({"lr_schedule": "step", "decay_at": "30,60"}, "decay_at='30,60' must be rising"),
    "decays that fall": ({"lr_schedule": "step", "decay_at": "0.7,0.5"}, "decay_at='0.7,0.5' must be rising"),
    "decays that are no numbers": ({"lr_schedule": "step", "decay_at": "half"}, "decay_at='half' must be rising"),
    "no kernel thread": ({"kernel_threads": 0}, "kernel_threads=0 must be at least 1"),
    "more kernel threads than cores": ({"kernel_threads": 10**6}, "kernel_threads=1000000 must be at most"),
    "threads for models that differ": (
        {"algorithm": "dsgd", "side_by_side": 2}, "side_by_side=2: the workers of dsgd have models of their own"),
    "threads for processes": (
        {"driver": "processes", "side_by_side": 2},
        "side_by_side=2 is for driver='simulated'; processes compute at once anyway"),
    "an unknown schedule": ({"lr_schedule": "stpe"}, "did you mean step"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_options_that_cannot_be_are_refused_by_name(mistake):
    options, words = REFUSED[mistake]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked at below
        replace(SMALL, **options)
    assert words in str(caught.value)


def test_gradients_in_threads_give_the_same_record():
    small = replace(SMALL, epochs=1, algorithm="compskip")
    one, other = (run_simulated(replace(small, side_by_side=n), ignore_progress) for n in (None, 2))
    assert [row.train_loss for row in one.rows] == [row.train_loss for row in other.rows]
    assert one.traffic.as_data() == other.traffic.as_data()


def test_a_run_sets_the_kernel_threads_of_its_process(monkeypatch):
    monkeypatch.setattr("laconic.kernels.api.MAX_KERNEL_THREADS", 3)
    monkeypatch.setattr(threads, "MAX_KERNEL_THREADS", 3)
    run_simulated(replace(SMALL, epochs=1, kernel_threads=3), ignore_progress)
    assert laconic.kernel_threads() == 3
    run_simulated(replace(SMALL, epochs=1), ignore_progress)
    assert laconic.kernel_threads() == 1


def test_a_round_has_the_local_steps_and_a_dense_round_has_one():
    options = {"algorithm": "ssgd-mv", "local_steps": 3, "dense_epochs": 1.0}
    record = run_simulated(replace(SMALL, **options), ignore_progress)
    assert record.dense_rounds == 5
    assert record.traffic.rounds == 5 + 15 // 3
    assert record.traffic.up_by_exchange["dense"].messages == 2 * 5
    assert record.traffic.up_by_exchange["values"].messages == 2 * 5
    assert [row.round for row in record.rows] == [5, 6, 8, 10]


def test_bits_a_round_take_dense_rounds_into_account():
    options = {"algorithm": "ssgd-mv", "local_steps": 3, "dense_epochs": 1.0}
    bits = run_simulated(replace(SMALL, **options), ignore_progress).summary()["bits_per_worker_and_round"]
    assert bits["paper_up"] == pytest.approx(bits["expected_paper_up"])
    assert bits["paper_down"] == pytest.approx(bits["expected_paper_down"])


def test_config_and_summary_hold_what_was_asked_for_and_traffic_by_exchange(tmp_path):
    options = {
        "algorithm": "ssgd-mv",
        "local_steps": 2,
        "dense_epochs": 0.4,
        "warm_up_epochs": 1.0,
        "lr_schedule": "step",
    }
    settings = replace(SMALL, epochs=1, **options)
    write_record(tmp_path, run_simulated(settings, ignore_progress))
    summary = json.loads((tmp_path / "summary.json").read_text())
    message = summary["settings"]
    assert {key: message[key] for key in ("local_steps", "dense_epochs", "warm_up_epochs", "warm_up_from",
        "decay_at")} == {
        "local_steps": 2, "dense_epochs": 0.4, "warm_up_epochs": 1.0, "warm_up_from": 0.2, "decay_at": "0.5,0.75",
    }  # fmt: skip
    assert "dense_rounds" not in message["set"]
    assert summary["dense_rounds"] == 2
    assert set(summary["traffic"]["up_by_exchange"]) == {"dense", "positions", "values"}
    again = {key: value for key, value in message.items() if key != "set"} | {"set": message["set"]}
    assert RunSettings(**again).as_data() == message


@pytest.mark.slow
def test_processes_report_what_the_simulator_does_with_local_steps_and_with_two_gradients():
    """The epoch's end is in the middle of a round: both look at the parameters of the last exchange."""
    plans = [
        replace(
            SMALL,
            driver="processes",
            timeout_s=PATIENCE_S,
            epochs=2,
            layout="rank0",
            lr=0.3,
            kernel_threads=min(2, threads.MAX_KERNEL_THREADS),
            **options,
        )
        for options in (
            {"algorithm": "ssgd-mv", "local_steps": 3, "dense_epochs": 0.4},
            {"algorithm": "lasg", "set": {"warm_up_rounds": "1"}},
        )
    ]
    in_processes = run_in_processes(plans, ignore_progress)
    for plan, other in zip(plans, in_processes, strict=True):
        ours = run_simulated(replace(plan, driver="simulated"), ignore_progress)
        assert [row.test_accuracy for row in other.rows] == [row.test_accuracy for row in ours.rows]
        assert [row.train_loss for row in other.rows] == pytest.approx([row.train_loss for row in ours.rows])
        assert (other.traffic.up, other.traffic.down) == (ours.traffic.up, ours.traffic.down)
        assert other.dense_rounds == ours.dense_rounds
