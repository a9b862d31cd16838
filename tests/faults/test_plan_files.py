"""A fault plan as TOML: what is written is read again, and what is wrong is refused with its line."""

import re
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from laconic.errors import OptionError, Spelling
from laconic.faults.events import KINDS, Event, PlanError
from laconic.faults.plan import FaultPlan
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.settings import RunSettings
from support.command_line import laconic as command
from support.inputs import over_inputs

chances = st.floats(0, 1, exclude_max=True)
factors = st.floats(1e-6, 1e6)
by_worker = st.dictionaries(st.integers(0, 7), factors, max_size=3)
events = st.builds(
    Event, round=st.integers(0, 99), worker=st.integers(0, 7), kind=st.sampled_from(KINDS[:4]),
    exchange=st.none() | st.integers(0, 2),
) | st.builds(Event, round=st.integers(0, 99), worker=st.integers(0, 7), kind=st.just("crashed"))  # fmt: skip
plans = st.builds(
    FaultPlan, seed=st.integers(0, 2**63 - 1), lost=chances, late=chances, duplicated=chances, corrupted=chances,
    crashed=chances, crash_rounds=st.integers(1, 9), straggle=chances, straggle_factor=factors,
    inverted_links=st.integers(0, 3), stragglers=by_worker, slow_links=by_worker,
    rescale=st.none() | st.tuples(factors, factors).map(lambda pair: tuple(sorted(pair))),
    events=st.lists(events, max_size=3).map(tuple),
)  # fmt: skip


@settings(deadline=None)
@given(plans)
def test_a_plan_written_and_read_again_is_the_same(plan):
    text = plan.to_toml()
    try:
        again = FaultPlan.from_toml(text)
    except PlanError as error:
        assume("has no effect" not in str(error) and "event of round" not in str(error))
        raise
    assert again == plan


def test_a_plan_with_all_fields_reads_as_documented():
    text = """
        seed = 7
        lost = 0.05
        crashed = 0.01
        crash_rounds = 3
        rescale = [0.001, 1000]
        stragglers = { 2 = 4.0 }
        [slow_links]
        1 = 0.1
        [[event]]
        round = 3
        worker = 1
        kind = "lost"
        exchange = 0
    """
    event = Event(round=3, worker=1, kind="lost", exchange=0)
    assert FaultPlan.from_toml(text) == FaultPlan(
        seed=7, lost=0.05, crashed=0.01, crash_rounds=3, rescale=(0.001, 1000), stragglers={2: 4.0},
        slow_links={1: 0.1}, events=(event,),
    )  # fmt: skip
    assert FaultPlan.from_toml("") == FaultPlan()


