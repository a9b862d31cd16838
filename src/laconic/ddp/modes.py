"""Ways to set up DistributedDataParallel in which a communication hook does not get every gradient once."""

from torch.nn.parallel import DistributedDataParallel

from laconic.torch_compat import delayed_parameters, has_python_reducer

_OTHERS = "wrap the model without it"


def check_modes(ddp: DistributedDataParallel) -> None:
    """Raise ValueError for a mode in which gradients go past the hook."""
    if delayed_parameters(ddp):
        raise ValueError(f"model: delay_all_reduce_named_params averages some gradients past the hook; {_OTHERS}")
    if getattr(ddp, "skip_all_reduce_unused_params", False):
        raise ValueError(f"model: skip_all_reduce_unused_params leaves buckets out; {_OTHERS}")
    if has_python_reducer(ddp):
        raise ValueError(
            'model: optimize_ddp="python_reducer" of torch._dynamo averages without buckets; leave it at its default'
        )
