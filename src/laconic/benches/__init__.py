"""What things cost on this machine, as multiples of one copy of the vector through memory."""

from laconic.benches.kernels import Bench, measure_kernels
from laconic.benches.measure import Measured

__all__ = ["Bench", "Measured", "measure_kernels"]
