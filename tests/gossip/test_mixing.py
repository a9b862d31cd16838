"""Mixing matrices against Liu and Zhang, sections 5.1 and 5.2, and against what makes decentralized SGD converge."""

import math

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.gossip.graphs import GRAPHS, SHIFT_ONE, cycle_length
from laconic.gossip.mixing import Mixing
from support.inputs import failing_at, over_inputs

COUNTS = {
    "exponential": (1, 2, 3, 7, 8, 13, 16),
    "full": (1, 2, 3, 7, 10),
    "ring": (1, 2, 3, 4, 9),
    "star": (1, 2, 3, 4, 11),
    "torus": (4, 6, 8, 9, 12, 25),
    "shift-one": (2, 4, 6, 8, 14),
}
each_graph = pytest.mark.parametrize("text", COUNTS)


@st.composite
def connected_graphs(draw, maximum=9):
    """A random tree, so that the graph is connected, and some more edges."""
    n = draw(st.integers(1, maximum))
    edges = {(draw(st.integers(0, rank - 1)), rank) for rank in range(1, n)}
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    edges |= draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    graph = networkx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges)
    return graph


def assert_mixes(w):
    assert np.array_equal(w, w.T)
    assert (w >= 0).all()
    np.testing.assert_allclose(w.sum(axis=1), 1, rtol=0, atol=1e-12)


# The paper's examples


@over_inputs("n", (1, 2, 3, 7, 10, 49, 64))
def test_full_mixing_is_the_mean_with_equal_bits_everywhere_and_rho_0(n):
    mixing = Mixing.from_text("full", n)
    assert np.array_equal(mixing.matrix(), np.full((n, n), 1 / n))
    assert mixing.rho == pytest.approx(0, abs=1e-14)
    assert mixing.spectral_gap == pytest.approx(1)


def test_a_ring_gives_a_third_to_the_worker_and_to_each_neighbor():
    third = 1 / 3
    expected = [
        [third, third, 0, 0, third],
        [third, third, third, 0, 0],
        [0, third, third, third, 0],
        [0, 0, third, third, third],
        [third, 0, 0, third, third],
    ]
    assert np.array_equal(Mixing.from_text("ring", 5).matrix(), expected)


def test_a_ring_of_two_takes_the_mean_and_a_ring_of_one_keeps_its_model():
    assert Mixing.from_text("ring", 2).matrix().tolist() == [[0.5, 0.5], [0.5, 0.5]]
    alone = Mixing.from_text("ring", 1)
    assert alone.matrix().tolist() == [[1]]
    assert (alone.neighbors(0), alone.rho, alone.text) == ((), 0.0, "ring")


RHO_OF_RINGS = {
    3: 0, 4: 1 / 3, 5: 0.539345, 8: 0.804738, 10: 0.872678, 16: 0.949253, 32: 0.987190, 64: 0.996790,
}  # fmt: skip


def test_rho_of_the_ring_has_its_closed_form():
    for n, rho in RHO_OF_RINGS.items():
        ring = Mixing.from_text("ring", n)
        assert ring.rho == pytest.approx(rho, abs=5e-7), n
        assert ring.rho == pytest.approx(abs(1 + 2 * math.cos(2 * math.pi / n)) / 3, abs=1e-12), n


def test_the_gap_of_a_long_ring_has_4_where_the_paper_prints_16():
    gap = Mixing.from_text("ring", 256).spectral_gap
    assert gap == pytest.approx(4 * math.pi**2 / (3 * 256**2), rel=1e-3)


# The other graphs


@each_graph
def test_what_is_built_is_symmetric_doubly_stochastic_and_connected_over_a_cycle(text):
    for n in COUNTS[text]:
        with failing_at(n=n):
            for round_ in range(cycle_length(text, n)):
                assert_mixes(Mixing.from_text(text, n, round_).matrix())
            mean = Mixing.over_cycle(text, n)
            assert_mixes(mean.matrix())
            assert mean.rho < 1 - 1e-6


@each_graph
def test_a_matrix_its_weights_and_its_neighbors_agree(text):
    for n in COUNTS[text]:
        with failing_at(n=n):
            mixing = Mixing.from_text(text, n)
            w = mixing.matrix()
            assert w.shape == (mixing.n_workers, mixing.n_workers) == (n, n)
            assert [[mixing.weight(i, j) for j in range(n)] for i in range(n)] == w.tolist()
            for rank in range(n):
                assert mixing.neighbors(rank) == tuple(j for j in range(n) if j != rank and w[rank, j] > 0)


def test_every_name_is_built_in_these_tests():
    assert tuple(sorted(COUNTS)) == GRAPHS


