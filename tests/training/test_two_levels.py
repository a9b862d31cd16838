"""Ranks on one node average their gradients, and the method exchanges between nodes."""

from pathlib import Path

import pytest
import torch

from laconic.drivers.distributed import shared_memory
from laconic.drivers.distributed.nodes import on_hosts
from laconic.protocol.ring_allreduce import ring_bytes
from laconic.wire import HEADER_BYTES
from support import small_model, two_levels
from support.methods import IN_STEP, layouts_of, with_test_settings
from support.ranks import ends_of_ranks, run_ranks

pytestmark = pytest.mark.xdist_group(__name__)

ROUNDS = 6  # local steps end with an exchange
CASES = {
    "an all-reduce": ("sgd", {"layout": "allreduce"}),
    "a server": ("ec-sgd", {"layout": "rank0"}),
    "shards": ("compskip", {"layout": "sharded"}),
    "all to all": ("signsgd-mv", {"layout": "allgather"}),
    "sparse answers": ("sparse", {"layout": "rank0"}),
    "local steps": ("diloco", {"local_steps": 2}),
}


SCENARIOS = ("with_one_inf", "with_unlike_use", "saved_and_loaded", "on_one_host", "refused", "attached")


def run_scenarios(rank):
    return {name: getattr(two_levels, name)(rank) for name in SCENARIOS}


@pytest.fixture(scope="module")
def of():
    """Returns what the four ranks found in a scenario."""
    by_rank = run_ranks(run_scenarios, 4)
    return lambda name: [found[name] for found in by_rank]


def run_all(rank, cases, train=two_levels.trained):
    return [train(rank, name, ROUNDS, **settings) for name, settings in cases]


def run_all_without_shared_memory(rank, cases):
    return run_all(rank, cases, two_levels.trained_without_shared_memory)


def compared(cases, run=run_all):
    by_rank = run_ranks(run, 4, list(cases.values()))
    for case, (name, settings), *found in zip(cases, cases.values(), *by_rank, strict=True):
        values, traffic = two_levels.expected(name, ROUNDS, **settings)
        for rank, (own, _) in enumerate(found):
            assert torch.equal(own, values), (case, rank)
        counts = [each.up for _, each in found]
        assert sum(counts[1:], counts[0]) == traffic.up, case
    return by_rank


def test_two_nodes_do_what_two_workers_with_the_mean_gradients_do():
    by_rank = compared(CASES)
    d, n_tensors = small_model.N_PARAMETERS, 4
    leading, following = (by_rank[rank][0][1].inside for rank in (0, 1))
    who_uses_what = ring_bytes(n_tensors + 1, 2, 4)
    assert following.wire_bytes == ROUNDS * (who_uses_what + 4 * d)  # its gradient, in memory
    assert leading.wire_bytes == ROUNDS * (who_uses_what + 4 * 8 + 4 * d)  # the result
    leading, following = (by_rank[rank][list(CASES).index("local steps")][1].inside for rank in (0, 1))
    n_results = ROUNDS // 2
    assert following.wire_bytes == ROUNDS * (who_uses_what + 4 * d)
    assert leading.wire_bytes == ROUNDS * (who_uses_what + 4 * d) + n_results * (4 * 8 + 4 * d)


def test_ranks_that_cannot_share_memory_send_each_other_the_same_numbers():
    by_rank = compared({case: CASES[case] for case in ("a server", "local steps")}, run_all_without_shared_memory)
    d, n_tensors = small_model.N_PARAMETERS, 4
    leading, following = (by_rank[rank][0][1].inside for rank in (0, 1))
    mean = ring_bytes(d + n_tensors + 1, 2, 4)
    assert following.wire_bytes == ROUNDS * mean
    assert leading.wire_bytes == ROUNDS * (mean + 4 * 8 + 4 * d)


IN_PACKETS = {
    "a server": ("ec-sgd", {"layout": "rank0"}),
    "shards": ("signsgd-mv", {"layout": "sharded"}),
    "all to all": ("signsgd-mv", {"layout": "allgather"}),
}


def run_all_in_packets(rank, cases):
    return run_all(rank, cases, two_levels.trained_in_packets)


