"""Options: each is one field, from which its flag, its help, its check, its key and its messages are made."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import tomli_w
import typer

from laconic import ALGORITHMS
from laconic.cli.app import app
from laconic.cli.lazy import LazyGroup, command_of
from laconic.errors import Named, OptionError, Spelling
from laconic.hyperparameters import value_type
from laconic.lab.datasets import DATASETS
from laconic.lab.defaults import DATASET_NAMES, MODEL_NAMES
from laconic.lab.models import MODELS
from laconic.lab.options import PURE_NUMBER, OptionGroup, bound_text, check_options, option, options_of
from laconic.lab.runs.config_file import group_of, read_values
from laconic.lab.runs.settings import RunSettings
from laconic.units import bandwidth, duration, size
from support.command_line import laconic
from support.deadlines import DEADLINE_S
from support.inputs import over_inputs


def commands(group=None, before=()):
    """Every command of the command line, by its words."""
    group = group or typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        lazy = next((spec for spec in getattr(group, "lazy_commands", ()) if spec.name == name), None)
        if isinstance(command, LazyGroup):
            found |= commands(command, (*before, name))
        else:
            found[(*before, name)] = command_of(lazy)
    return found


COMMANDS = commands()
OPTIONS = {names: getattr(command.callback, "options", []) for names, command in COMMANDS.items()}
FIELDS = list({f"{group.__qualname__}.{field.name}": (group, field, spec)
               for options in OPTIONS.values() for group, field, spec in options}.values())  # fmt: skip
IDS = [f"{group.__qualname__}.{field.name}" for group, field, _ in FIELDS]


def test_the_walk_finds_every_command():
    words = {" ".join(names) for names in COMMANDS}
    assert words == {
        "list", "show", "run", "compare", "reproduce", "plan", "timeline", "check",
        "data check", "data fetch", "data partition", "report",
        *(f"bench {name}" for name in ("kernels", "step", "wire", "simulate", "scale", "compare")),
    }  # fmt: skip


@over_inputs("names", COMMANDS)
def test_every_option_of_a_command_is_made_from_a_field(names):
    command = COMMANDS[names]
    fields = {field.name: spec for _, field, spec in OPTIONS[names]}
    for parameter in command.params:
        if parameter.name == "help":
            continue
        spec = fields[parameter.name]
        assert parameter.help == spec.about
        if not spec.positional:
            assert parameter.opts[0] == f"--{parameter.name.rstrip('_').replace('_', '-')}"
            assert parameter.opts[1:] == ([spec.short] if spec.short else [])


@over_inputs(("group", "field", "spec"), FIELDS)
def test_every_field_has_help_that_is_a_sentence_and_says_its_unit(group, field, spec):
    assert spec.about.endswith(".")
    kind = value_type(field)
    element = get_args(field.type)[0] if kind is tuple else kind
    if element in (int, float):
        assert spec.within, "a number has a range"
        assert spec.unit, "a number has a unit, or says that it is pure"
        if spec.unit != PURE_NUMBER:
            assert re.search(rf"\b{spec.unit.rstrip('s')}", spec.about), f"{spec.unit!r} is not in {spec.about!r}"
    if spec.reads in (bandwidth, duration, size) and "such as" in spec.about:
        example = re.search(r"such as ([^\s;,]+?)[.;,]*(\s|$)", spec.about)
        spec.reads(example[1])


def test_every_quantity_has_an_example_or_a_default_with_its_unit():
    for group, field, spec in FIELDS:
        if spec.reads in (bandwidth, duration, size):
            assert "such as" in spec.about or spec.reads(field.default), f"{group.__name__}.{field.name}"


def test_the_names_in_the_help_are_those_of_the_registries():
    assert set(DATASET_NAMES) == DATASETS.keys()
    assert set(MODEL_NAMES) == MODELS.keys()


@over_inputs(("group", "field", "spec"), FIELDS)
def test_the_default_of_every_field_is_a_valid_value(group, field, spec):
    if field.default is not dataclasses.MISSING:
        check_options(group, {field.name: field.default})


def wrong_value(field, spec):
    """A value of the field's kind that is refused, or nothing if all are allowed."""
    kind = value_type(field)
    kind = get_args(field.type)[0] if kind is tuple else kind
    if spec.choices or spec.reads in (bandwidth, duration, size):
        return "no-such-value"
    if kind in (int, float):
        low = float(spec.within[1:-1].split(",")[0])
        return kind(low) if spec.within[0] == "(" else kind(low) - 1
    return None


