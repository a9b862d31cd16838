"""The parts of the benches that have a right answer."""

import math

import pytest
import torch

from laconic.bench.cases import cases
from laconic.bench.contender import Ours, resnet_shapes
from laconic.bench.measure import in_turns, quartiles, vector_of
from laconic.bench.scale import JobSize, slopes
from laconic.bench.wire import shipments
from support.ranks import run_ranks


@pytest.mark.parametrize("d", [1, 100, 5_000, 407_050, 11_173_962, 25_557_032])
def test_the_synthetic_model_has_as_many_parameters_as_asked(d):
    assert sum(math.prod(shape) for shape in resnet_shapes(d)) == d


def test_eleven_million_parameters_are_a_resnet18s_exactly():
    shapes = resnet_shapes(11_173_962)
    assert shapes[0] == (64, 3, 3, 3)
    assert shapes[-2:] == [(10, 512), (10,)]
    assert len(shapes) == 62


def _whether_time_is_left_out(rank, name, n_steps):
    gradients = [[torch.randn(50)] for _ in range(3)]
    ours = Ours(name, {}, [(50,)], gradients, 0.0)
    found = []
    for _ in range(n_steps):
        ours.prepare()
        ours.step()
        found.append(ours.left_out_s() > 0)
    compute_s = ours.opt.traffic.seconds["compute"]
    ours.close()
    return found, compute_s > 0


@pytest.mark.slow
def test_the_time_of_a_second_gradient_is_left_out_from_the_second_round_on():
    for name, expected in (("sasg", [False, True, True]), ("lag", [False] * 3)):
        assert run_ranks(_whether_time_is_left_out, 2, name, 3) == [(expected, True)] * 2


def test_functions_take_turns_and_a_slow_one_has_fewer():
    order = []
    seconds = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 5, limit_s=0.0)
    assert order == ["a", "b"] * 4  # one that is not counted, and the three that every rank gets
    assert [len(taken) for taken in seconds.values()] == [3, 3]


def test_quartiles_of_one_sample_are_itself():
    assert quartiles([3.0]) == (3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0]) == (1.5, 2.5)


def test_slopes_of_exact_powers_are_their_exponents():
    seconds = {JobSize(workers=n, d=d): 3 * n**1.5 * d**0.5 for n in (2, 4, 8) for d in (10, 100, 1000)}
    assert slopes(seconds) == pytest.approx((1.5, 0.5))


def test_cells_left_out_at_one_end_turn_no_slope():
    def taken(n: int, d: int) -> float:
        return n * (d + 500.0)  # linear in N; in d only for large ones

    full = {JobSize(workers=n, d=d): taken(n, d) for n in (2, 4, 8) for d in (10, 100, 1000)}
    short = {cell: taken(cell.workers, cell.d) for cell in full if cell.workers * cell.d <= 2000}
    assert len(short) < len(full)
    assert slopes(short)[0] == pytest.approx(slopes(full)[0])
    assert slopes(full)[0] == pytest.approx(1)


def test_one_size_alone_has_no_slope():
    by_workers, by_sizes = slopes({JobSize(workers=2, d=10): 1.0, JobSize(workers=4, d=10): 2.0})
    assert by_workers == pytest.approx(1)
    assert math.isnan(by_sizes)


@pytest.mark.slow
@pytest.mark.parametrize("shipment", shipments(0.05), ids=lambda shipment: shipment.name)
def test_no_packet_says_more_in_fewer_bits_than_its_bound(shipment):
    packet = shipment.pack(vector_of(3000))
    minimum = packet.minimum_bits
    assert minimum is None or 0 < minimum <= packet.payload_bits * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(cases([0.05])))
def test_every_kernel_runs_for_every_contender_it_names(name):
    calls = cases([0.05])[name].prepare(vector_of(1001))
    assert "laconic" in calls
    for call in calls.values():
        call()
        call()
