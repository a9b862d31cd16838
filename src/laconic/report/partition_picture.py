"""A picture of a partition: how many examples of each class every worker has."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from laconic.lab.partitions import Share
from laconic.report.drawing import picture_bytes, plain_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_NAMED = 40  # workers whose ranks are below their bars
_MAX_LEGEND = 12  # classes with a color in the legend


def draw_partition(shares: Sequence[Share], title: str, ending: str) -> bytes:
    """Return a picture: a bar for each worker, as high as its number of examples, with a part for each class.

    Args:
        shares: What each worker has, by rank, such as `shares_of` returns.
        title: The title.
        ending: ".png", ".svg" or ".pdf".
    """

    def draw(figure: "Figure") -> None:
        from matplotlib import colormaps

        axes = figure.subplots()
        ranks = range(len(shares))
        n_classes = len(shares[0].of_class)
        colors = colormaps["tab20" if n_classes <= 20 else "viridis"]
        bottom = [0] * len(shares)
        for one in range(n_classes):
            heights = [share.of_class[one] for share in shares]
            color = colors(one if n_classes <= 20 else one / (n_classes - 1))
            axes.bar(ranks, heights, bottom=bottom, width=0.85, color=color, label=f"class {one}")
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        if not n_classes:
            axes.bar(ranks, [share.examples for share in shares], width=0.85)
        if len(shares) <= _MAX_NAMED:
            axes.set_xticks(list(ranks))
        axes.set_xlabel("worker")
        axes.set_ylabel("examples")
        axes.set_title(title)
        plain_axes(axes)
        if 0 < n_classes <= _MAX_LEGEND:
            figure.legend(loc="outside right center", frameon=False)

    return picture_bytes((9, 4), ending, title, draw)
