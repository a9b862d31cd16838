"""The inner optimizer of a run by name: what makes a step of the direction that an exchange returns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from laconic.contract import Algorithm
from laconic.errors import Named, OptionError
from laconic.hyperparameters import check_hyperparameters, hyperparameter
from laconic.lab.own_functions import call, takes, wrong_result


@dataclass(frozen=True, kw_only=True)
class InnerSGD:
    """x - lr times the direction, with heavy-ball or Nesterov momentum."""

    usual_lr: ClassVar[float | None] = None  # that of the method

    momentum: float = hyperparameter(0.0, "mu of the momentum", within="[0, 1)")
    nesterov: bool = hyperparameter(False, "whether the momentum is Nesterov's")

    def __post_init__(self) -> None:
        check_hyperparameters(self, "sgd")
        if self.nesterov and not self.momentum:
            raise ValueError("sgd: nesterov=true needs a momentum above 0, such as momentum=0.9")

    def made(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Return the optimizer."""
        return SGD(model.parameters(), lr=lr, weight_decay=weight_decay, momentum=self.momentum, nesterov=self.nesterov)


@dataclass(frozen=True, kw_only=True)
class InnerAdamW:
    """Adam with weight decay apart from the gradient (arXiv 1711.05101)."""

    usual_lr: ClassVar[float | None] = 1e-3

    beta1: float = hyperparameter(0.9, "beta_1, of the mean of gradients", within="[0, 1)")
    beta2: float = hyperparameter(0.999, "beta_2, of the mean of squares", within="[0, 1)")
    eps: float = hyperparameter(1e-8, "what is added to the root of the mean of squares", within="(0, inf)")

    def __post_init__(self) -> None:
        check_hyperparameters(self, "adamw")

    def made(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Return the optimizer."""
        return _adamw(model.parameters(), lr, weight_decay, self)


@dataclass(frozen=True, kw_only=True)
class InnerMuon:
    """Momentum made orthogonal, for matrices; AdamW for all other parameters."""

    usual_lr: ClassVar[float | None] = 1e-3

    momentum: float = hyperparameter(0.95, "mu of the Nesterov momentum of matrices", within="[0, 1)")
    ns_steps: int = hyperparameter(5, "the number of Newton-Schulz iterations", within="[1, 99]")

    def __post_init__(self) -> None:
        check_hyperparameters(self, "muon")
        if not hasattr(torch.optim, "Muon"):
            raise OptionError(
                Named("inner", "muon"),
                f": torch {torch.__version__} has no Muon, which came with torch 2.9; take adamw",
            )

    def made(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Return the optimizer.

        Raises:
            OptionError: The model has no matrices.
        """
        matrices = [each for each in model.parameters() if each.dim() == 2]
        if not matrices:
            raise OptionError(Named("inner", "muon"), " is for matrices, and the model has none; take adamw")
        return MatricesByMuon(
            matrices, [each for each in model.parameters() if each.dim() != 2], lr=lr, weight_decay=weight_decay,
            settings=self,
        )  # fmt: skip


class MatricesByMuon(Optimizer):
    """Muon for matrices and AdamW for the rest, as one optimizer with two parameter groups.

    Muon's steps are scaled to the size of AdamW's, so that one learning rate fits both (arXiv 2502.16982).
    """

    def __init__(
        self, matrices: list[nn.Parameter], others: list[nn.Parameter], *, lr: float, weight_decay: float,
        settings: InnerMuon,
    ) -> None:  # fmt: skip
        """Set up the two."""
        muon = torch.optim.Muon(
            matrices, lr=lr, weight_decay=weight_decay, momentum=settings.momentum, ns_steps=settings.ns_steps,
            adjust_lr_fn="match_rms_adamw",
        )  # fmt: skip
        self._parts: list[Optimizer] = [muon]
        if others:
            self._parts.append(_adamw(others, lr, weight_decay, InnerAdamW()))
        super().__init__([group for part in self._parts for group in part.param_groups], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ANN401 - torch's own signature
        """Take a step of both, with the groups and the state that are here now."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss


@dataclass(frozen=True, kw_only=True)
class OwnInner:
    """The optimizer of `module:function`, with the texts of `inner_set` as further arguments."""

    usual_lr: ClassVar[float | None] = None

    text: str
    settings: Mapping[str, str]

    def made(self, model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
        """Call the function with the parameters, and with the learning rate if it has an argument `lr`.

        Raises:
            OptionError: It cannot be found, raises, or returns something else.
        """
        if weight_decay:
            raise OptionError(
                Named("weight_decay", weight_decay), " is for the optimizers by name; ", Named("inner", self.text),
                " has its own, so leave it out",
            )  # fmt: skip
        given: dict[str, object] = dict(self.settings)
        if "lr" in takes(self.text, "inner"):
            given["lr"] = lr
        parameters = list(model.parameters())
        inner = call(self.text, "inner", parameters, **given)
        if not isinstance(inner, Optimizer):
            raise wrong_result(self.text, "inner", inner, "a torch.optim.Optimizer of the parameters that it gets")
        held = {id(each) for group in inner.param_groups for each in group["params"]}
        if not any("lr" in group for group in inner.param_groups) or held != {id(each) for each in parameters}:
            raise OptionError(
                Named("inner", self.text), " returned an optimizer of other parameters than those it got, or without "
                "a learning rate 'lr'",
            )  # fmt: skip
        return inner


# Name -> kind. The first line of a kind's docstring says what it does; its hyper-parameters are the keys of
# --inner-set, and `usual_lr` is its learning rate where that of the method is for plain SGD.
INNER: dict[str, type] = {"sgd": InnerSGD, "adamw": InnerAdamW, "muon": InnerMuon}


def check_momentum(kind: object, algorithm: Algorithm) -> None:
    """Refuse momentum inside for a method that has momentum of its own.

    Raises:
        OptionError: It says how to leave either out.
    """
    inside, own = getattr(kind, "momentum", 0.0), getattr(algorithm, "momentum", 0.0)
    if isinstance(kind, InnerSGD) and inside and own:
        raise OptionError(
            Named("inner_set"), f" momentum={inside:g}: {algorithm.name} has momentum of its own ({own:g}); leave it "
            "out, or give ", Named("set"), " momentum=0 too",
        )  # fmt: skip


def _adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float,
           settings: InnerAdamW) -> Optimizer:  # fmt: skip
    return torch.optim.AdamW(
        parameters, lr=lr, betas=(settings.beta1, settings.beta2), eps=settings.eps, weight_decay=weight_decay
    )
