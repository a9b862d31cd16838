"""What people use today: times that follow by hand from buckets, an all-reduce and the gradient's time."""

import pytest

from laconic.contract import ModelSpec
from laconic.network import Link
from laconic.planning.query import Query
from laconic.planning.today import today

MIB = 1 << 20


def rows_of(spec, *, compute_s=0.0, n_workers=2, bytes_per_s=1.0 * MIB, latency_s=0.0):
    asked = Query(
        spec=spec, n_workers=n_workers, link=Link(bytes_per_s=bytes_per_s, latency_s=latency_s), compute_s=compute_s
    )
    return {row.name: row for row in today(asked, lambda at: 51.0 + (at.compute_s or 0.0), measure=False)}


# 51 MiB: buckets of 1, 25 and 25 MiB. Of two workers, each sends half of it twice: a bucket takes a second per MiB.
SPEC = ModelSpec.of_sizes(51 * MIB // 4)


def test_without_a_gradient_there_is_nothing_to_overlap_with():
    rows = rows_of(SPEC)
    assert rows["DDP"].step_s == pytest.approx(51)
    assert rows["DDP + fp16"].step_s == pytest.approx(25.5)
    assert rows["DDP + PowerSGD"].step_s == pytest.approx(51 * 2 / 512, rel=1e-3)
    assert rows["DDP"].up_bytes == 51 * MIB / 2


def test_behind_a_long_backward_pass_only_the_last_bucket_is_seen():
    rows = rows_of(SPEC, compute_s=306.0)
    assert rows["DDP"].step_s == pytest.approx(306 + 25)
    assert rows["DDP + fp16"].step_s == pytest.approx(306 + 12.5)


def test_a_short_backward_pass_is_hidden_behind_the_buckets():
    rows = rows_of(SPEC, compute_s=3.0)
    assert rows["DDP"].step_s == pytest.approx(1 + 2 / 51 + 51)  # the forward pass, and the first bucket's share


def test_a_bound_holds_whatever_the_gradient_takes():
    unknown = rows_of(SPEC, compute_s=None)
    for compute_s in (0.0, 1.0, 10.0, 30.0, 60.0, 100.0, 1000.0):
        for name, row in rows_of(SPEC, compute_s=compute_s).items():
            assert row.speed_up <= unknown[name].speed_up_bound * 1.05, (name, compute_s)
            assert row.speed_up == row.speed_up_bound


def test_powersgd_sends_two_factors_of_each_matrix_and_the_rest_as_it_is():
    spec = ModelSpec(names=("w", "b", "narrow"), shapes=((100, 50), (100,), (2, 3)))
    row = rows_of(spec)["DDP + PowerSGD"]
    assert row.up_bytes == 4 * (100 + 50 + 100 + 6) / 2