def test_results_of_few_bits_go_to_the_other_ranks_of_a_node_in_packets():
    d, n_tensors = small_model.N_PARAMETERS, 4
    by_rank = compared(IN_PACKETS, run_all_in_packets)
    of_one_server, of_shards, to_all = (found.inside.wire_bytes // ROUNDS for _, found in by_rank[0])
    about = ring_bytes(n_tensors + 1, 2, 4) + 4 * 8
    head, fields = HEADER_BYTES, 20
    assert to_all == about + head + fields + (d + 7) // 8
    assert about < of_shards < to_all + head + fields + 2
    assert about < of_one_server < about + d


def run_all_in_packets_without_memory(rank, cases):
    return run_all(
        rank, [(name, {**given, "without_memory": True}) for name, given in cases], two_levels.trained_in_packets
    )


@pytest.mark.slow
def test_packets_of_results_are_sent_where_ranks_cannot_share_memory():
    compared({case: IN_PACKETS[case] for case in ("a server", "shards")}, run_all_in_packets_without_memory)


def test_shared_memory_is_not_made_where_it_does_not_fit(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "FOLDER", str(tmp_path))
    assert shared_memory.make_file(1 << 60) is None
    assert not [*tmp_path.iterdir()]
    monkeypatch.setattr(shared_memory, "FOLDER", str(tmp_path / "nowhere"))
    assert shared_memory.make_file(1 << 10) is None


def test_another_file_of_the_same_name_is_not_taken_for_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "FOLDER", str(tmp_path))
    path, n_bytes = shared_memory.make_file(1 << 10), 1 << 10
    assert shared_memory.open_file(path, n_bytes) is not None
    assert shared_memory.open_file(path, n_bytes + 1) is None
    Path(path).write_bytes(bytes(n_bytes))
    assert shared_memory.open_file(path, n_bytes) is None
    assert shared_memory.open_file(str(tmp_path / "missing"), n_bytes) is None


@pytest.mark.slow
def test_every_method_and_layout_that_nodes_admit_does():
    refused = {"dsgd", "lasg", "sasg"}
    names = [name for name in IN_STEP if name not in refused]
    layouts = {name: layouts_of(with_test_settings(name), 2) for name in names}
    compared(
        {
            f"{name} {layout}": (name, {"layout": layout})
            for name in names
            for layout in layouts[name]
            if layout != "dedicated"
        }
    )


def test_one_inf_on_a_rank_that_leads_no_node_aborts_the_round_on_all(of):
    before, aborted, after = zip(*of("with_one_inf"), strict=True)
    for values, n_aborted in aborted:
        assert n_aborted == 1
        assert torch.equal(values, before[0][0])
    assert all(torch.equal(values, after[0][0]) for values, _ in after)
    assert torch.isfinite(after[0][0]).all()


def test_a_parameter_takes_part_that_any_rank_of_any_node_has_used(of):
    for rank in range(4):
        _, of_second, of_last = of("with_unlike_use")[rank]
        bias = slice(-3, None)
        second = torch.stack([two_levels.gradient(other, 1)[bias] / 4 for other in (0, 2, 3)]).sum(0)
        torch.testing.assert_close(of_second, second)
        torch.testing.assert_close(of_last, two_levels.mean_gradient(1, 2)[bias] / 2)


def test_training_goes_on_bit_for_bit_from_what_each_rank_saved_and_from_the_gathered_state(of):
    for undisturbed, own, gathered, on_one_node in of("saved_and_loaded"):
        assert torch.equal(own, undisturbed)
        assert torch.equal(gathered, undisturbed)
        assert torch.equal(on_one_node, of("saved_and_loaded")[0][3])
        assert torch.isfinite(on_one_node).all()


def test_ranks_of_one_host_are_one_node_between_which_nothing_travels(of):
    for _, n_bytes in of("on_one_host"):
        assert n_bytes == 0


def test_what_cannot_run_over_nodes_is_refused_by_name_on_all_ranks(of):
    words = (
        "nodes=3 does not divide 4 ranks",
        "does not go with dsgd",
        "does not go with asgd",
        "dedicated",
        "nodes=auto",
    )
    for errors in of("refused"):
        assert len(errors) == len(words)
        for error, text in zip(errors, words, strict=True):
            assert text in error


def test_attached_methods_give_the_bits_of_the_optimizer_on_all_ranks(of):
    one, *others = of("attached")
    for name, found in one.items():
        assert torch.isfinite(found["hook"]).all()
        assert torch.equal(found["hook"], found["step"]), name
        for other in others:
            assert torch.equal(found["hook"], other[name]["hook"]), name
            assert torch.equal(found["bytes, hook"], other[name]["bytes, hook"]), name


@pytest.mark.slow
def test_a_rank_that_is_lost_inside_one_node_ends_the_step_of_all_nodes():
    *left, lost = ends_of_ranks(two_levels.after_a_loss, 4)
    assert lost.result is None
    for ended in left:
        assert ended.result is not None
        assert ended.result != "no error"
    assert "global rank 3" in left[2].result


def test_hosts_are_numbered_by_their_lowest_rank_and_must_have_equally_many():
    assert on_hosts(["b", "a", "b", "a"]).node_of == (0, 1, 0, 1)
    assert on_hosts(["b", "a", "b", "a"]).leading == [0, 1]
    with pytest.raises(ValueError, match="2 on b, 1 on a"):
        on_hosts(["b", "a", "b"])
