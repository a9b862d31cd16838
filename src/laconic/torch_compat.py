"""The private and undocumented names of torch that laconic uses. No other file uses any.

Comments say why each is needed, and since which version torch has it. laconic supports torch 2.8 and later.
"""

from __future__ import annotations

import datetime
import functools
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim import optimizer as optimizers

if dist.is_available():
    # As in torch.distributed, where type checkers do not see them. Since 1.8.
    from torch._C._distributed_c10d import GradBucket as GradBucket
    from torch._C._distributed_c10d import PrefixStore as PrefixStore
    from torch._C._distributed_c10d import Store as Store
    from torch._C._distributed_c10d import TCPStore as TCPStore

    # What `dist.isend`, `dist.irecv` and `dist.all_reduce` end in, after ten calls or more that look up a group which
    # the channel has at hand. Of (group, [tensor], rank in the group, tag), without the rank of any sender, and of
    # (group, [tensor]). Since 1.13.
    post_send, post_receive = dist.ProcessGroup.send, dist.ProcessGroup.recv
    post_receive_from_any, post_sum = dist.ProcessGroup.recv_anysource, dist.ProcessGroup.allreduce


def default_store() -> Store:
    """Return the store that the default process group was made with. Raises ValueError if there is no group."""
    # Ranks that give up report to each other when no collective call works any more. No public function returns the
    # store that the user's own call has made. Since 1.8.
    return dist.distributed_c10d._get_default_store()


def open_store(host: str, port: int, timeout_s: float) -> TCPStore:
    """Open a store of this process that listens at this address only. A port of 0 takes a free one.

    Raises OSError if the address cannot be used.
    """
    # By itself the store listens on every interface, whatever host it is given. It takes over a socket since 1.13; it
    # then closes it, too.
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
        port = listening.getsockname()[1]
    except OSError:
        listening.close()
        raise
    timeout = datetime.timedelta(seconds=timeout_s)
    return TCPStore(
        host, port, is_master=True, wait_for_workers=False, timeout=timeout, master_listen_fd=listening.detach()
    )


def timeout_s_of(group: dist.ProcessGroup | None) -> float:
    """Return how long the operations of a process group wait, seconds; torch's default where the group does not say."""
    # Users choose it once, in init_process_group. No public function returns it. Since 2.1.
    group = dist.group.WORLD if group is None else group
    assert group is not None
    for device in ("cpu", "cuda"):
        try:
            timeout: datetime.timedelta = group._get_backend(torch.device(device)).options._timeout
            return timeout.total_seconds()
        except (RuntimeError, AttributeError):
            continue
    return dist.distributed_c10d.default_pg_timeout.total_seconds()


def new_named_group(ranks: Sequence[int], backend: str, name: str, timeout: datetime.timedelta) -> dist.ProcessGroup:
    """Make a group of global ranks, this one among them, under a name that no group had before. Collective over them.

    Raises RuntimeError if a rank does not come in time.
    """
    # `dist.new_group` derives the names of smaller groups from the number of groups that a process has now. Where a
    # group was destroyed, a name comes again, and its ranks meet at addresses that are gone. Since 1.8, with these
    # arguments since 2.4.
    c10d, world = dist.distributed_c10d, dist.group.WORLD
    place = list(ranks).index(dist.get_rank())
    device = None if backend == "gloo" or world is None else bound_device(world)
    make: Any = c10d._new_process_group_helper  # the name is a text in older versions, and a NewType of one since
    group: dist.ProcessGroup = make(
        len(ranks), place, list(ranks), dist.Backend(backend), default_store(), name, timeout=timeout, device_id=device
    )[0]
    c10d._world.pg_group_ranks[group] = {rank: place for place, rank in enumerate(ranks)}
    return group


def source_rank(work: dist.Work) -> int:
    """Return the rank of the group that a finished receive from any rank has received from."""
    # `dist.recv` returns it, but waits without a deadline; it uses this name itself. Since 1.0.
    return work._source_rank()


def bound_device(group: dist.ProcessGroup) -> torch.device | None:
    """Return the GPU that the user has bound this rank to, by init_process_group(device_id=...); None without one."""
    # If there is one, NCCL splits smaller groups from the world's, in which every rank must take part. Since 2.3.
    return group.bound_device_id


