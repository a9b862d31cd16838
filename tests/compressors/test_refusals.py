"""Wrong hyper-parameters of compressors are refused by name."""

import pytest
import torch

from laconic.compressors import DenseValues, ScaledSign, Sign, signs
from support.inputs import over_inputs


@over_inputs("keep", [0, 0.0, -0.1, 1.0001, float("nan"), float("inf")])
def test_a_share_outside_its_range_is_named(keep):
    with pytest.raises(ValueError, match=rf"^sign: keep={keep} must be in \(0, 1\]; the default is 1.0$"):
        Sign(keep=keep)
    with pytest.raises(ValueError, match=rf"^signs: keep={keep} must be in \(0, 1\]"):
        signs(torch.ones(2), keep=keep)


@over_inputs("blocks", ["", "0", "-3", "2.5", "tensor", "\u00b2", "1 0"])
def test_blocks_that_are_no_size_are_named(blocks):
    message = rf'^scaled-sign: blocks={blocks!r} must be "vector", "layer" or a whole number of elements above 0$'
    with pytest.raises(ValueError, match=message):
        ScaledSign(blocks=blocks)


def test_wrong_types_and_names_of_hyperparameters_are_named():
    with pytest.raises(TypeError, match=r"^scaled-sign: blocks=64 must be a text; the default is 'layer'$"):
        ScaledSign(blocks=64)
    with pytest.raises(TypeError, match=r"^sign: keep='0.3' must be a number in \(0, 1\]$"):
        Sign(keep="0.3")
    with pytest.raises(
        ValueError, match=r"^dense: value_type='float16' must be one of float32, bfloat16; did you mean bfloat16\?$"
    ):
        DenseValues(value_type="float16")
    with pytest.raises(TypeError, match="value_typ"):
        DenseValues(value_typ="float32")
    with pytest.raises(TypeError, match="positional"):
        Sign(0.3)
