"""Which plain function stands for which LLVM kernel, by the kernel's file and name."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from laconic.kernels.cpu import (
    block_norms,
    fractional,
    mask_streams,
    stochastic_rounding,
    top_k,
)
from laconic.kernels.cpu import error_feedback as cpu_error_feedback
from laconic.kernels.cpu import flatten as cpu_flatten
from laconic.kernels.cpu import residuals as cpu_residuals
from laconic.kernels.cpu.llvm import vectors
from laconic.kernels.twins import blocks, error_feedback, flatten, residuals, words
from laconic.kernels.twins.replaced import in_place, with_parts

TWINS: Mapping[str, Mapping[Any, Callable[..., Any]]] = {
    "vectors.negatives": {vectors.negatives: words.negatives},
    "vectors.selected": {vectors.selected: words.selected},
    "vectors.add_signs_at": {vectors.add_signs_at: words.add_signs_at},
    "vectors.put_signs_at": {vectors.put_signs_at: words.put_signs_at},
    "vectors.compress": {vectors.compress: vectors.compress_by_loop},
    "vectors.expand": {vectors.expand: vectors.expand_by_loop},
    "vectors.population": {vectors.population: words.population},
    "vectors.lowest": {vectors.lowest: words.lowest},
    "error_feedback.step": {cpu_error_feedback.error_feedback_step: error_feedback.error_feedback_step},
    "error_feedback.total": {cpu_error_feedback.error_feedback_total: error_feedback.error_feedback_total},
    "error_feedback.momentum_at": {mask_streams.momentum_pack: error_feedback.momentum_pack},
    "residuals.correct_run": {cpu_residuals._tiles: residuals.tiles},
    "stochastic_rounding.draw_groups": {stochastic_rounding._quantize: blocks.quantize},
    "reductions.run_ends": {block_norms._ranges: blocks.ranges},
    "reductions.run_absolute_maximum": {block_norms._segment_maxima: blocks.segment_maxima},
    "reductions.run_squares": {block_norms._squares: blocks.squares},
    "level_sums": {fractional._spans: blocks.spans, fractional._level_chunks: blocks.level_chunks},
    "flatten: copies": {cpu_flatten._gather: flatten.gather},
    "flatten: quotients": {cpu_flatten._gather_shares: flatten.gather_shares},
    "flatten: changes": {cpu_flatten._gather_change: flatten.gather_change},
    "flatten: products": {cpu_flatten._gather_scaled: flatten.gather_scaled},
    "flatten: sums": {cpu_flatten._scatter: flatten.scatter},
    "top_k._reaching": {top_k._reaching: words.reaching},
}
"""Plain functions by the lanes, or by the kernel around them, that they stand for."""


@contextmanager
def twin_in_place(name: str) -> Iterator[None]:
    """Let the library use the twin of this name instead of its kernel. It is compiled at its first call."""
    with in_place(_compiled(name)):
        yield


@cache
def _compiled(name: str) -> Mapping[Any, Any]:
    return with_parts(TWINS[name])
