"""Train a run in the simulator and look at it every few steps: the totals of its traffic, its accuracy, its clock."""

import hashlib
import time
from typing import Any

import torch

from laconic.lab.processes.pool import Figures, Reporter
from laconic.lab.runs.accuracy import in_simulation
from laconic.lab.runs.divergence import EpochEnd, why_diverged
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.settings import RunSettings
from laconic.statements import mark_stated
from laconic.training.second_gradient import called_twice
from laconic.training.simulation import Simulation


def train_with_looks(report: Reporter, settings: RunSettings, look_every: int, target: float | None = None) -> Figures:
    """Train until the epochs end, or a look reaches the target.

    Args:
        report: Gets the progress.
        settings: The run.
        look_every: Steps between two looks.
        target: The test accuracy at which training ends.

    Returns:
        "looks", with totals over all workers since the start; "diverged", why the run diverged, or None;
        "parameters_hash", a number that differs where the last parameters do; "seconds" of this machine; "traffic".
    """
    experiment = Experiment(settings)
    mark_stated(called_twice(experiment.algorithm))  # the loss has no state of its own
    simulation = Simulation(
        experiment.model, experiment.inner, experiment.algorithm, workers=settings.workers, layout=settings.layout,
        local_steps=settings.local_steps, seed=settings.seed, link=settings.link(), compute_s=settings.compute_s(),
        faults=settings.fault_plan, lr="kept",
    )  # fmt: skip
    lr_schedule = experiment.scheduler()
    looks: list[dict[str, Any]] = []
    start = time.perf_counter()
    loss, accuracy = 0.0, 0.0
    report(0, experiment.steps, "")
    for step in range(experiment.steps):
        losses = simulation.step(lambda rank, step=step: experiment.loss(rank, step))  # type: ignore[misc]
        loss += sum(losses) / len(losses)
        done = step + 1
        if done == experiment.steps:
            simulation.exchange_steps()  # fewer than local_steps may be left
        lr_schedule.step()
        if done % look_every == 0 or done == experiment.steps:
            judged = in_simulation(simulation, experiment)
            accuracy = judged.test or 0.0  # of what classifies nothing
            since = done - (looks[-1]["step"] if looks else 0)
            measured = {"test_accuracy": accuracy, "gap": judged.gap, "train_loss": loss / since}
            looks.append({"step": done, "epoch": done / experiment.steps_per_epoch, **measured, **_totals(simulation)})
            loss = 0.0
        report(done, experiment.steps, f"accuracy {accuracy:.2%}")
        if target is not None and accuracy >= target:
            break
    return {
        "looks": looks,
        "diverged": _why_diverged(looks, experiment),
        "parameters_hash": _hash_of(simulation),
        "seconds": time.perf_counter() - start,
        "traffic": simulation.traffic.as_data(),
    }


def _totals(simulation: Simulation) -> dict[str, Any]:
    traffic = simulation.traffic
    up, down = traffic.up, traffic.down
    return {
        "round": traffic.rounds, "aborted_rounds": simulation.driver.aborted_rounds,
        "uploads": up.messages - up.skip_messages, "skips": up.skips,
        "skips_down": down.skips, "paper_bits": up.paper_bits, "payload_bits": up.payload_bits,
        "wire_bytes": up.wire_bytes, "encoded_bytes": up.wire_bytes + up.local_bytes,
        "down_wire_bytes": down.wire_bytes, "seconds": simulation.driver.clock.now_ns / 1e9,
    }  # fmt: skip


def _why_diverged(looks: list[dict[str, Any]], experiment: Experiment) -> str | None:
    ends = [
        EpochEnd(
            rounds=look["round"], aborted=look["aborted_rounds"], loss=look["train_loss"],
            accuracy=look["test_accuracy"],
        )
        for look in looks
    ]  # fmt: skip
    return why_diverged(ends, experiment.guess())


def _hash_of(simulation: Simulation) -> int:
    """Return 48 bits of a hash of all parameters, which a JSON file holds exactly."""
    digest = hashlib.sha256()
    for parameter in simulation.model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest()[:6], "big")
