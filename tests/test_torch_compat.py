"""Private names of torch are in one file only, so that a new torch affects no other file."""

import ast
import functools
from pathlib import Path

import torch
from torch.optim.lr_scheduler import StepLR

import laconic
from laconic import torch_compat
from support.sources import share_trees, tree_of

ROOT = Path(laconic.__file__).parent
FILE = Path(torch_compat.__file__)
pytestmark = share_trees


@functools.cache
def trees() -> dict[Path, ast.Module]:
    return {path: tree_of(path) for path in sorted(ROOT.rglob("*.py"))}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def named_in(tree: ast.Module) -> set[str]:
    """The private names that a file defines: functions, classes, variables, fields, attributes of its own objects."""
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return found | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_own(node.value)}


def is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def reached_for(tree: ast.Module) -> set[str]:
    """The private names that a file reads or sets on objects that are not its own, by an attribute or a text."""
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and not is_own(node.value)}
    texts = [node.args[1] for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) > 1
             and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr")]  # fmt: skip
    found |= {text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)}
    return {name for name in found if is_private(name)}


def imported(tree: ast.Module) -> set[str]:
    found = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


OF_TORCH = {  # what that file imports from torch, and no other may
    "_get_backend", "_new_process_group_helper", "_world", "_local_tensor",
    "_get_fsdp_state", "_fsdp_param_group", "_fsdp_param_groups", "_all_reduce_hook", "_is_root",
    "_get_default_store", "_source_rank", "_timeout", "_version", "_opt_called",
    "_post_accumulate_grad_hooks", "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks", "_wrapped_by_lr_sched",
    "_global_optimizer_pre_hooks", "_global_optimizer_post_hooks", "_disable_dynamo", "_orig_mod", "_is_flat_param",
    "_fsdp_flattened", "_per_optimizer_states", "_C", "_dynamo", "_set_grad_enabled",
    "_delay_all_reduce_params", "_use_python_reducer", "_join_config",
    "_comm_hooks", "_current_graph_task_id", "_execution_engine", "_step_supports_amp_scaling",
    "_foreach_add_", "_profiler_enabled", "_dispatch_get_all_op_names", "_dispatch_keyset_full_after", "_destroy",
}  # fmt: skip
OTHERS = {
    "_replace",
    "_exit",
    "_args_from_interpreter_flags",
    "_getframe",
    "_rebuild",
    "_reduce",
    "_cache",
}  # of Python: named tuples, os, subprocess, sys; of numba: how its own cache keeps compiled code


def test_the_file_of_private_names_imports_these_from_torch():
    assert reached_for(trees()[FILE]) - OTHERS == OF_TORCH
    assert "_step_supports_amp_scaling" in named_in(trees()[FILE])


def test_no_other_file_uses_a_private_name_of_torch():
    ours = set().union(*(named_in(tree) for path, tree in trees().items() if path != FILE)) | OTHERS
    for path, tree in trees().items():
        if path != FILE:
            assert not reached_for(tree) & OF_TORCH, path
            assert not reached_for(tree) - ours, path
            assert "_step_supports_amp_scaling" not in named_in(tree), path


def test_no_other_file_imports_a_private_module_of_torch():
    for path, tree in trees().items():
        of_torch = {name for name in imported(tree) if name.split(".")[0] == "torch"}
        private = {name for name in of_torch if any(map(is_private, name.split("."))) or "distributed_c10d" in name}
        assert bool(private) == (path == FILE), path
        reached = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert ("distributed_c10d" in reached) == (path == FILE), path


def test_an_lr_schedule_and_a_hook_are_no_replaced_step():
    inner = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert not torch_compat.step_is_replaced(inner)
    lr_schedule = StepLR(inner, 1)
    assert not torch_compat.step_is_replaced(inner)
    torch_compat.note_step(inner)
    lr_schedule.step()  # would warn, were the optimizer not taken for one that has stepped; warnings are errors
    assert not torch_compat.has_step_hooks(inner)
    inner.register_step_pre_hook(lambda *_: None)
    assert torch_compat.has_step_hooks(inner)
    inner.step = lambda closure=None: None
    assert torch_compat.step_is_replaced(inner)


def test_a_tensors_version_counts_changes_in_place():
    tensor = torch.zeros(3)
    before = torch_compat.version_of(tensor)
    tensor.add_(1)
    assert torch_compat.version_of(tensor) == before + 1