def test_a_torus_gives_a_fifth_to_each_of_four_neighbors():
    torus = Mixing.from_text("torus", 12)  # 3 rows of 4
    assert torus.neighbors(5) == (1, 4, 6, 9)
    assert torus.neighbors(0) == (1, 3, 4, 8)
    assert {weight for row in torus.rows for _, weight in row} == {0.2} == set(torus.self_weights)


def test_a_torus_side_of_two_has_one_edge_where_both_directions_lead_to_one_worker():
    torus = Mixing.from_text("torus", 6)  # 2 rows of 3
    assert torus.neighbors(1) == (0, 2, 4)
    assert set(torus.self_weights) == {0.25}


def test_a_torus_mixes_faster_than_a_ring_and_an_exponential_graph_faster_still():
    rho = [Mixing.from_text(text, 64).rho for text in ("full", "exponential", "torus", "ring")]
    assert rho == sorted(rho)


def test_exponential_neighbors_are_a_power_of_two_away_on_the_circle():
    assert Mixing.from_text("exponential", 16).neighbors(0) == (1, 2, 4, 8, 12, 14, 15)
    assert Mixing.from_text("exponential", 7).neighbors(6) == (0, 1, 4, 5)


def test_self_weights_of_a_star_are_one_less_the_weights_of_its_edges():
    star = Mixing.from_text("star", 4)
    assert star.matrix().tolist() == [
        [0.25, 0.25, 0.25, 0.25],
        [0.25, 0.75, 0, 0],
        [0.25, 0, 0.75, 0],
        [0.25, 0, 0, 0.75],
    ]
    assert star.rho == pytest.approx(0.75)  # two leaves that differ: 1 - 1/N


@over_inputs("n", COUNTS[SHIFT_ONE])
def test_shift_one_pairs_every_worker_with_every_other_once_in_a_cycle(n):
    met = set()
    for round_ in range(n - 1):
        mixing = Mixing.from_text(SHIFT_ONE, n, round_)
        assert set(mixing.self_weights) == {0.5}
        pairs = {edge for edge, weight in mixing.edges() if weight == 0.5}
        assert sorted(rank for pair in pairs for rank in pair) == list(range(n))
        assert not met & pairs
        met |= pairs
    assert len(met) == n * (n - 1) // 2


def test_shift_one_begins_again_after_a_cycle():
    rounds = [Mixing.from_text(SHIFT_ONE, 6, round_) for round_ in range(10)]
    assert rounds[:5] == rounds[5:]
    assert rounds[0] != rounds[1]
    assert rounds[0].rho == pytest.approx(1)  # the graph of a single round is not connected
    assert rounds[0].spectral_gap == pytest.approx(0, abs=1e-12)


def test_the_mean_of_a_shift_one_cycle_is_half_the_worker_itself_and_an_equal_share_of_all_others():
    w = Mixing.over_cycle(SHIFT_ONE, 6).matrix()
    np.testing.assert_allclose(w, np.full((6, 6), 0.1) + 0.4 * np.eye(6), rtol=0, atol=1e-15)


def test_only_shift_one_depends_on_the_round():
    for text in set(GRAPHS) - {SHIFT_ONE}:
        assert cycle_length(text, 4) == 1
        assert Mixing.from_text(text, 4, round_=3) == Mixing.from_text(text, 4) == Mixing.over_cycle(text, 4)


def test_graphs_of_1024_workers_hold_as_many_weights_as_they_have_edges():
    n_weights = {text: sum(map(len, Mixing.from_text(text, 1024).rows)) for text in GRAPHS if text != "full"}
    assert n_weights == {
        "exponential": 1024 * 19,
        "ring": 1024 * 2,
        "shift-one": 1024,
        "star": 2 * 1023,
        "torus": 1024 * 4,
    }


# Any connected graph


@given(connected_graphs())
def test_metropolis_weights_mix_on_any_connected_graph(graph):
    mixing = Mixing.from_graph(graph)
    w = mixing.matrix()
    assert_mixes(w)
    for i, j in graph.edges:
        assert w[i, j] == 1 / (1 + max(graph.degree[i], graph.degree[j]))
    assert np.count_nonzero(np.triu(w, 1)) == graph.number_of_edges()
    assert (w.diagonal() > 0).all()
    assert mixing.rho < 1
    far = np.linalg.matrix_power(w, 4000)
    np.testing.assert_allclose(far, np.full_like(w, 1 / len(w)), rtol=0, atol=1e-6)


@given(connected_graphs())
def test_rho_bounds_what_is_left_of_a_disagreement(graph):
    mixing = Mixing.from_graph(graph)
    n = mixing.n_workers
    apart = np.random.default_rng(n).normal(size=(5, n))
    apart -= apart.mean(axis=1, keepdims=True)
    left = np.linalg.norm(apart @ mixing.matrix(), axis=1)
    assert (left <= (mixing.rho + 1e-12) * np.linalg.norm(apart, axis=1) + 1e-12).all()


