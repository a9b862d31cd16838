"""The slope of a straight line through logarithms, by least squares."""

from collections.abc import Mapping

import torch


def slope_of(points: Mapping[float, float]) -> float:
    """Return the slope of log value over log position. Points are values by position, all above 0."""
    positions = torch.tensor(list(points), dtype=torch.float64).log()
    values = torch.tensor(list(points.values()), dtype=torch.float64).log()
    positions, values = positions - positions.mean(), values - values.mean()
    return float((positions * values).sum() / positions.square().sum())
