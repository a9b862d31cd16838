"""Which plain function stands for which LLVM kernel, by the kernel's file and name."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from laconic.kernels.cpu import (
    block_norms,
    fractional,
    gathered_top_k,
    scaled_answers,
    stochastic_rounding,
)
from laconic.kernels.cpu import error_feedback as cpu_error_feedback
from laconic.kernels.cpu import residuals as cpu_residuals
from laconic.kernels.cpu.llvm import vectors
from laconic.kernels.twins import blocks, error_feedback, gathered, residuals, words
from laconic.kernels.twins.replaced import in_place, with_parts

TWINS: Mapping[str, Mapping[Any, Callable[..., Any]]] = {
    "vectors.selected": {vectors.selected: words.selected},
    "vectors.add_signs_at": {vectors.add_signs_at: words.add_signs_at},
    "vectors.compress": {vectors.compress: vectors.compress_by_loop},
    "vectors.expand": {vectors.expand: vectors.expand_by_loop},
    "error_feedback.step": {cpu_error_feedback.error_feedback_step: error_feedback.error_feedback_step},
    "error_feedback.total": {cpu_error_feedback.error_feedback_total: error_feedback.error_feedback_total},
    "residuals.correct_run": {cpu_residuals._tiles: residuals.tiles},
    "scaled_answers.mean_run": {
        scaled_answers._measure: residuals.measure,
        scaled_answers._write_unsent: residuals.write_unsent,
    },
    "stochastic_rounding.draw_groups": {stochastic_rounding.quantize_blocks: blocks.quantize},
    "reductions.run_squares": {block_norms._squares: blocks.squares},
    "level_sums": {fractional._spans: blocks.spans, fractional._level_chunks: blocks.level_chunks},
    "gathered_top_k.scaled_at": {gathered_top_k._scaled: gathered.scaled},
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