@given(connected_graphs())
def test_text_and_matrix_give_the_same_mixing_again(graph):
    mixing = Mixing.from_graph(graph)
    again = Mixing.from_matrix(mixing.matrix())
    assert Mixing.from_text(mixing.text, mixing.n_workers) == mixing == again
    assert Mixing.from_text(again.text, again.n_workers) == mixing


@given(connected_graphs(), st.randoms(use_true_random=False))
def test_edges_may_be_typed_in_any_order_and_in_either_direction(graph, random):
    edges = [random.sample(edge, 2) for edge in graph.edges]
    random.shuffle(edges)
    typed = " ".join(f"{one}-{other}" for one, other in edges)
    mixing = Mixing.from_text(typed, len(graph))
    assert mixing == Mixing.from_graph(graph)
    assert mixing.text == Mixing.from_graph(graph).text


@pytest.mark.parametrize("text", [text for text in COUNTS if text != SHIFT_ONE])
def test_a_builders_matrix_is_that_of_the_same_graph_from_networkx(text):
    for n in COUNTS[text]:
        with failing_at(n=n):
            mixing = Mixing.from_text(text, n)
            graph = networkx.from_numpy_array(mixing.matrix() - np.diag(mixing.self_weights))
            assert Mixing.from_graph(graph) == mixing == Mixing.from_matrix(mixing.matrix())
            assert Mixing.from_text(mixing.text, n) == mixing
            assert mixing.text == text


# What users give


def test_an_edge_list_gets_metropolis_weights():
    path = Mixing.from_text("2-1 0-1", 3)
    assert path.matrix() == pytest.approx(np.array([[2, 1, 0], [1, 1, 1], [0, 1, 2]]) / 3)
    assert path.text == "0-1 1-2"


def test_weights_may_be_given_and_the_rest_is_the_self_weight():
    mixing = Mixing.from_text("0-1:0.25 1-2:0.5", 3)
    assert mixing.matrix().tolist() == [[0.75, 0.25, 0], [0.25, 0.25, 0.5], [0, 0.5, 0.5]]
    assert mixing.text == "0-1:0.25 1-2:0.5"


def test_the_text_of_one_worker_is_empty():
    alone = Mixing.from_matrix([[1.0]])
    assert alone.text == ""
    assert Mixing.from_text("", 1) == alone


def test_a_float32_matrix_is_accepted_and_its_rows_made_to_sum_to_1():
    w = Mixing.from_matrix(Mixing.from_text("ring", 5).matrix().astype(np.float32)).matrix()
    assert np.array_equal(w, w.T)
    assert np.abs(w.sum(axis=1) - 1).max() < 1e-15


def test_rounding_below_zero_in_a_matrix_is_no_edge():
    assert Mixing.from_matrix([[0.5, 0.5, -1e-17], [0.5, 0, 0.5], [-1e-17, 0.5, 0.5]]).neighbors(0) == (1,)


def test_edges_that_sum_to_1_but_for_rounding_have_no_self_weight():
    mixing = Mixing.from_text("0-1:0.1 0-2:0.2 0-3:0.7000000000000001 1-2:0.3", 4)
    assert mixing.self_weights[0] == 0.0


@over_inputs(
    ("text", "n", "complaint"),
    [
        ("rign", 4, r"graph='rign' must be one of exponential, full, .*, or edges such as .*did you mean ring"),
        ("0-1 1", 2, r"'1' is neither"),
        ("0-1,1-2", 3, r"'0-1,1-2' is neither"),
        ("0--1", 2, r"'0--1' is neither"),
        ("0-1 1-1", 2, r"edge '1-1': worker 1 cannot have an edge to itself; its self weight is 1 less"),
        ("0-1 1-4", 3, r"edge '1-4': worker 4 must be between 0 and 2, n_workers=3"),
        ("0-1 1-2 1-0", 3, r"edge 0-1 is given twice; .* give it once"),
        ("0-1:0.3 1-2", 3, r"either every edge has a weight or none; write them as '0-1"),
        ("0-1:", 2, r"edge '0-1:': the weight must be in \(0, 1\]"),
        ("0-1:0", 2, r"edge '0-1:0': the weight must be in \(0, 1\]; leave out an edge"),
        ("0-1:-0.1", 2, r"the weight must be in \(0, 1\]"),
        ("0-1:nan", 2, r"the weight must be in \(0, 1\]"),
        ("0-1:0.7 1-2:0.5", 3, r"edges of worker 1 sum to 1.2, which leaves it a self weight of -0.2; .* at most 1"),
        ("0-1 2-3", 4, r"workers 0, 1 are not connected to 2, 3 \(rho=1\); add an edge"),
        ("0-1 1-2 2-0", 4, r"workers 0, 1, 2 are not connected to 3"),
        ("", 12, r"workers 0 are not connected to 1, 2, 3, 4, 5, 6, 7, 8, \.\.\. \(11 in all\)"),
        ("0-1:1", 2, r"workers 0 and 1 only swap their models \(rho=1\), .* give some edges less weight"),
        ("0-1:0.5 1-2:0.5 2-3:0.5 3-0:0.5", 4, r"workers 0, 2 and 1, 3 only swap"),
        ("torus", 7, r"torus: n_workers=7 has no two factors of at least 2; take 8 workers, or graph ring"),
        ("torus", 1, r"torus: n_workers=1 .* take 4 workers"),
        ("torus", 2, r"torus: n_workers=2 .* take 4 workers"),
        ("shift-one", 5, r"shift-one: n_workers=5 must be even; take 6 workers"),
        ("shift-one", 1, r"shift-one: n_workers=1 must be even"),
        ("ring", 0, r"n_workers=0 must be at least 1"),
        ("shift-one", 0, r"n_workers=0 must be at least 1"),
    ],
)
def test_a_bad_text_is_refused_with_the_remedy(text, n, complaint):
    with pytest.raises(ValueError, match=complaint):
        Mixing.from_text(text, n)
    with pytest.raises(ValueError, match=complaint):
        Mixing.over_cycle(text, n)


