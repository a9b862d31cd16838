"""The settings of one run, checked before anything starts.

Importing this file loads no torch, since the flags of `laconic run` are made from it.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from laconic.errors import Named, OptionError
from laconic.hyperparameters import as_settings, from_text
from laconic.lab.algorithms import make_algorithm
from laconic.lab.defaults import DECAY_AT, INNER_NAMES, SEED_BOUND, WARM_UP_FROM
from laconic.lab.options import PURE_NUMBER, listed, option
from laconic.lab.own_functions import FORM, described_functions, is_own
from laconic.lab.runs.method_and_data import OF_READING, MethodAndData
from laconic.lab.runs.option_texts import device_name
from laconic.lab.runs.warm_up import check_warm_up
from laconic.lab.starting_values import starting_learning_rate, starting_settings
from laconic.protocol.layout import choose_layout, n_nodes_for
from laconic.units import bandwidth, duration

if TYPE_CHECKING:
    from laconic.contract import Algorithm
    from laconic.faults.plan import FaultPlan
    from laconic.lab.runs.fault_file import FaultFile
    from laconic.network import Link

OF_PARTITION = {"shards_per_worker": "labels", "dirichlet_alpha": "dirichlet", "size_ratio": "unequal"}
OF_DATA = (
    "dataset", "data", "worker_data", "examples", *OF_READING, "workers", "batch_size", "seed", "partition",
    *OF_PARTITION,
)  # fmt: skip
"""Options that say which examples there are, and which worker has them."""
SIMULATED_ONLY = ("bandwidth", "latency", "compute", "faults")
_WHY_SIMULATED = dict.fromkeys(SIMULATED_ONLY, "use real links") | {"side_by_side": "compute at once anyway"}


def _rising_shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(word) for word in text.split(","))
    except ValueError:
        shares = ()
    if not shares or list(shares) != sorted(set(shares)) or not (shares[0] > 0 and shares[-1] < 1):
        raise ValueError(f"must be rising shares of the run between 0 and 1, such as {DECAY_AT}")
    return shares


@dataclass(frozen=True, kw_only=True)
class RunSettings(MethodAndData):
    """The options of `laconic run`, and those of `config.toml`."""

    epochs: int = option(10, "The number of passes over the data.", within="[1, inf)", unit="passes")
    batch_size: int = option(32, "The number of examples per worker and step.", within="[1, inf)", unit="examples")
    local_steps: int = option(
        1, "The number of local SGD steps per exchange.", within="[1, inf)", unit="steps", metavar="H",
        hint="1 exchanges after every step",
    )  # fmt: skip
    dense_epochs: float | None = option(
        None, "The number of first epochs that send dense vectors, one step per exchange.", within="(0, inf)",
        unit="epochs", metavar="E",
    )  # fmt: skip
    warm_up_density: float | None = option(
        None, "The density with which the --dense-epochs begin instead of dense vectors: it falls exponentially to the "
        "method's own.", within="(0, 1]", unit=PURE_NUMBER, metavar="SHARE",
    )  # fmt: skip
    lr: float | Literal["theory"] | None = option(
        None, "The learning rate of the inner optimizer; theory takes that of the method's theorem, where the task's "
        "L and sigma are known.", within="(0, inf)", unit=PURE_NUMBER, shown="the method's own",
        hint="leave it out for the method's own default",
    )  # fmt: skip
    lr_schedule: str = option(
        "constant", "How the learning rate changes: constant, cosine or step.", choices=("constant", "cosine", "step")
    )
    decay_at: str | None = option(
        None, "At which shares of the run `step` divides the learning rate by 10.", metavar="SHARES", shown=DECAY_AT,
        reads=_rising_shares,
    )  # fmt: skip
    warm_up_epochs: float | None = option(
        None, "The number of first epochs over which the learning rate rises.", within="(0, inf)", unit="epochs",
        metavar="E",
    )  # fmt: skip
    warm_up_from: float | None = option(
        None, "The share of the learning rate at which the warm-up starts.", within="(0, 1]", unit=PURE_NUMBER,
        metavar="SHARE", shown=f"{WARM_UP_FROM}",
    )  # fmt: skip
    weight_decay: float = option(
        0.0, "The weight decay of the inner optimizer: added after the exchange; or before it, in each local step, if "
        "the method exchanges changes or there are several local steps.", within="[0, inf)",
        unit=PURE_NUMBER,
    )  # fmt: skip
    inner: str | None = option(
        None, f"The inner optimizer, which makes a step of what the method returns: {listed(INNER_NAMES)}; or {FORM} "
        "of your own.", choices=INNER_NAMES, own=True, shown="sgd",
    )  # fmt: skip
    inner_set: dict[str, str] = option(
        {}, "Set one number of the inner optimizer, such as momentum=0.9. Can be given several times.",
        metavar="KEY=VALUE",
    )  # fmt: skip
    seed: int = option(
        0, "The seed of the data order, the initial parameters and all random draws.", within=f"[0, {SEED_BOUND - 1}]",
        unit=PURE_NUMBER,
    )  # fmt: skip
    partition: str = option(
        "resample",
        "How workers share the data: resample (a new split each epoch), fixed (one shard per worker), labels (shards "
        "of few classes), dirichlet (classes in random shares) or unequal (shards of unequal sizes).",
        choices=("resample", "fixed", "labels", "dirichlet", "unequal"),
    )
    shards_per_worker: int | None = option(
        None, "The number of shards of each worker, of the examples sorted by label.", within="[1, inf)",
        unit="shards", shown="2",
    )  # fmt: skip
    dirichlet_alpha: float | None = option(
        None, "How alike workers are with the partition dirichlet: small values give each class to few.",
        within="(0, inf)", unit=PURE_NUMBER, shown="0.5",
    )  # fmt: skip
    size_ratio: float | None = option(
        None, "The largest shard over the smallest with the partition unequal.", within="[1, inf)",
        unit=PURE_NUMBER, shown="4",
    )  # fmt: skip
    weights: str | None = option(
        None, "By what each worker counts: equal, or samples, the share of the examples that it has.",
        choices=("equal", "samples"), shown="equal",
    )  # fmt: skip
    clients_per_round: int | None = option(
        None, "The number of workers that take part in a round, chosen anew in each.",
        within="[1, inf)", unit="workers", metavar="K", shown="all",
    )  # fmt: skip
    bandwidth: str | None = option(
        None, "The bandwidth of each simulated link, such as 100Mbit.", metavar="BANDWIDTH", reads=bandwidth
    )
    latency: str | None = option(
        None, "The latency of each simulated link, such as 10ms.", metavar="TIME", reads=duration
    )
    compute: str | None = option(
        None, "The simulated time of one gradient, such as 50ms.", metavar="TIME", reads=duration
    )
    faults: str | None = option(None, "A fault plan: what goes wrong in the simulator.", metavar="FILE")
    device: str = option(
        "cpu", "Where the model and the data are: cpu, cuda (the GPUs of this machine in turn), or cuda:1.",
        metavar="DEVICE", reads=device_name,
    )  # fmt: skip
    threads: int = option(1, "The number of torch threads per process.", within="[1, inf)", unit="threads")
    kernel_threads: int = option(
        1, "The number of threads per process within a compiled kernel.", within="[1, inf)", unit="threads"
    )
    side_by_side: int | None = option(
        None, "The number of threads for the gradients of a simulation.", within="[1, inf)", unit="threads", shown="1"
    )
    timeout_s: float = option(
        60.0, "The number of seconds that a rank waits for another.", within="(0, inf)", unit="seconds"
    )
    record_times: bool = option(False, "Write to times.csv when each rank computes, encodes, waits and decodes.")

    def __post_init__(self) -> None:
        """Check all options.

        Raises:
            OptionError: An option is wrong. The message names the option, its value, its bound and the way out.
            ValueError: A hyper-parameter or the fault plan is wrong.
        """
        super().__post_init__()
        self._check_driver()
        self._check_device()
        self._check_learning_rate()
        self._check_kernel_threads()
        self._check_batch_norm()
        self._check_partition()
        check_warm_up(self)
        self._check_method()

    def _check_batch_norm(self) -> None:
        from laconic.lab.models import WITH_BATCH_NORM

        if self.model in WITH_BATCH_NORM and self.batch_size == 1:
            raise OptionError(
                Named("batch_size", 1), " must be at least 2 with ", Named("model", self.model),
                ", whose batch norm compares the examples of a batch",
            )  # fmt: skip

    def _check_partition(self) -> None:
        if self.worker_data:
            for name in ("dataset", "data", "partition", *OF_READING):
                if name != "allow_missing" and getattr(self, name) != getattr(RunSettings, name):
                    raise OptionError(
                        Named(name, getattr(self, name)), " does not go with ", Named("worker_data"),
                        ", by which workers have their data",
                    )  # fmt: skip
        if not self.has_examples and self.partition != RunSettings.partition:
            raise OptionError(
                Named("partition", self.partition), " is for tasks with examples; ", Named("task", self.task_name),
                " has none, so leave it out",
            )  # fmt: skip
        for name, kind in OF_PARTITION.items():
            if getattr(self, name) is not None and self.partition != kind:
                raise OptionError(
                    Named(name, getattr(self, name)), " is for ", Named("partition", kind), f", not {self.partition}"
                )

    def _check_driver(self) -> None:
        """Refuse options of the other driver."""
        if self.driver == "processes":
            for name, why in _WHY_SIMULATED.items():
                if (value := getattr(self, name)) is not None:
                    parts = Named(name, value), " is for ", Named("driver", "simulated"), f"; processes {why}"
                    raise OptionError(*parts)
        elif self.record_times:
            raise OptionError(
                Named("record_times", True), " is for ", Named("driver", "processes"),
                "; a simulated run's times follow from its links: see `laconic timeline`",
            )  # fmt: skip

    def _check_device(self) -> None:
        if self.device != "cpu":
            from laconic.lab.runs.device import check_device, gpus_here

            check_device(self.device, gpus_here())

    def _check_kernel_threads(self) -> None:
        from laconic.kernels.api import MAX_KERNEL_THREADS

        if self.kernel_threads > MAX_KERNEL_THREADS:
            bound = f" must be at most {MAX_KERNEL_THREADS}, this machine's cores"
            raise OptionError(Named("kernel_threads", self.kernel_threads), bound)

    def _check_learning_rate(self) -> None:
        """Refuse a warm-up or decays that do not fit the other options."""
        self._check_within_epochs("warm_up_epochs")
        if self.warm_up_from is not None and self.warm_up_epochs is None:
            raise OptionError(
                Named("warm_up_from", self.warm_up_from), " needs ", Named("warm_up_epochs"),
                ", over which the learning rate rises",
            )  # fmt: skip
        if self.decay_at is not None and self.lr_schedule != "step":
            raise OptionError(
                Named("decay_at", self.decay_at), " is for ", Named("lr_schedule", "step"), f", not {self.lr_schedule}"
            )

    def _check_within_epochs(self, name: str) -> None:
        value = getattr(self, name)
        if value is not None and value > self.epochs:
            raise OptionError(Named(name, value), " must be at most ", Named("epochs", self.epochs))

    def _check_method(self) -> None:
        """Refuse hyper-parameters, local steps, a layout or faults that the method does not admit."""
        from laconic.contract import ModelSpec
        from laconic.lab.inner_optimizers import check_momentum
        from laconic.training.local_steps import check_local_steps
        from laconic.training.side_by_side import check_side_by_side

        check_local_steps(self.method, self.local_steps)
        check_side_by_side(self.side_by_side or 1, self.method, self.local_steps, device=self.device)
        check_momentum(self.inner_kind, self.method)
        spec = ModelSpec.of_sizes(10**6)  # data are not read yet
        layout = choose_layout(self.layout, self.method, spec, n_nodes=self.n_processes)
        if self.fault_file is not None:
            self.fault_file.check(self.method, layout, self.workers, spec)
            self.fault_file.check_times(self.compute, self.bandwidth)
        if self.clients_per_round is not None:
            from laconic.protocol.participation import Participation

            part = Participation(workers=self.workers, per_round=self.clients_per_round, seed=self.seed)
            part.check(self.method, layout)
        if self.weights == "samples" and (
            (self.partition == "resample" and not self.worker_data) or self.method.is_asynchronous
        ):
            raise OptionError(
                Named("weights", "samples"), " is for workers with shards of their own and a method with rounds; take ",
                Named("partition", "unequal"), " or another with shards, or leave it out",
            )  # fmt: skip

    @cached_property
    def method(self) -> "Algorithm":
        """The algorithm with its hyper-parameters, made once."""
        started = {**starting_settings(self.algorithm, self.set), **self.set}
        return make_algorithm(self.algorithm, started, option="algorithm")

    def __getstate__(self) -> dict[str, Any]:
        """Return the options alone: another process makes its own algorithm, and reads its own fault plan."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def of_partition(self) -> dict[str, Any]:
        """The arguments of the partition."""
        own = {name: getattr(self, name) for name in OF_PARTITION if getattr(self, name) is not None}
        return {"n_workers": self.workers, "batch_size": self.batch_size, "seed": self.seed, **own}

    @property
    def warm_up_start(self) -> float:
        """The share of the learning rate at which the warm-up starts."""
        return WARM_UP_FROM if self.warm_up_from is None else self.warm_up_from

    @property
    def decay_shares(self) -> tuple[float, ...]:
        """The shares of the run at which the schedule "step" divides the learning rate by 10."""
        return _rising_shares(DECAY_AT if self.decay_at is None else self.decay_at)

    @property
    def n_processes(self) -> int:
        """The number of workers, plus 1 for a dedicated server."""
        return n_nodes_for(self.layout, self.method, self.workers)

    @property
    def learning_rate(self) -> float:
        """The given learning rate, or plain SGD's times the method's factor.

        That of a theorem needs the task's constants: see `Experiment.learning_rate`.
        """
        assert self.lr != "theory"
        return self.default_learning_rate if self.lr is None else self.lr

    @property
    def default_learning_rate(self) -> float:
        """Plain SGD's learning rate times the method's factors, or the usual one of another inner optimizer."""
        usual: float | None = self.inner_kind.usual_lr
        return starting_learning_rate(self.method) if usual is None else usual

    @cached_property
    def inner_kind(self) -> Any:  # noqa: ANN401 - a dataclass of `laconic.lab.inner_optimizers`
        """The kind of the inner optimizer with its numbers, made once."""
        from laconic.lab.inner_optimizers import INNER, OwnInner

        name = self.inner or "sgd"
        return (
            OwnInner(text=name, settings=self.inner_set)
            if is_own(name)
            else from_text(INNER[name], self.inner_set, name)
        )

    @property
    def _inner_settings(self) -> dict[str, str]:
        """The numbers of the inner optimizer as texts; none of plain SGD, whose settings are those of all old runs."""
        if is_own(self.inner):
            return self.inner_set
        return as_settings(self.inner_kind) if self.inner or self.inner_set else {}

    def described_functions(self) -> dict[str, int]:
        """Return a hash of the file of each function of the user's own."""
        return described_functions({name: getattr(self, name) for name in ("dataset", "model", "task", "inner")})

    @property
    def takes_part(self) -> int:
        """The number of workers that take part in a round."""
        return self.workers if self.clients_per_round is None else self.clients_per_round

    def link(self) -> "Link":
        """Return the simulated link of every node."""
        from laconic.network import Link

        bytes_per_s = {} if self.bandwidth is None else {"bytes_per_s": bandwidth(self.bandwidth)}
        latency = {} if self.latency is None else {"latency_s": duration(self.latency)}
        return Link(**bytes_per_s, **latency)

    @cached_property
    def fault_file(self) -> "FaultFile | None":
        """The file with the fault plan, read once; None without `faults`.

        Raises:
            OptionError: The file is not a valid fault plan.
            OSError: The file cannot be read.
        """
        from laconic.lab.runs.fault_file import FaultFile

        return None if self.faults is None else FaultFile(self.faults)

    @property
    def fault_plan(self) -> "FaultPlan | None":
        """The fault plan; None without `faults`."""
        return None if self.fault_file is None else self.fault_file.plan

    def compute_s(self) -> float:
        """Return the simulated time of one gradient, in seconds."""
        return 0.0 if self.compute is None else duration(self.compute)

    def as_data(self) -> dict[str, Any]:
        """Return the content of `config.toml`: all options that are set, the learning rate and all hyper-parameters."""
        hyperparameters = self.method.settings()
        if self.dense_epochs is not None:
            del hyperparameters["dense_rounds"]  # follows from the epochs and the data
        if self.warm_up_density is not None:
            del hyperparameters["warm_up_density"]
        data = dataclasses.asdict(self) | {"set": hyperparameters}
        data["lr"] = "theory" if self.lr == "theory" else self.learning_rate
        data["task_set"] = self.task_settings or None
        data["inner_set"] = self._inner_settings or None
        data["worker_data"] = self.worker_data or None
        if not self.task_kind.takes_data or self.worker_data:
            del data["dataset"]
        if not self.task_kind.takes_model:
            del data["model"]
        if self.lr_schedule == "step":
            data["decay_at"] = self.decay_at or DECAY_AT
        if self.warm_up_epochs is not None:
            data["warm_up_from"] = self.warm_up_start
        if self.data is not None:
            data["data"] = str(Path(self.data))
        return {key: value for key, value in data.items() if value is not None}