def version_of(tensor: Tensor) -> int:
    """Return how often the tensor was changed in place."""
    # Shows whether a vector that workers share, or lend to a server, is unchanged. Autograd counts it. Since 0.4.
    return tensor._version


def note_step(inner: Optimizer) -> None:
    """Make learning-rate schedulers believe that the optimizer has stepped."""
    # They warn if it has not; with some methods its own `step` is never called. Since 2.4.
    inner._opt_called = True  # type: ignore[attr-defined]


def has_step_hooks(inner: Optimizer) -> bool:
    """Return whether hooks of the user run before or after each step, of this optimizer or of all."""
    # torch has functions to register hooks, but none to list them. Since 2.0; those of all optimizers since 2.1.
    own = inner._optimizer_step_pre_hooks or inner._optimizer_step_post_hooks
    return bool(own or optimizers._global_optimizer_pre_hooks or optimizers._global_optimizer_post_hooks)


def has_gradient_hooks(parameter: Tensor) -> bool:
    """Return whether hooks of the user run after each accumulation of its gradient."""
    # torch has a function to register hooks, but none to list them. Since 2.1.
    return bool(parameter._post_accumulate_grad_hooks)


def apply_as_step(inner: Optimizer, apply: Callable[[], None]) -> None:
    """Call `apply`, which stands for a step of `inner`, between the hooks of the user."""
    # torch wraps each class's `step` by this function, which no page names. Since 1.5.
    if has_step_hooks(inner):
        Optimizer.profile_hook_step(lambda _: apply())(inner)
    else:
        apply()


def step_unobserved(optimizer: Optimizer) -> None:
    """Take a step without hooks: of an optimizer that the user does not know."""
    # The mark of a `step` that is wrapped as above. Since 1.5.
    step = type(optimizer).step
    (step.__wrapped__ if getattr(step, "hooked", False) else step)(optimizer)  # type: ignore[attr-defined]


def take_step(inner: Optimizer) -> None:
    """Let the user's optimizer take a step, as `inner.step()` does."""
    # What torch puts around each step for hooks and profilers takes as many calls as the step, also where there are
    # none. Schedulers want to know of it. `_profiler_enabled` since 1.12.
    if has_step_hooks(inner) or step_is_replaced(inner) or torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
        inner.step()
    else:
        note_step(inner)
        step_unobserved(inner)


add_to_each = torch._foreach_add_
"""`add_to_each(tensors, others, alpha=a)`: tensor.add_(other, alpha=a) for each, in one call. Since 1.9."""

P = ParamSpec("P")
R = TypeVar("R")


