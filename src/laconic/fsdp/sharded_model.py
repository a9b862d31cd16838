"""The model that `fully_shard` has sharded, in what a user has: its parameters, and which ranks have what of it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor, Shard

from laconic.ddp.finding import module_in
from laconic.drivers.distributed.channel import Channel
from laconic.fsdp.local_shards import PART_OF_ANOTHER
from laconic.fsdp.trampoline import no_hook
from laconic.torch_compat import is_inner_shard, local_tensor, reduce_groups_of
from laconic.training.parameter_names import names_of

_MESH = 'mesh = init_device_mesh(device, (nodes, ranks_of_a_node), mesh_dim_names=("replicate", "shard"))'
_SHARD = f'make it by {_MESH}, and give fully_shard mesh["shard"] alone'


@dataclass(frozen=True, kw_only=True)
class ShardedModel:
    """A model, the ranks that have the other shards of it, and those that have the same shard."""

    module: FSDPModule
    """The root."""
    names: Sequence[str]
    """Of the parameters that are trained, without what wrappers add."""
    parameters: Sequence[DTensor]
    """Those, group by group, in the order of the modules that were sharded."""
    group_sizes: Sequence[int]
    """Number of parameters of each group whose gradients are averaged together."""
    fixed: Sequence[Tensor]
    """Frozen parameters and buffers."""
    shard_ranks: Sequence[int]
    """Global ranks of this node, by shard."""
    group: dist.ProcessGroup
    """The ranks that have this shard, by node."""

    @property
    def root(self) -> nn.Module:
        """The root, as a module."""
        assert isinstance(self.module, nn.Module)
        return self.module

    @property
    def sharded_modules(self) -> Iterator[FSDPModule]:
        """The modules that `fully_shard` was called with."""
        return (module for module in self.root.modules() if isinstance(module, FSDPModule))

    def share_fixed(self, channel: Channel) -> None:
        """Overwrite frozen parameters and buffers by those of the lowest node. Collective over the nodes."""
        for tensor in self.fixed:
            channel.share(local_tensor(tensor) if isinstance(tensor, DTensor) else tensor)

    def settings(self) -> dict[str, str | int]:
        """Return what must be equal on all ranks."""
        listed = zip(self.names, self.parameters, strict=True)
        return {"shards": len(self.shard_ranks)} | {
            f"parameter {number}": f"{name!r} {tuple(parameter.shape)} {parameter.dtype}"
            for number, (name, parameter) in enumerate(listed)
        }


def sharded_model(model: object, mesh: DeviceMesh | None) -> ShardedModel | None:
    """Return the sharded model; None where there is one node alone, so that nothing is to be exchanged.

    Raises:
        TypeError: for what is no module and holds none, or is no mesh.
        ValueError: for a model that is not sharded, or a mesh over which nothing can be exchanged.
    """
    module = module_in(model, FSDPModule)
    if module is None:
        raise TypeError(f"model={type(model).__name__} must be a torch.nn.Module, or a trainer that holds one")
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    root = _root(module)
    _check_mesh(mesh)
    assert mesh is not None
    for each in root.modules():
        if isinstance(each, FSDPModule):
            each.reshard()  # after an evaluation the root's parameters are still full ones
    names = names_of(root)
    trained = {names[id(each)]: each for each in root.parameters() if each.requires_grad}
    if not trained:
        raise ValueError("model: none of its parameters is trained (requires_grad); thaw those that shall be, before")
    dimension = {_sharded_dimension(name, parameter, mesh) for name, parameter in trained.items()}
    if len(dimension) > 1:
        raise ValueError("model: some parameters are sharded over nodes and others inside them; give one mesh to all")
    (inside,) = dimension
    try:
        groups = [*_groups(root, trained.values())]
    except AttributeError as error:
        raise no_hook(error) from error
    parameters = [parameter for group in groups for parameter in group]
    if mesh.size(1 - inside) == 1:
        return None
    assert isinstance(root, FSDPModule)
    return ShardedModel(
        module=root, names=[names[id(each)] for each in parameters], parameters=parameters,
        group_sizes=[len(group) for group in groups],
        fixed=[*(each for each in root.parameters() if not each.requires_grad), *root.buffers()],
        shard_ranks=dist.get_process_group_ranks(mesh.get_group(inside)), group=mesh.get_group(1 - inside),
    )  # fmt: skip


def _groups(root: nn.Module, trained: Iterable[Tensor]) -> Iterator[list[DTensor]]:
    """Yield the trained parameters of each group that FSDP averages at once, and then those that are in none."""
    left = {id(parameter): parameter for parameter in trained}
    for module in root.modules():
        for _, _, parameters in reduce_groups_of(module) if isinstance(module, FSDPModule) else ():
            group = [left.pop(id(each)) for each in parameters if id(each) in left]
            if group:
                yield [parameter for parameter in group if isinstance(parameter, DTensor)]
    if left:
        yield [parameter for parameter in left.values() if isinstance(parameter, DTensor)]


def _root(module: nn.Module) -> nn.Module:
    """Return the module if it is the root of a sharded model."""
    if isinstance(module, FSDPModule):
        if is_inner_shard(module):
            raise ValueError(f"model: {PART_OF_ANOTHER}")
        return module
    inside = [name for name, each in module.named_modules() if isinstance(each, FSDPModule)]
    if inside:
        raise ValueError(
            f"model: {inside[0]!r} is sharded, and the {type(module).__name__} around it is not: call fully_shard on "
            "the model too, after its layers, so that all of its parameters are averaged inside a node"
        )
    if any(isinstance(each, FullyShardedDataParallel) for each in module.modules()):
        raise ValueError(
            "model: it is in FullyShardedDataParallel, which has no hook for this; use torch.distributed.fsdp."
            "fully_shard, which makes the same shards"
        )
    raise ValueError(
        f"model: no fully_shard was called with this {type(module).__name__}; {_SHARD}. For a model in "
        "DistributedDataParallel there is laconic.ddp.attach, and for a plain one laconic.DistributedOptimizer"
    )


def _check_mesh(mesh: DeviceMesh | None) -> None:
    if not isinstance(mesh, DeviceMesh):
        raise TypeError(f"mesh={mesh!r:.80} must be a torch.distributed.device_mesh.DeviceMesh; {_SHARD}")
    if mesh.ndim != 2:
        raise ValueError(
            f"mesh: it has {mesh.ndim} dimension{'s' * (mesh.ndim != 1)}, and two are needed, nodes and the ranks of a "
            f"node: no rank has the same shard as another otherwise, so there is nothing to exchange; {_SHARD}"
        )
    if mesh.size() != dist.get_world_size():
        raise ValueError(f"mesh: it has {mesh.size()} of {dist.get_world_size()} ranks; all of them must be in it")


def _sharded_dimension(name: str, parameter: Tensor, mesh: DeviceMesh) -> int:
    """Return the dimension of the mesh that a parameter is sharded over."""
    if not isinstance(parameter, DTensor):
        raise ValueError(
            f"model: {name!r} is trained and not sharded, so that ranks of a node would train it apart; do not give it "
            "to fully_shard as an ignored parameter"
        )
    if any(placement.is_replicate() for placement in parameter.placements):
        raise ValueError(
            f"model: {name!r} is sharded and replicated: fully_shard was given a mesh of {parameter.device_mesh.ndim} "
            'dimensions, and averages between nodes itself; give it mesh["shard"] alone'
        )
    if parameter.device_mesh.ndim != 1:
        raise ValueError(
            f"model: {name!r} is sharded over {parameter.device_mesh.ndim} dimensions, as with tensor parallelism, "
            'which is not supported; give fully_shard mesh["shard"] alone'
        )
    if parameter.dtype.is_complex:
        raise ValueError(f"model: {name!r} is {parameter.dtype}; only real floats can be trained")
    ranks = parameter.device_mesh.mesh.flatten().tolist()
    for dimension in (1, 0):
        if dist.get_process_group_ranks(mesh.get_group(dimension)) == ranks:
            return dimension
    if len(ranks) == mesh.size():
        raise ValueError(
            f"model: {name!r} is sharded over all {len(ranks)} ranks, so that no other rank has the same shard and "
            f"there is nothing to exchange; {_SHARD}"
        )
    raise ValueError(
        f"model: {name!r} is sharded over the ranks {ranks}, which are no dimension of this mesh; {_SHARD}"
    )


def check_not_empty(parameters: Sequence[DTensor]) -> None:
    """Raise ValueError if a rank has nothing of any parameter, so that it has no vector to exchange."""
    n_shards = parameters[0].device_mesh.size()
    if not any(_reaches_all(parameter, n_shards) for parameter in parameters):
        raise ValueError(
            f"model: no parameter has rows for all {n_shards} shards, so that a rank has nothing to exchange; shard "
            "over fewer ranks"
        )


def _reaches_all(parameter: DTensor, n_shards: int) -> bool:
    (placement,) = parameter.placements
    length = parameter.shape[placement.dim] if isinstance(placement, Shard) else 0
    return math.ceil(length / n_shards) * (n_shards - 1) < length
