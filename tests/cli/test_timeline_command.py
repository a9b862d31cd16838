"""`laconic timeline`: the list, the letters, the files, and what it refuses."""

import html
import json
from pathlib import Path

import pytest

from laconic.report.timeline.named import NAMED
from laconic.report.visible import visible
from support.command_line import laconic
from support.inputs import over_inputs


def test_the_list_names_every_timeline():
    for ended in (laconic("timeline", "--list"), laconic("timeline")):
        assert ended.code == 0
        for name in NAMED:
            assert name in ended.out


@over_inputs("name", NAMED)
def test_every_timeline_is_shown_in_letters(name):
    ended = laconic("timeline", name)
    assert ended.code == 0
    assert "M1 send" in ended.out
    assert "░" in ended.out


def test_settings_of_one_s_own_reach_the_picture():
    ended = laconic("timeline", "ring", "--workers", "8", "--size", "45MB", "--bandwidth", "1Gbit", "--latency", "1ms")
    assert ended.code == 0
    assert "8 workers, 45.0 MB, latency 1.00 ms, transfer 360 ms" in ended.out
    assert "one exchange by the closed form: 644 ms" in ended.out
    assert "M8 receive" in ended.out
    free = laconic("timeline", "sync-server", "--latency", "0", "--transfer", "3s", "--compute", "4s", "--rounds", "1")
    assert "one round by the closed form: 22 s, 3 gradients" in free.out
    assert "░" not in free.out


@pytest.mark.slow
def test_files_are_written_by_their_endings(tmp_path):
    files = [tmp_path / "new" / f"gossip{ending}" for ending in (".png", ".SVG", ".html", ".pdf")]
    ended = laconic("timeline", "gossip-ring", *(word for file in files for word in ("--out", str(file))))
    assert ended.code == 0
    assert [file.read_bytes()[:5] for file in files] == [b"\x89PNG\r", b"<?xml", b"<!DOC", b"%PDF-"]
    assert "M1 send" not in ended.out


def test_files_are_checked_before_the_timeline_is_made(tmp_path):
    files = ("--out", str(tmp_path / "new" / "a.svg"), "--out", str(tmp_path))
    ended = laconic("timeline", "ring", "--workers", "200", *files)
    assert f"--out {tmp_path}: the ending must be one of" in ended.err
    (tmp_path / "folder.svg").mkdir()
    ended = laconic("timeline", "ring", "--workers", "200", "--out", str(tmp_path / "folder.svg"))
    assert "folder.svg is a folder; give a file to write" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.svg"]


