"""Looks at a simulated run every few steps: the totals of its traffic, its accuracy, its clock."""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from laconic.drivers.gathered import misfit
from laconic.lab.runs.accuracy import in_simulation
from laconic.lab.runs.course import NOTHING, Seen, StepOfRun
from laconic.lab.runs.divergence import EpochEnd, why_diverged
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.gradient_norms import GradientNorms
from laconic.training.simulation import Simulation


@dataclass(frozen=True, kw_only=True)
class LookPlan:
    """When a run is looked at."""

    every: int
    """Steps between two looks. There is one at the end too."""
    target: float | None = None
    """The test accuracy at which the run ends."""

    def course(self, experiment: Experiment, simulation: Simulation) -> "LookCourse":
        """Return what looks at this run."""
        return LookCourse(self, experiment, simulation)


class LookCourse:
    """Looks at a run, and ends it at a target."""

    SCHEMA: ClassVar = {"looks": [{str: int | float | None}], "loss": float, "norms": GradientNorms.SCHEMA}
    """What `saved` returns."""

    def __init__(self, plan: LookPlan, experiment: Experiment, simulation: Simulation) -> None:
        """Begin without a look."""
        self._plan, self._experiment, self._simulation = plan, experiment, simulation
        self._looks: list[dict[str, Any]] = []
        self._loss = 0.0  # the sum since the last look
        self._norms = GradientNorms(experiment)
        self.is_over = False
        """Whether the target is reached."""

    def before_step(self) -> None:
        """Measure the gradient, if the task does so."""
        self._norms.note_simulated()

    def after_step(self, at: StepOfRun) -> Seen:
        """Look, if it is time to."""
        self._loss += at.loss
        if at.step % self._plan.every and not at.is_over:
            return NOTHING
        judged = in_simulation(self._simulation, self._experiment)
        accuracy = judged.test or 0.0  # of what classifies nothing
        since = at.step - (self._looks[-1]["step"] if self._looks else 0)
        look = {
            "step": at.step, "epoch": at.step / self._experiment.steps_per_epoch, "test_accuracy": accuracy,
            "gap": judged.gap, "train_loss": self._loss / since, **_totals(self._simulation),
        }  # fmt: skip
        if (mean := self._norms.mean) is not None:
            look["mean_squared_gradient"] = mean  # of all steps so far
        self._looks.append(look)
        self._loss = 0.0
        self.is_over = self._plan.target is not None and accuracy >= self._plan.target
        return Seen(look=look)

    def saved(self) -> dict[str, Any]:
        """Return the looks so far."""
        return {
            "looks": [dict(look) for look in self._looks], "loss": float(self._loss), "norms": self._norms.saved()
        }  # fmt: skip

    def restore(self, saved: object) -> None:
        """Go on with earlier looks. Raises ValueError for what `saved` did not return."""
        if problem := misfit(saved, self.SCHEMA, "its looks"):
            raise ValueError(problem)
        assert isinstance(saved, dict)
        self._looks, self._loss = list(saved["looks"]), saved["loss"]
        self._norms.restore(saved["norms"])

    def figures(self, seconds: float) -> dict[str, Any]:
        """Return what there is to know of the run at its end, which has taken so many seconds of this machine."""
        return {
            "looks": self._looks, "diverged": self._why_diverged(), "parameters_hash": _hash_of(self._simulation),
            "seconds": seconds, "traffic": self._simulation.traffic.as_data(),
        }  # fmt: skip

    def _why_diverged(self) -> str | None:
        ends = [
            EpochEnd(
                rounds=look["round"], aborted=look["aborted_rounds"], loss=look["train_loss"],
                accuracy=look["test_accuracy"],
            )
            for look in self._looks
        ]  # fmt: skip
        return why_diverged(ends, self._experiment.guess())


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


def _hash_of(simulation: Simulation) -> int:
    """Return 48 bits of a hash of all parameters, which a JSON file holds exactly."""
    digest = hashlib.sha256()
    for parameter in simulation.model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest()[:6], "big")
