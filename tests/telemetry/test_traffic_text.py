"""What a `Traffic` prints and what a notebook shows: 0 is a count of nothing, "-" is what nobody counts."""

import re
from html.parser import HTMLParser

import pytest
import torch

import laconic
from support import methods, small_model


def simulated(algorithm, rounds=2, **options):
    net = small_model.net()
    simulation = laconic.Simulation(
        net, torch.optim.SGD(net.parameters(), lr=0.1), algorithm, workers=2, lr="kept", **options
    )
    for round_ in range(rounds):
        simulation.step(lambda rank, round_=round_: small_model.loss(net, rank, round_))
    return simulation


def rows_of(text):
    """The cells of each row of the printed table, by the row's name."""
    lines = [re.split(r"  +", line) for line in text.splitlines()]
    header, rows = lines[0][1:], {line[0]: line[1:] for line in lines[1:] if len(line) > 1}
    return {name: dict(zip(header, cells, strict=True)) for name, cells in rows.items() if len(cells) == len(header)}


def test_what_a_serving_rank_passes_on_has_a_row_and_what_is_not_counted_of_it_is_no_zero():
    served = rows_of(str(simulated(laconic.ECSGD(), layout="rank0").traffic))["served"]
    assert served["messages"] == "4"
    assert served["wire"] != "0 B"
    assert {served[name] for name in ("skips", "local", "payload", "paper")} == {"-"}


def test_a_job_without_a_serving_rank_has_no_such_row():
    assert "served" not in rows_of(str(simulated(laconic.SGD()).traffic))


def test_skip_messages_have_a_column_where_there_are_any():
    lazy = laconic.CompSkip(skip=laconic.RandomSkips(probability=0.9))
    rows = rows_of(str(simulated(lazy, rounds=9).traffic))
    assert int(rows["up"]["skip messages"]) > 0
    assert "skip messages" not in str(simulated(laconic.SGD()).traffic)


def test_bits_that_the_papers_formula_leaves_out_are_no_zero():
    rows = rows_of(str(simulated(methods.with_test_settings("sasg")).traffic))
    assert rows["down"]["paper"] == "-"
    assert rows["down"]["payload"] != "0 B"


def test_seconds_say_whether_they_are_simulated_and_are_not_0_where_nothing_takes_time():
    linked = simulated(laconic.SGD(), link=laconic.Link(bytes_per_s=1e6, latency_s=0.01)).traffic
    assert "simulated time: 4" in str(linked)
    assert "simulated time: none, since neither link nor compute time is given" in str(simulated(laconic.SGD()).traffic)
    assert "simulated time: 0 s" in str(simulated(laconic.SGD(), rounds=0).traffic)


def test_replica_syncs_are_shown_where_there_were_any():
    counts = {"up": laconic.Count(), "down": laconic.Count(), "setup": laconic.Count()}
    seconds = {"compute": 1.5, "encode": 0.0}
    text = str(laconic.Traffic(**counts, rounds=1, aborted_rounds=0, seconds=seconds, replica_syncs=2))
    assert "1 round, 0 aborted; control 0 B; replica syncs 2" in text
    assert "wall time: compute 1.50 s, encode 0 s" in text
    none = laconic.Traffic(**counts, rounds=2, aborted_rounds=0, seconds=seconds)
    assert "replica syncs" not in str(none)


class Seen(HTMLParser):
    """The tags, and the text outside them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        self.colors = [value for _, value in attrs if value and "#" in value]
        assert not self.colors, "colors are the page's own"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("what", ["traffic", "simulation"])
def test_a_notebook_shows_closed_tables_of_text_alone(what):
    simulation = simulated(laconic.CompSkip(c=0.1))
    page = Seen((simulation.traffic if what == "traffic" else simulation)._repr_html_())
    assert not page.open
    assert set(page.tags) <= {"table", "caption", "tr", "th", "td", "p"}
    words = " ".join(page.text)
    assert "2 rounds, 0 aborted" in words
    if what == "simulation":
        assert "CompSkip(" in words
        assert "113 parameters" in words


def test_a_notebook_shows_every_figure_of_a_count():
    page = Seen(laconic.Count(messages=3, wire_bytes=1234)._repr_html_())
    words = " ".join(page.text)
    assert "messages 3" in words
    assert "wire bytes 1,234" in words
    assert "skip messages 0" in words


def test_names_in_a_notebook_are_text():
    name = "<script>alert(1)</script>"
    count = laconic.Count(messages=1, wire_bytes=5)
    traffic = laconic.Traffic(
        up=count, down=count, setup=count, rounds=1, aborted_rounds=0, seconds={name: 1.0},
        up_by_exchange={name: count, "b": count}, faults={name: 1},
    )  # fmt: skip
    assert "<script" not in traffic._repr_html_()
    assert "&lt;script&gt;" in traffic._repr_html_()
