"""The mean of the gradients of a node's ranks, which are one worker of the method: before each step, on all of them."""

import math
from collections.abc import Sequence
from typing import Self

from laconic.drivers.distributed.nodes import Node
from laconic.drivers.distributed.rounds import Processes
from laconic.training.flat_parameters import FlatParameters


class NodeMean:
    """Averages gradients inside a node."""

    def __init__(self, flat: FlatParameters, node: Node, driver: Processes) -> None:
        """Average the gradients of `flat` over the ranks of `node`, which is that of the `driver`."""
        self._flat, self._node, self._driver = flat, node, driver

    @classmethod
    def of(cls, flat: FlatParameters, driver: Processes, *, steps_locally: bool) -> Self | None:
        """Return what averages inside the driver's node; None if each rank is a worker. Collective over a node.

        `steps_locally` says whether each rank takes steps with the mean; else only the leading one needs it.
        """
        if driver.node is None:
            return None
        driver.node.open_memory(flat.d, flat.dtype, flat.device, everywhere=steps_locally)
        return cls(flat, driver.node, driver)

    def take(self, has_gradient: Sequence[bool], *, has_overflow: bool) -> tuple[list[bool], bool]:
        """Overwrite the gradients by their mean where it is needed. One that only others have used counts as zero here.

        Args:
            has_gradient: by parameter, whether this rank has used it.
            has_overflow: whether GradScaler has found inf or NaN on this rank.

        Returns:
            By parameter, whether any rank of the node has used it; and whether any has an overflow.

        Raises:
            PeerLostError: a rank of the node is missing.
        """
        flat, node, seconds = self._flat, self._node, self._driver.seconds
        tail = [*map(float, has_gradient), math.nan if has_overflow else 0.0]  # who uses what
        seconds.phase("compute")
        try:
            mean, sums = node.mean_of(
                flat.gradient_source(), flat.d, tail, self._driver.job,
                f"for the gradients of its node, round {self._driver.rounds}",
            )  # fmt: skip
        except BaseException as error:
            self._driver.give_up(error)
            raise
        seconds.phase("wait")
        *users, overflow = sums
        of_node = [n > 0 for n in users]
        if mean is not None:
            flat.set_gradients(mean, of_node)
        return of_node, math.isnan(overflow)