@over_inputs(("group", "field", "spec"), FIELDS)
def test_a_wrong_value_of_every_kind_names_flag_key_or_argument_as_it_was_given(group, field, spec):
    value = wrong_value(field, spec)
    if value is None:
        return
    with pytest.raises(OptionError) as caught:
        check_options(group, {field.name: (value,) if value_type(field) is tuple else value})
    flag = f"--{field.name.replace('_', '-')}"
    as_argument, as_flag, as_key = (caught.value.spelled(spelling) for spelling in Spelling)
    assert str(caught.value) == as_argument
    assert as_argument.startswith(field.name)
    assert flag not in as_argument or flag == field.name
    assert as_flag.startswith(flag)
    assert as_key.startswith(field.name)
    assert repr(value) in as_argument
    assert (f"{value:g}" if isinstance(value, float) else str(value)) in as_flag


@over_inputs(
    ("within", "kind", "unit", "text"),
    [
        ("[1, inf)", int, "rounds", "at least 1"),
        ("(0, inf)", float, PURE_NUMBER, "above 0 and finite"),
        ("(0, inf)", float, "seconds", "above 0 seconds and finite"),
        ("[0, inf)", float, PURE_NUMBER, "at least 0 and finite"),
        ("[2, 64]", int, "processes", "in 2 .. 64"),
        ("(0, 1]", float, PURE_NUMBER, "in (0, 1]"),
    ],
)
def test_a_message_says_a_bound_in_words(within, kind, unit, text):
    @dataclasses.dataclass(frozen=True)
    class Bounded:
        number: kind = option(1, "A number.", within=within, unit=unit)

    ((_, spec),) = options_of(Bounded)
    assert bound_text(spec, kind) == text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(OptionGroup):
    count: int = option(1, "A number of items.", within="[1, inf)", unit="items", hint="2 is usual")
    share: float | None = option(None, "A share.", within="(0, 1]", unit=PURE_NUMBER)
    color: str = option("red", "A color.", choices=("red", "green"))
    time: str | None = option(None, "A time, such as 1s.", reads=duration)
    fast: bool = option(False, "Go fast.")
    label: str = option("", "Any text.")
    file: Path | None = option(None, "A file.")
    sizes: tuple[int, ...] = option((), "Sizes in bytes.", within="[1, 9]", unit="bytes")
    set: dict[str, str] = option({}, "Texts by key.")


@over_inputs(
    ("values", "argument", "flag", "key"),
    [
        ({"count": 0}, "count=0 must be at least 1; 2 is usual", "--count 0 must", "count = 0 must"),
        ({"count": 1.5}, "count=1.5 must be a whole number, at least 1; 2 is usual", "--count 1.5", "count = 1.5"),
        ({"count": True}, "count=True must be a whole number", "--count must", "count = true"),
        ({"count": "2"}, "count='2' must be a whole number", "--count '2' must", "count = '2' must"),
        ({"share": float("nan")}, "share=nan must be in (0, 1]", "--share nan must", "share = nan must"),
        ({"color": "gren"}, "color='gren' must be one of red, green; did you mean green?", "--color 'gren' must",
         "color = 'gren' must"),
        ({"time": "1"}, "time: duration '1' must be a number and a unit", "--time: duration", "time: duration"),
        ({"time": 1}, "time=1 must be a text", "--time 1 must", "time = 1 must"),
        ({"fast": "yes"}, "fast='yes' must be true or false", "--fast 'yes' must", "fast = 'yes' must"),
        ({"label": 3}, "label=3 must be a text", "--label 3 must", "label = 3 must"),
        ({"file": "x"}, "file='x' must be a Path", "--file 'x' must", "file = 'x' must"),
        ({"sizes": (1, 10)}, "sizes=10 must be in 1 .. 9", "--sizes 10 must", "sizes = 10 must"),
        ({"sizes": 1}, "sizes=1 must be a tuple of int", "--sizes 1 must", "sizes = 1 must"),
        ({"set": {"a": 1}}, "set={'a': 1} must be a table of texts", "--set {'a': 1} must", "set = {'a': 1} must"),
    ],
)  # fmt: skip
def test_a_refusal_has_name_value_bound_and_the_remedy_in_each_spelling(values, argument, flag, key):
    with pytest.raises(OptionError) as caught:
        Example(**values)
    assert str(caught.value).startswith(argument)
    assert caught.value.spelled(Spelling.FLAG).startswith(flag)
    assert caught.value.spelled(Spelling.KEY).startswith(key)