def opaque(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that torch.compile does not look into."""
    # As torch.compiler.disable, but without importing the compiler, which takes seconds. Since 2.1. Where nothing is
    # being compiled the function is called as it is, which takes a third of the calls. Since 2.5.
    disabled: Callable[P, R] = torch._disable_dynamo(function)  # type: ignore[attr-defined]
    compiler = torch._C._dynamo.eval_frame.get_eval_frame_callback

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_dynamo_compiling() or compiler() is not None:
            return disabled(*args, **kwargs)
        return function(*args, **kwargs)

    return outside


def without_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function in which autograd records nothing."""
    # As torch.no_grad, whose own decorator makes two objects a call and asks the mode four times. Since 1.0.
    set_mode = torch._C._set_grad_enabled

    @functools.wraps(function)
    def quiet(*args: P.args, **kwargs: P.kwargs) -> R:
        before = torch.is_grad_enabled()
        set_mode(False)
        try:
            return function(*args, **kwargs)
        finally:
            set_mode(before)

    return quiet


NAME_PARTS_OF_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What torch.compile and activation checkpointing add to the names of parameters."""


def compiled_module(model: torch.nn.Module) -> torch.nn.Module | None:
    """Return the module inside what torch.compile returns; None for other modules."""
    # Its class is in a module that takes seconds to import. Since 2.0.
    return model._orig_mod if type(model).__name__ == "OptimizedModule" else None  # type: ignore[return-value]


def is_flat_shard(tensor: Tensor) -> bool:
    """Return whether a tensor is or was part of FullyShardedDataParallel's flat parameters."""
    # The first mark is of the flat parameter, the second also of the user's own (use_orig_params). Since 1.12 and 2.0.
    return getattr(tensor, "_is_flat_param", False) or getattr(tensor, "_fsdp_flattened", False)


def step_is_replaced(inner: Optimizer) -> bool:
    """Return whether `step` was replaced by another function, other than that of a learning-rate scheduler."""
    # A scheduler's function only records that it was called, and is marked so. Since 2.4.
    if "step" not in inner.__dict__:
        return False
    step = inner.__dict__["step"]
    return step is not None and not getattr(step, "_wrapped_by_lr_sched", False)


def caller_named(function: str) -> FrameType | None:
    """Return the frame of this function of torch.distributed.checkpoint.state_dict, if it is calling now."""
    # Its functions drop what they do not know of an optimizer's state, and step a new optimizer, as if that had no
    # effect on other ranks. They call like a user and have no hook. Since 2.2.
    frame = sys._getframe(1).f_back
    for _ in range(_DEEPEST):
        if frame is None:
            break
        if frame.f_code.co_name == function and frame.f_globals.get("__name__") == _CHECKPOINTS:
            return frame
        frame = frame.f_back
    return None


def on_collectives(notify: Callable[[str, Sequence[Any]], None]) -> Callable[[], None]:
    """Call `notify(name, arguments)` at every operator of c10d in this process; return the function that ends this.

    The names are those of the operators, such as "allreduce_". What `notify` raises reaches whoever called.
    """
    # DistributedDataParallel, FSDP and compiled programs call collectives from C++, where no function of Python can be
    # replaced. All end in operators of c10d, and no public function tells of them. `BackendSelect` is a key that every
    # call has, under `inference_mode` too. `with_keyset` since 2.1.
    library = torch.library.Library("c10d", "IMPL")  # type: ignore[no-untyped-call]
    below = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.BackendSelect)

    def telling(name: str, operator: Any) -> Callable[..., Any]:  # noqa: ANN401
        def call(keys: Any, *arguments: Any) -> Any:  # noqa: ANN401
            notify(name, arguments)
            return operator.redispatch(keys & below, *arguments)

        return call

    for full_name in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full_name.partition("::")
        if namespace == "c10d" and "." not in name:
            operator = getattr(torch.ops.c10d, name).default
            library.impl(name, telling(name, operator), "BackendSelect", with_keyset=True)  # type: ignore[no-untyped-call]
    return library._destroy


def group_of_call(arguments: Sequence[Any]) -> dist.ProcessGroup:
    """Return the process group among the arguments of an operator of c10d."""
    # They hold it in a box of TorchScript. Since 2.0.
    found: dist.ProcessGroup = next(
        dist.ProcessGroup.unbox(one) for one in arguments if isinstance(one, torch.ScriptObject)
    )
    return found


_CHECKPOINTS = "torch.distributed.checkpoint.state_dict"
_DEEPEST = 12  # wrappers of torch's and of a scheduler's lie between

LOSS_SCALE = "grad_scale"
"""Name of the attribute that GradScaler sets while it calls `step`: the factor that the loss was multiplied by."""
OVERFLOW = "found_inf"
"""The same: above 0 if this rank's gradients had inf or NaN; before the user clipped them, if `unscale_` was called."""


def report_overflow(optimizer: Optimizer, found: bool) -> None:
    """Tell the GradScaler that calls `step` whether any rank has met inf or NaN, so that all scales stay equal."""
    # It looks at this rank's gradients only, and what it sets in the optimizer is a copy. Nothing leads to it but the
    # call itself. Since 1.6.
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        scaler = frame.f_locals.get("self")
        if scaler is not None and issubclass(type(scaler), torch.amp.GradScaler) and scaler.is_enabled():
            checks = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
            for check in checks.values():
                check.fill_(float(found))
            if not checks and found:
                checks[torch.device("cpu")] = torch.ones(())
            return
        frame = frame.f_back


class ScaledOptimizer(Optimizer):
    """An optimizer that unscales gradients for `torch.amp.GradScaler`, and skips steps with non-finite gradients."""

    # GradScaler reads this name before it calls `step`, and then sets `LOSS_SCALE` during the call. Since 1.13.
    _step_supports_amp_scaling = True