@pytest.mark.parametrize("name", ["a[bold]b", "[red]q", "$x_{$", "@DATA@", "two\nlines", "\x1b[2Jx", "\u202egpj"])
def test_no_file_s_name_is_markup_a_formula_or_a_mark_of_the_page(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.json").write_text('[{"sender": 0, "receiver": 1, "n_bytes": 1000}]')
    out = f"{name}.html"
    ended = laconic("timeline", "--message-schedule", f"{name}.json", "--bandwidth", "1Mbit", "--out", out)
    assert (ended.code, ended.out, ended.err) == (0, f"wrote {visible(out)}\n", "")
    page = Path(out).read_text()
    assert f"<h1>{html.escape(visible(name))}.json</h1>" in page
    assert 'id="data">{"' in page
    shown = laconic("timeline", "--message-schedule", f"{name}.json", "--bandwidth", "1Mbit")
    assert shown.out.startswith(f"{visible(name)}.json\n")


def test_a_message_schedule_of_one_s_own_is_plotted(tmp_path):
    file = tmp_path / "mine.json"
    steps = [
        {"node": 0, "compute_s": 1},
        {"sender": 0, "receiver": 1, "n_bytes": 125_000_000, "after": [0]},
        {"sender": 1, "receiver": 0, "n_bytes": 0, "at_s": 4.5},
    ]
    file.write_text(json.dumps(steps))
    ended = laconic("timeline", "--message-schedule", str(file), "--bandwidth", "1Gbit", "--latency", "500ms")
    assert ended.code == 0
    assert "M1 compute" in ended.out
    assert "5 s from the first request to the end" in ended.out


@over_inputs(
    ("arguments", "message"),
    [
        (("rings",), "there is no timeline 'rings'"),
        (("ring", "--workers", "0"), "--workers 0 must be in 1 .. 2048"),
        (("ring", "--workers", "100000"), "--workers 100000 must be in 1 .. 2048"),
        (("ring", "--rounds", "0"), "--rounds 0 must be at least 1"),
        (("ring", "--workers", "200"), "200 machines are too many for a picture"),
        (("ring", "--latency", "-1s"), "--latency: duration '-1s' must be above 0"),
        (("ring", "--transfer", "fast"), "--transfer: duration 'fast' must be a number and a unit"),
        (("ring", "--size", "1Mbit", "--bandwidth", "1Mbit"), "--size: size '1Mbit' must be a number and a unit"),
        (("ring", "--size", "1MB"), "--size needs --bandwidth BANDWIDTH or --transfer TIME"),
        (("ring", "--transfer", "1s", "--bandwidth", "1Mbit"), "--transfer and --bandwidth exclude each other"),
        (("ring", "--compute", "1s,2s"), "--compute has 2 times; give one for all 4 workers, or one for each"),
        (("sync-server", "--workers", "4"), "this timeline has compute times for 3 workers; give --compute too"),
        (("example-1.3.1", "--workers", "4"), "--workers: example-1.3.1 is one example with 3 machines"),
        (("ring", "--out", "ring.jpg"), "--out ring.jpg: the ending must be one of .png, .svg, .pdf, .html"),
        (("ring", "--out", f"{__file__}/x.png"), "test_timeline_command.py is not a folder; give another file"),
        (("ring", "--message-schedule", "x.json"), "give a name (ring) or --message-schedule x.json, not both"),
        (("--message-schedule", "x.json"), "--message-schedule needs --bandwidth BANDWIDTH"),
        (("--message-schedule", "x.json", "--workers", "2"), "--workers: the message schedule of the file sets this"),
        (
            ("--message-schedule", "/no/such.json", "--bandwidth", "1Gbit"),
            "--message-schedule /no/such.json: it cannot be read: No such file",
        ),
        (
            ("--message-schedule", "/", "--bandwidth", "1Gbit"),
            "--message-schedule /: it cannot be read: Is a directory",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_its_remedy(arguments, message):
    ended = laconic("timeline", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err


@over_inputs(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 10_000, "is not JSON"),
        ("\udcff", "is not text in UTF-8"),
        ("[]", "a schedule is a JSON list with a step or more"),
        ('{"sender": 0}', "a schedule is a JSON list with a step or more"),
        ("[3]", "step 0: has no fields; a message has sender, receiver and n_bytes"),
        ('[{"sender": 0, "receiver": 1}]', "step 0: has receiver, sender; a message has"),
        ('[{"sender": 0, "receiver": 1, "n_bytes": 1, "size": 2}]', "step 0: has n_bytes, receiver, sender, size"),
        ('[{"sender": 0, "receiver": 1, "n_bytes": -1}]', "step 0: n_bytes=-1 must be a whole number of at least 0"),
        ('[{"sender": 0, "receiver": true, "n_bytes": 1}]', "step 0: receiver=true must be a whole number"),
        ('[{"sender": 0, "receiver": 1, "n_bytes": 1.5}]', "step 0: n_bytes=1.5 must be a whole number"),
        ('[{"sender": 0, "receiver": 1, "n_bytes": 1, "after": 0}]', "step 0: after=0 must be a list of steps"),
        ('[{"sender": 0, "receiver": 1, "n_bytes": 1, "at_s": NaN}]', "step 0: at_s=NaN must be seconds"),
        ('[{"node": 0, "compute_s": "1s"}]', 'step 0: compute_s="1s" must be seconds'),
        ('[{"sender": 0, "receiver": 1, "n_bytes": 1, "after": [0]}]', "step 0 waits for itself"),
        (
            '[{"node": 0, "compute_s": 1, "after": [1]}, {"node": 0, "compute_s": 1, "after": [0]}]',
            "2 steps wait for each other in a circle: 0 waits for 1 waits for 0",
        ),
        ('[{"sender": 0, "receiver": 1000000000000, "n_bytes": 1}]', "machines are too many for a picture"),
    ],
)
def test_a_bad_file_is_named_with_the_item_at_fault(tmp_path, text, message):
    file = tmp_path / "bad.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    ended = laconic("timeline", "--message-schedule", str(file), "--bandwidth", "1Gbit")
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_the_bars_are_written_as_json_in_place_of_the_drawing_or_beside_it(tmp_path):
    printed = laconic("timeline", "ring", "--workers", "3", "--json", "-")
    assert printed.code == 0, printed.err
    found = json.loads(printed.out)
    assert found["clock"] == "simulated time"
    assert {bar["lane"] for bar in found["bars"]} <= set(found["lanes"])
    assert all(bar["start_s"] <= bar["end_s"] for bar in found["bars"])
    beside = laconic("timeline", "ring", "--workers", "3", "--json", str(tmp_path / "ring.json"))
    assert json.loads((tmp_path / "ring.json").read_text()) == found
    assert "wrote " in beside.out
    names = json.loads(laconic("timeline", "--list", "--json", "-").out)
    assert "ring" in [one["name"] for one in names]