def test_none_is_a_value_where_it_is_the_default_and_nowhere_else():
    assert Example(share=None, time=None).share is None
    with pytest.raises(OptionError, match="count=None must be a whole number"):
        Example(count=None)


def test_an_option_alone_or_a_switch_is_named_without_a_value():
    error = OptionError(Named("fast", True), " needs ", Named("time"))
    assert str(error) == "fast=True needs time"
    assert error.spelled(Spelling.FLAG) == "--fast needs --time"
    assert error.spelled(Spelling.KEY) == "fast = true needs time"


# Files


SETTINGS = {
    "defaults": {"algorithm": "sgd"},
    "a schedule with a warm-up": {
        "algorithm": "sgd", "lr": 0.25, "lr_schedule": "step", "decay_at": "0.25,0.5", "warm_up_epochs": 2.0,
        "weight_decay": 1e-4,
    },
    "dense epochs, local steps and hyper-parameters": {
        "algorithm": "ssgd-mv", "set": {"density": "0.05"}, "dense_epochs": 0.5, "local_steps": 3, "seed": 7,
    },
    "a network": {"algorithm": "sgd", "bandwidth": "10Mbit", "latency": "5ms", "compute": "20ms", "workers": 7},
    "processes with recorded times": {
        "algorithm": "ec-sgd", "driver": "processes", "record_times": True, "timeout_s": 5.0, "layout": "rank0",
    },
    "a table of one's own": {
        "algorithm": "sgd", "dataset": "csv", "data": "t.csv", "test_data": "test.csv", "label_column": "kind",
        "header": "yes", "missing": "mean", "drop_columns": "1,2", "encoding": "latin-1",
    },
    "plugged-in parts": {"algorithm": "compskip", "set": {"skip": "random", "skip.probability": "0.25"}},
}  # fmt: skip


def settings_in(file):
    return group_of(RunSettings, file, read_values(file, options_of(RunSettings)))


@pytest.mark.parametrize("what", SETTINGS)
def test_the_settings_of_a_run_are_read_back_from_its_config_file(tmp_path, what):
    settings = RunSettings(**SETTINGS[what])
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps(settings.as_data()))
    again = settings_in(file)
    assert again.as_data() == settings.as_data()
    assert again.method == settings.method
    assert again.learning_rate == settings.learning_rate
    assert {name: getattr(again, name) for name in SETTINGS[what] if name != "set"} == {
        name: value for name, value in SETTINGS[what].items() if name != "set"
    }


@over_inputs(
    ("text", "message"),
    [
        ("algorithm = 'sgd'\nepochs = 0", "epochs = 0 must be at least 1"),
        ("algorithm = 'sgd'\nepochs = 'many'", "epochs = 'many' must be a whole number, at least 1"),
        ("algorithm = 'sgd'\nlr = -1", "lr = -1 must be above 0 and finite; leave it out"),
        (
            "algorithm = 'sgd'\nmodel = 'mpl'",
            "model = 'mpl' must be one of linear, mlp, cnn, resnet18, resnet50, transformer, or module:function of "
            "your own; did you mean mlp?",
        ),
        ("algorithm = 'sgd'\nwarm_up_from = 0.5", "warm_up_from = 0.5 needs warm_up_epochs"),
        ("algorithm = 'sgd'\nbandwidth = '10'", "bandwidth: bandwidth '10' must be"),
        ("algorithm = 'lasg'\nlocal_steps = 2", "local_steps = 2: lasg needs the gradient itself"),
        ("algorithm = 'ec-sgd'\nlayout = 'sharded'", "layout = 'sharded' does not go with ec-sgd"),
        ("algorithm = 'sgd'\nindex_base = 0", "index_base = 0 is for dataset = 'libsvm'; digits has no such choice"),
        ("algorithm = 'sgd'\nencoding = 'latin'", "encoding = 'latin' is"),
        ("algorithm = 'sdg'", "algorithm = 'sdg' must be one of"),
        ("algorithm = 'sgd'\nepoch = 3", "unknown key 'epoch'; known: algorithm, set, workers"),
        ("epochs = 3", "the key algorithm is missing"),
        ("= =", "is not TOML"),
        ("\udcff", "is not TOML"),
    ],
)
def test_a_wrong_key_of_a_file_is_named_with_the_file_and_without_flags(tmp_path, text, message):
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"^") as caught:
        settings_in(file)
    assert str(caught.value).replace(", line 2:", ":", 1).replace(", line 1:", ":", 1).startswith(f"{file}: {message}")
    assert "--" not in str(caught.value).removeprefix(str(file))


