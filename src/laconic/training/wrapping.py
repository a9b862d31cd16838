"""An optimizer around another one, which users may treat as if it were that one."""

import weakref
from typing import Any, Never, Self

from torch.optim import Optimizer

from laconic.drivers.distributed.door import door
from laconic.torch_compat import ScaledOptimizer, opaque


class OptimizerAround(ScaledOptimizer):
    """What it does not define itself is the inner optimizer's: groups, state, defaults, hooks, further methods.

    So learning-rate schedulers may hold either, and a hook that is registered with either runs once for each step that
    the inner optimizer takes.
    """

    inner: Optimizer

    def __init__(self, inner: Optimizer) -> None:
        """Take `inner`. The initializer of torch would make groups, state and hooks beside those of `inner`."""
        self.inner = inner
        self.door = door()
        """What the user has called."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return what the inner optimizer has by this name."""
        if name == "inner":
            raise AttributeError(f"this {type(self).__name__} was not made by its initializer")
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Set an attribute; groups, state and defaults are set in the inner optimizer."""
        if name in ("param_groups", "state", "defaults"):
            setattr(self.inner, name, value)
        else:
            super().__setattr__(name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the other ranks."""

    @opaque
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, as the inner optimizer does."""
        self.inner.zero_grad(set_to_none)

    def __deepcopy__(self, memo: dict[int, Any]) -> Never:
        """Raise TypeError; see `__reduce_ex__`."""
        self.__reduce_ex__(4)

    def __reduce_ex__(self, protocol: Any) -> Never:  # noqa: ANN401
        """Raise TypeError: connections to other ranks have no copy."""
        raise TypeError(
            f"a {type(self).__name__} holds connections to the other ranks and can be neither copied nor pickled; copy "
            "opt.inner, or save opt.state_dict()"
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raise RuntimeError: parameters cannot be added after construction."""
        raise RuntimeError(f"add_param_group: the ranks have agreed on the parameters; {self.door.anew}")

    def guard_groups(self) -> None:
        """Let the inner optimizer refuse further groups as well, as long as this one is there."""
        inner, me = self.inner, weakref.ref(self)

        def add_param_group(param_group: dict[str, Any]) -> None:
            outer = me()
            if outer is None:
                type(inner).add_param_group(inner, param_group)
            else:
                outer.add_param_group(param_group)

        inner.add_param_group = add_param_group  # type: ignore[method-assign]

    def release_groups(self) -> None:
        """Undo `guard_groups`."""
        vars(self.inner).pop("add_param_group", None)