EVENT = "[[event]]\nround = 0\nworker = 0\n"
LOST, CRASHED = EVENT + "kind = 'lost'\n", EVENT + "kind = 'crashed'\n"
WRONG = {
    "no TOML": ("# of mine\nlost = ", "line 2: not TOML: Invalid value"),
    "an open string": ("lost = 0.1\nkind = 'lost", "line 2.*: not TOML: Expected"),
    "a key twice": ("lost = 0.1\nlost = 0.2\n", "line 2, column 11: not TOML: Cannot overwrite a value"),
    "an unknown key": (
        "late = 0.1\nlosst = 0.1", "line 2: unknown key 'losst'; known: seed, lost, .*; did you mean lost"),
    "another unknown key": ("[[events]]\nround = 0", "line 1: unknown key 'events'; .*; did you mean event"),
    "a chance of one": ("lost = 1.0", r"line 1: lost=1.0 must be in \[0, 1\)"),
    "a chance in hundredths": ("\n\nlost = 5", r"line 3: lost=5 must be in \[0, 1\) \(one in a hundred is 0.01\)"),
    "a chance below zero": ("crashed = -0.1", r"line 1: crashed=-0.1 must be in \[0, 1\)"),
    "no number": ("late = 'often'", "line 1: late='often' must be a number"),
    "a list for a number": ("late = [0.1]", r"line 1: late=\[0.1\] must be a number"),
    "a table for a number": ("seed = 1\n[lost]\n0 = 0.1", "line 2: lost={'0': 0.1} must be a number"),
    "a chance that is a boolean": ("late = true", "line 1: late=True must be a number"),
    "not a number": ("straggle = nan", r"line 1: straggle=nan must be in \[0, 1\)"),
    "no rounds": ("crash_rounds = 0", "line 1: crash_rounds=0 must be at least 1"),
    "half a round": ("crash_rounds = 1.5", "line 1: crash_rounds=1.5 must be a whole number"),
    "a seed below zero": ("seed = -1", "line 1: seed=-1 must be at least 0"),
    "links below zero": ("inverted_links = -1", "line 1: inverted_links=-1 must be at least 0"),
    "a factor of zero": ("[stragglers]\n2 = 0.0", "line 2: stragglers: the factor of worker 2=0.0 must be above 0"),
    "an endless factor": ("[slow_links]\n0 = inf", "line 2: slow_links: the factor of worker 0=inf must be above 0"),
    "a worker of no number": (
        "[slow_links]\n2 = 1\none = 1", "line 3: slow_links: worker 'one' must be a whole number"),
    "a worker below zero": ("[slow_links]\n-1 = 1.0", "line 2: slow_links: worker '-1' must be a whole number of at"),
    "a worker in an inline table": ("lost = 0.1\nslow_links = { a = 1 }", "line 2: slow_links: worker 'a' must be"),
    "a worker twice": ("[slow_links]\n1 = 1.0\n01 = 2.0", "line 3: slow_links: worker 1 is named twice"),
    "no table": ("stragglers = 3", "line 1: stragglers=3 must be a table of factors by worker"),
    "one factor": ("rescale = 3.0", "line 1: rescale=3.0 must be two factors"),
    "three factors": ("rescale = [1, 2, 3]", r"line 1: rescale=\[1, 2, 3\] must be two factors"),
    "factors the wrong way round": ("rescale = [2.0, 1.0]", "line 1: .*must be the lowest factor and then the highest"),
    "a factor below zero": ("rescale = [-1.0, 1.0]", "line 1: rescale: the lowest factor=-1.0 must be above 0"),
    "crashes of a length without crashes": (
        "lost = 0.1\ncrash_rounds = 3", "line 2: crash_rounds=3 has no effect, since"),
    "a factor without stragglers": (
        "straggle_factor = 2.0", "line 1: straggle_factor=2.0 has no effect, since no worker"),
    "an unknown kind": (
        LOST + EVENT + "kind = 'lots'", "line 8: event: kind='lots' must be one of .*; did you mean lost"),
    "a kind that is a number": (EVENT + "kind = 3", "line 4: event: kind=3 must be one of"),
    "an event's unknown key": (LOST + "exchnge = 0", "line 5: event: unknown key 'exchnge'.*did you mean exchange"),
    "an event without a kind": (LOST + EVENT, "line 5: an event has no kind; it needs round, worker and kind"),
    "an event before all rounds": (
        "[[event]]\nround = -1\nworker = 0\nkind = 'lost'", "line 2: event: round=-1 must be"),
    "an event of no worker": ("[[event]]\nround = 1\nworker = -2\nkind = 'lost'", "line 3: event: worker=-2 must be"),
    "an event of two workers": (
        "[[event]]\nround = 1\nworker = [1, 2]\nkind = 'lost'", r"line 3: .*worker=\[1, 2\] must"),
    "a crash within a round": (CRASHED + "exchange = 1", "line 5: .*exchange=1 does not go with kind='crashed'"),
    "events that are no tables": ("seed = 1\nevent = 3", r"line 2: events are written as \[\[event\]\] tables"),
    "one event as a table": ("[event]\nround = 1", r"line 1: events are written as \[\[event\]\] tables"),
    "inline events": (
        "event = [\n { round = 0, worker = 0, kind = 'lost' },\n { round = 0, worker = 0 },\n]",
        "line 3: an event has no kind"),
    "an event twice": (LOST * 2, "line 5: event of round 0: one packet of worker 0 is 'lost' twice"),
    "an event within another": (
        LOST + LOST + "exchange = 1", "line 5: event of round 0: one packet of worker 0 is 'lost' twice"),
    "two faults of a packet": (LOST + EVENT + "kind = 'late'", "line 5: .*one packet of worker 0 is 'lost' and 'late'"),
    "a crash twice": (CRASHED * 2, "line 5: event of round 0: worker 0 crashes while it is down, in rounds 0 .. 0"),
    "a crash of a worker that is down": (
        "crash_rounds = 3\n" + CRASHED + CRASHED.replace("round = 0", "round = 2"),
        r"line 6: event of round 2: worker 0 crashes while it is down, in rounds 0 \.\. 2 \(crash_rounds=3\)"),
    "a packet of a worker that is down": (CRASHED + LOST, "line 5: .*worker 0 has a packet that is 'lost' while it is"),
}  # fmt: skip


@over_inputs("case", WRONG)
def test_a_wrong_plan_is_refused_with_its_line_the_value_and_the_bound(case):
    text, message = WRONG[case]
    with pytest.raises(ValueError, match=f"^faults: {message}"):
        FaultPlan.from_toml(text)