@over_inputs(
    ("matrix", "complaint"),
    [
        ([[0.5, 0.5]], r"must be square, .* not of shape \(1, 2\)"),
        ([0.5, 0.5], r"must be square"),
        (np.zeros((0, 0)), r"must be square"),
        ([[1, 0], [0]], r"square table of numbers"),
        ([["a"]], r"square table of numbers"),
        ([[np.nan, 0.5], [0.5, 0.5]], r"must be finite"),
        ([[0.5, 0.5], [0.25, 0.75]], r"symmetric, but W\[0, 1\]=0.5 and W\[1, 0\]=0.25; \(W \+ W.T\) / 2"),
        ([[0.5, 0.5], [0.5, 0.4]], r"row 1 sums to 0.9 and must sum to 1; W\[1, 1\]=0.4"),
        ([[1.25, -0.25], [-0.25, 1.25]], r"W\[0, 1\]=-0.25 must be at least 0"),
        ([[0.4, 0.6, 0], [0.6, -0.1, 0.5], [0, 0.5, 0.5]], r"W\[1, 1\]=-0.1 must be at least 0"),
        ([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]], r"workers 0, 1 are not connected to 2"),  # the paper's W_3
        (np.eye(3), r"workers 0 are not connected to 1, 2"),
        ([[0, 1], [1, 0]], r"workers 0 and 1 only swap their models"),
    ],
)
def test_a_bad_matrix_is_refused_with_the_remedy(matrix, complaint):
    with pytest.raises(ValueError, match=complaint):
        Mixing.from_matrix(matrix)


@over_inputs(
    ("graph", "complaint"),
    [
        (networkx.Graph(), r"the 0 nodes must be the workers 0 to n - 1"),
        (networkx.Graph([("a", "b")]), r"convert_node_labels_to_integers"),
        (networkx.Graph([(1, 2)]), r"must be the workers 0 to n - 1"),
        (networkx.DiGraph([(0, 1)]), r"must be undirected, .* graph.to_undirected\(\)"),
        (networkx.MultiGraph([(0, 1), (0, 1)]), r"edge 0-1 is given twice"),
        (networkx.Graph([(0, 1), (1, 1)]), r"worker 1 cannot have an edge to itself"),
        (networkx.Graph([(0, 1), (2, 3)]), r"workers 0, 1 are not connected to 2, 3"),
    ],
)
def test_a_bad_graph_is_refused_with_the_remedy(graph, complaint):
    with pytest.raises(ValueError, match=complaint):
        Mixing.from_graph(graph)


@given(connected_graphs(maximum=5), st.integers(1, 4))
def test_two_graphs_side_by_side_are_refused_and_have_rho_1(graph, n_more):
    both = networkx.disjoint_union(graph, networkx.path_graph(n_more))
    with pytest.raises(ValueError, match=f"are not connected to .*{len(both) - 1}"):
        Mixing.from_graph(both)


@over_inputs("rank", [-1, 3])
def test_an_unknown_worker_is_refused(rank):
    ring = Mixing.from_text("ring", 3)
    for request in (ring.neighbors, lambda rank: ring.weight(rank, 0), lambda rank: ring.weight(0, rank)):
        with pytest.raises(ValueError, match=f"worker {rank} must be between 0 and 2"):
            request(rank)


def test_equal_weights_are_equal_whatever_they_were_made_from():
    assert Mixing.from_text("ring", 3) == Mixing.from_text("full", 3) == Mixing.from_graph(networkx.complete_graph(3))
    assert Mixing.from_text("ring", 4) != Mixing.from_text("star", 4)
