"""The mean of the gradients of a node's ranks, which are one worker of the method: before each step, on all of them."""

import math
from collections.abc import Sequence
from typing import Self

from laconic.buffer_pool import new_vector
from laconic.drivers.distributed.nodes import Node
from laconic.drivers.distributed.rounds import Processes
from laconic.training.flat_parameters import FlatParameters


class NodeMean:
    """Averages gradients inside a node."""

    def __init__(self, flat: FlatParameters, node: Node, driver: Processes) -> None:
        """Average the gradients of `flat` over the ranks of `node`, which is that of the `driver`."""
        self._flat, self._node, self._driver = flat, node, driver

    @classmethod
    def of(cls, flat: FlatParameters, driver: Processes) -> Self | None:
        """Return what averages inside the driver's node; None if each rank is a worker."""
        return None if driver.node is None else cls(flat, driver.node, driver)

    def take(self, has_gradient: Sequence[bool], *, has_overflow: bool) -> tuple[list[bool], bool]:
        """Overwrite the gradients by their mean. A parameter that only others have used counts as zero here.

        Args:
            has_gradient: by parameter, whether this rank has used it.
            has_overflow: whether GradScaler has found inf or NaN on this rank.

        Returns:
            By parameter, whether any rank of the node has used it; and whether any has an overflow.

        Raises:
            PeerLostError: a rank of the node is missing.
        """
        flat, node, seconds = self._flat, self._node, self._driver.seconds
        used = [float(has) for has in has_gradient]
        total = new_vector(flat.d + len(used) + 1, flat.dtype, flat.device)  # the mean, who uses what, and the overflow
        source = flat.gradient_source()
        total[flat.d :] = total.new_tensor([*used, math.nan if has_overflow else 0.0])
        seconds.phase("compute")

        def write(start: int, stop: int) -> None:
            if start < flat.d:
                source.into(total, start, min(stop, flat.d), divisor=node.n_ranks)

        try:
            node.add_up(total, f"for the gradients of its node, round {self._driver.rounds}", write)
        except BaseException as error:
            self._driver.give_up(error)
            raise
        seconds.phase("wait")
        *users, overflow = total[flat.d :].tolist()
        of_node = [n > 0 for n in users]
        flat.set_gradients(total[: flat.d], of_node)
        return of_node, math.isnan(overflow)
