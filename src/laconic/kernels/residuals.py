"""Error feedback with scaled signs, and the correction of any compressor: a part of the kernels' face."""

from collections.abc import Sequence

from torch import Tensor

from laconic.kernels import checks
from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.checks import ALL_FLOATS, FLOATS
from laconic.kernels.dispatch import fastest


def correct(vector: Tensor, residual: Tensor, *, divisor: int = 1, decay: float = 1.0) -> None:
    """Write vector / divisor + decay residual over the vector; see `reference/residuals.py`, as for all below."""
    _check_correction("correct", vector, residual, divisor)
    fastest("residuals", vector.device).correct(vector, residual, divisor=divisor, decay=decay)


def mean_signs(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the packed signs of a vector, and the mean magnitude of each block."""
    blocks = checks.blocks("mean_signs", lengths)
    checks.vector("mean_signs", "values", values, FLOATS, blocks.total)
    made: tuple[Tensor, Tensor] = fastest("residuals", values.device).mean_signs(values, blocks)
    return made


def correct_signs(
    vector: Tensor, residual: Tensor, lengths: Sequence[int], *, divisor: int = 1, decay: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Do what `correct` does, and return the `mean_signs` of the result, in one pass."""
    blocks = checks.blocks("correct_signs", lengths)
    _check_correction("correct_signs", vector, residual, divisor, blocks)
    packed, means = fastest("residuals", vector.device).correct_signs(
        vector, residual, blocks, divisor=divisor, decay=decay
    )
    return checks.note_place(packed), checks.note_place(means)


def momentum_correct_signs(
    gradient: Tensor, momentum: Tensor, residual: Tensor, new_momentum: Tensor, lengths: Sequence[int],
    *, mu: float, decay: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Take a step of Nesterov momentum over `gradient`, corrected, and return its `mean_signs`, in one pass."""
    call = "momentum_correct_signs"
    blocks = checks.blocks(call, lengths)
    _check_correction(call, gradient, residual, 1, blocks)
    checks.vector(call, "momentum", momentum, (gradient.dtype,), blocks.total, gradient.device)
    checks.output(call, "new_momentum", new_momentum, (gradient.dtype,), blocks.total, gradient.device)
    packed, means = fastest("residuals", gradient.device).momentum_correct_signs(
        gradient, momentum, residual, new_momentum, blocks, mu=mu, decay=decay
    )
    return checks.note_place(packed), checks.note_place(means)


def put_scaled_signs(packed: Tensor, scales: Tensor, lengths: Sequence[int], out: Tensor) -> None:
    """Write every block's scale with the signs of its elements."""
    blocks = _check_scaled("put_scaled_signs", packed, scales, lengths, "out", out)
    fastest("residuals", out.device).put_scaled_signs(packed, scales, blocks, out)


def add_scaled_signs(packed: Tensor, scales: Tensor, lengths: Sequence[int], total: Tensor) -> None:
    """Add the same to `total` (d,), in place. Negated scales subtract it."""
    blocks = _check_scaled("add_scaled_signs", packed, scales, lengths, "total", total)
    fastest("residuals", total.device).add_scaled_signs(packed, scales, blocks, total)


def answer_scaled_signs(
    packed: Sequence[Tensor], scales: Sequence[Tensor], residual: Tensor, new_residual: Tensor, lengths: Sequence[int],
    *, divisor: int, decay: float = 1.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the answer to scaled signs of several senders, and write what it leaves to `new_residual`."""
    call = "answer_scaled_signs"
    blocks = checks.blocks(call, lengths)
    checks.output(call, "new_residual", new_residual, FLOATS, blocks.total)
    checks.vector(call, "residual", residual, (new_residual.dtype,), blocks.total, new_residual.device)
    if len(scales) != len(packed):
        checks.number(call, "number of scales", len(scales), len(packed), len(packed))
    for number, each in enumerate(packed):
        checks.packed(call, f"packet {number}", each, blocks.total, new_residual.device)
    checks.ends(call, scales, blocks, (new_residual.dtype,), new_residual.device)
    if not 1 <= divisor <= checks.MAX_COUNT:
        checks.number(call, "divisor", divisor, 1, checks.MAX_COUNT)
    signs, means = fastest("scaled_answers", new_residual.device).answer_scaled_signs(
        packed, scales, residual, new_residual, blocks, divisor=divisor, decay=decay
    )
    return checks.note_place(signs), checks.note_place(means)


def _check_correction(
    call: str, vector: Tensor, residual: Tensor, divisor: int, blocks: BlockLengths | None = None
) -> None:
    checks.output(call, "vector", vector, FLOATS, None if blocks is None else blocks.total)
    checks.vector(call, "residual", residual, (vector.dtype,), vector.shape[0], vector.device)
    if not 1 <= divisor <= checks.MAX_COUNT:
        checks.number(call, "divisor", divisor, 1, checks.MAX_COUNT)


def _check_scaled(
    call: str, packed: Tensor, scales: Tensor, lengths: Sequence[int], name: str, out: Tensor
) -> BlockLengths:
    blocks = checks.blocks(call, lengths)
    checks.output(call, name, out, ALL_FLOATS, blocks.total, strided=True)
    checks.packed(call, "packed", packed, blocks.total, out.device)
    checks.ends(call, (scales,), blocks, ALL_FLOATS, out.device)
    return blocks