# On the command line


@over_inputs(
    ("line", "message"),
    [
        ("run -a sgd --epochs 0", "--epochs 0 must be at least 1"),
        ("run -a sgd --workers 10000000000", "--workers 10000000000 must be in 1 .. 65536"),
        ("run -a sgd --driver mpi", "--driver 'mpi' must be one of simulated, processes"),
        ("run -a sgd --bandwidth 10", "--bandwidth: bandwidth '10' must be"),
        ("run -a sgd --port 70000", "--port 70000 must be in 0 .. 65535"),
        ("compare sgd sgd", "sgd is named twice"),
        ("compare sgd --lr-of sgd=0", "--lr-of sgd='0' must be a number above 0"),
        ("compare sgd --lr-of sgd=fast", "--lr-of sgd='fast' must be a number above 0 and finite, or theory"),
        ("compare sgd --lr-of lag=1", "--lr-of lag: not among the algorithms (sgd)"),
        ("compare sgd --set c=1", "--set c: not among the algorithms (sgd)"),
        ("plan --bandwidth 1Mbit", "give --params COUNT"),
        ("plan --params 1K --bandwidth 1Mbit --workers 1", "--workers 1 must be in 2 .. 512"),
        ("timeline ring --workers 0", "--workers 0 must be in 1 .. 2048"),
        ("reproduce x --jobs 0", "--jobs 0 must be at least 1"),
        ("bench step --momentum 1", "--momentum 1 must be in [0, 1)"),
        ("bench scale --memory much", "--memory: size 'much' must be"),
    ],
)
def test_a_wrong_value_names_the_flag(line, message):
    ended = laconic(*line.split())
    assert ended.code == 2
    assert message in ended.err


def test_wrong_values_are_refused_before_torch_is_loaded_and_before_any_file_is_made(tmp_path):
    lines = [
        f"run -a sgd --epochs 0 --out {tmp_path}/out", f"compare sgd --lr-of sgd=0 --out {tmp_path}/out",
        "plan --params 1K --bandwidth 10 --workers 4", f"timeline ring --latency x --out {tmp_path}/a.png",
        f"reproduce x --jobs 0 --out {tmp_path}/a.json", f"bench wire --d 1 --json {tmp_path}/a.json",
    ]  # fmt: skip
    script = (
        f"import sys\nsys.path.append({str(Path(__file__).parents[1])!r})\nfrom support.command_line import laconic\n"
        "codes = [laconic(*line.split()).code for line in sys.argv[1:]]\nprint(codes, 'torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *lines], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.stdout == f"{[2] * len(lines)} False\n", ended.stderr
    assert list(tmp_path.iterdir()) == []


# Built once

COUNTED = """
import os
from dataclasses import dataclass

from laconic import algorithm
from laconic.algorithms.ec_sgd import ECSGD


@algorithm("counted")
@dataclass(frozen=True, kw_only=True)
class Counted(ECSGD):
    def __post_init__(self):
        with open({log!r}, "a") as log:
            log.write(f"{{os.getpid()}}\\n")
        super().__post_init__()
"""
QUICK = ("--epochs", "1", "--batch-size", "90", "--model", "linear", "--workers", "2")


@pytest.fixture
def counted(tmp_path):
    """The arguments that load an algorithm that counts how often it is made, and the ids of the processes that did."""
    log = tmp_path / "made"
    plugin = tmp_path / "counted.py"
    plugin.write_text(COUNTED.format(log=str(log)))
    yield ("--load", str(plugin)), lambda: log.read_text().split()
    ALGORITHMS.pop("counted", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        ("run", "-a", "counted", *QUICK),
        ("compare", "sgd", "counted", *QUICK),
        ("plan", "counted", "sgd", "--params", "1K", "--bandwidth", "1Mbit", "--workers", "2", "--no-measure"),
    ],
    ids=lambda line: line[0],
)
def test_a_command_makes_each_algorithm_once(tmp_path, counted, line):
    load, made = counted
    out = ("--out", str(tmp_path / "out")) if line[0] != "plan" else ()
    ended = laconic(*load, *line, *out)
    assert ended.code == 0, ended.err
    assert made() == [str(os.getpid())]


@pytest.mark.slow
def test_each_process_of_a_run_makes_the_algorithm_once(tmp_path, counted):
    load, made = counted
    ended = laconic(*load, "run", "-a", "counted", *QUICK, "--driver", "processes", "--out", str(tmp_path / "out"))
    assert ended.code == 0, ended.err
    assert len(made()) == len(set(made())) == 3