def let_scale(optimizer: Optimizer, itself: bool) -> None:
    """Let GradScaler leave it to an optimizer's `step` to unscale gradients and to skip, or do that itself again."""
    # As above, for an optimizer that is not ours.
    if itself:
        optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]
    else:
        vars(optimizer).pop("_step_supports_amp_scaling", None)


def wait_until(work: dist.Work | None, deadline: float) -> None:
    """Wait for any group's work until time.monotonic() is `deadline`. Raises RuntimeError where it fails."""
    # No page of torch's names the argument for the time. Since 1.6.
    assert work is not None
    work.wait(datetime.timedelta(seconds=max(0.001, deadline - time.monotonic())))


def at_end_of_backward(function: Callable[[], None]) -> None:
    """Call a function at the end of the backward pass that is running, before it returns; now if none is running.

    What it raises, the call of `backward` raises. Functions are called in the order in which they were given.
    """
    # DistributedDataParallel waits for its futures in such a function too, given after the last bucket; what it raises
    # for a future that has failed is another error. Since 1.0.
    if backward_pass() != -1:
        torch.autograd.Variable._execution_engine.queue_callback(function)
    else:
        function()


def hooks_of(ddp: DistributedDataParallel) -> list[tuple[Any, Any]]:
    """Return the state and the function of the communication hooks that were registered, at most one."""
    # torch refuses a second one, but has no function that returns the first. Since 2.3.
    return [(state, hook) for hook, state in ddp._comm_hooks]


def delayed_parameters(ddp: DistributedDataParallel) -> list[Tensor]:
    """Return the parameters whose gradients are averaged without a communication hook."""
    # An argument of DistributedDataParallel that no property shows. Since 2.1.
    found: list[Tensor] = ddp._delay_all_reduce_params
    return found


def has_python_reducer(ddp: DistributedDataParallel) -> bool:
    """Return whether a model averages by functions of Python that the compiler sees."""
    # It follows from a setting of the compiler, at the time the model is wrapped. Since 2.3.
    return bool(getattr(ddp, "_use_python_reducer", False))


def is_joining(ddp: DistributedDataParallel) -> bool:
    """Return whether a model is in `join()`, so that ranks without data bring gradients of zeros."""
    # Nothing else says it to a communication hook. Since 1.10.
    return bool(ddp._join_config.enable)


def backward_pass() -> int:
    """Return the number of the backward pass that is running in this thread; -1 for none."""
    # Since 2.0.
    return torch._C._current_graph_task_id()


def set_reduce_hook(module: torch.nn.Module, hook: Callable[[Tensor], None]) -> None:
    """Let FSDP call `hook` with each reduce-scatter's output for the module's own group of parameters.

    Raises AttributeError or TypeError where torch has no such function, ValueError for a module with several groups.
    """
    # A method of FSDPModule that is documented, but marked as one that may change. Since 2.7.
    module.set_all_reduce_hook(hook)  # type: ignore[operator]


def reduce_groups_of(module: torch.nn.Module) -> list[tuple[int, Any, list[Tensor]]]:
    """Return a name, the hook or None, and the parameters of each group of a module's own. Raises AttributeError."""
    # torch has a method to set a hook, but none that returns it. Since 2.7; a list of groups since 2.12.
    state = module._get_fsdp_state()  # type: ignore[operator]
    groups = state._fsdp_param_groups if hasattr(state, "_fsdp_param_groups") else [state._fsdp_param_group]
    found = [group for group in groups if group is not None]
    return [(id(each), each._all_reduce_hook, [one.sharded_param for one in each.fsdp_params]) for each in found]


def is_inner_shard(module: torch.nn.Module) -> bool:
    """Return whether FSDP found, in a forward pass, that a sharded module is in another sharded one."""
    # No function says it. Since 2.6.
    return module._get_fsdp_state()._is_root is False  # type: ignore[operator]


def local_tensor(shard: Tensor) -> Tensor:
    """Return the memory of this rank's part of a DTensor."""
    # `to_local` is an operation that autograd knows, and of a parameter makes another parameter. Since 2.0.
    found: Tensor = shard._local_tensor  # type: ignore[attr-defined]
    return found