@pytest.mark.parametrize("text", [None, b"lost = 0.1", Path("plan.toml")])
def test_what_is_no_text_is_named_with_the_form(text):
    with pytest.raises(TypeError, match=f"^faults: text={type(text).__name__} must be TOML as a text, such as 'lost"):
        FaultPlan.from_toml(text)


def test_events_of_one_round_that_can_all_come_are_read():
    others = "[[event]]\nround = 0\nworker = 1\nkind = 'lost'\n" + LOST + "exchange = 0\n" + LOST + "exchange = 1\n"
    assert (
        len(FaultPlan.from_toml("crash_rounds = 2\n" + others + CRASHED.replace("round = 0", "round = 1")).events) == 4
    )


# --- in a run ---------------------------------------------------------------------------------------

SETTINGS = {"algorithm": "ec-sgd", "model": "linear", "workers": 3, "batch_size": 80, "epochs": 2}  # 5 rounds an epoch
NEVER = {
    "a worker that is not there": (
        "[[event]]\nround = 1\nworker = 3\nkind = 'lost'",
        {},
        r"line 3: .*worker 3 must be in 0 \.\. 2, since there are 3",
    ),
    "a slow worker that is not there": (
        "[stragglers]\n0 = 2\n7 = 2.0",
        {"compute": "1ms"},
        r"line 3: stragglers: worker 7 must be in 0 \.\. 2",
    ),
    "an exchange that is not there": (
        LOST + "exchange = 9",
        {},
        "line 5: event of round 0: exchange 9 must be 0, since a round of ec-sgd has 1 exchange",
    ),
    "links that are not there": ("inverted_links = 4", {}, "line 1: inverted_links=4 must be at most workers=3"),
    "slow workers without a time": ("straggle = 0.1", {}, "line 1: straggle needs --compute 50ms, or another"),
    "a slow link without a bandwidth": ("[slow_links]\n1 = 0.5", {}, "line 1: slow_links needs --bandwidth 10Mbit"),
    "absences that are not tolerated": (
        "seed = 1\nlost = 0.1",
        {"algorithm": "signsgd-mv"},
        "line 2: signsgd-mv does not tolerate lost packets",
    ),
    "an event that is not tolerated": (LOST, {"algorithm": "signsgd-mv"}, "line 4: signsgd-mv does not tolerate lost"),
    "bytes of Latin-1": ("# \u00e9\nlost = 0.1\n".encode("latin-1"), {}, "line 1: byte 0xe9 is not UTF-8 text"),
}


@over_inputs("case", NEVER)
def test_what_never_comes_in_a_run_is_refused_before_the_data_are_read(tmp_path, case):
    text, options, message = NEVER[case]
    path = tmp_path / "plan.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OptionError) as caught:
        RunSettings(**(SETTINGS | options), faults=str(path))
    spelled = caught.value.spelled(Spelling.FLAG)
    assert re.match(re.escape(f"--faults {path}: ") + message, spelled), spelled


@pytest.mark.parametrize(("local_steps", "rounds"), [(1, 10), (3, 4)])
def test_an_event_after_the_last_round_is_refused_before_the_run_starts(tmp_path, local_steps, rounds):
    path = tmp_path / "plan.toml"
    for round_ in (rounds - 1, rounds):
        path.write_text(f"\ufeff[[event]]\nworker = 0\nkind = 'lost'\nround = {round_}", encoding="utf-8")
        settings = RunSettings(**SETTINGS, local_steps=local_steps, faults=str(path))
        if round_ < rounds:
            assert Experiment(settings).rounds == rounds
            continue
        with pytest.raises(
            OptionError, match=rf"line 4: event of round {rounds}: round must be in 0 \.\. {rounds - 1},"
        ):
            Experiment(settings)


def test_the_command_refuses_a_wrong_plan_with_one_line(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text("seed = 1\nlost = 2.0")
    for arguments, message in (
        (("-a", "ec-sgd", "--faults", str(path)), f"error: --faults {path}: line 2: lost=2.0 must be in [0, 1)"),
        (("-a", "ec-sgd", "--faults", "/nowhere.toml"), "/nowhere.toml"),
        (("-a", "ec-sgd", "--driver", "processes", "--faults", str(path)), "is for --driver simulated"),
    ):
        ended = command("run", *arguments)
        assert ended.code == 2
        assert message in ended.err
        assert re.sub(r"^starting \d+ processes\n", "", ended.err).count("\n") == 1
