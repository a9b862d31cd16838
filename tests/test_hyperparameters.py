"""Hyper-parameters: which values are refused, with which message, and that every object can be given as text."""

from dataclasses import dataclass, fields

import pytest

import laconic
from laconic.compressors import COMPRESSORS, ScaledSign
from laconic.contract import ALGORITHMS
from laconic.hyperparameters import (
    as_settings,
    check_hyperparameters,
    from_text,
    hyperparameter,
    hyperparameters_of,
    near_misses,
)
from laconic.policies.skip_policies import SKIP_POLICIES, Never, RandomSkips
from support.inputs import over_inputs


class Checked:
    def __post_init__(self):
        check_hyperparameters(self, "example")


@dataclass(frozen=True, kw_only=True)
class Low(Checked):
    depth: int = hyperparameter(2, "how deep", within="[1, 9]")


@dataclass(frozen=True, kw_only=True)
class High(Checked):
    height: float = hyperparameter(0.5, "how high", within="(0, 1)")
    inner: object = hyperparameter(Low(depth=4), "what is below", kinds={"low": Low})


@dataclass(frozen=True, kw_only=True)
class Higher(Checked):
    above: object = hyperparameter(High(height=0.25, inner=Low(depth=9)), "what is above", kinds={"high": High})


@dataclass(frozen=True, kw_only=True)
class Capped(Checked):
    cap: int | None = hyperparameter(None, "at most so many", within="[1, 9]")


PLUGS = {"low": Low, "high": High}


@dataclass(frozen=True, kw_only=True)
class Example(Checked):
    share: float = hyperparameter(0.25, "a share", within="(0, 1]")
    speed: float = hyperparameter(0.1, "a speed", within="[0, inf)", unit="bytes per second")
    steps: int = hyperparameter(3, "a count", within="[1, inf)")
    word: str = hyperparameter("mean", "a choice", choices=("mean", "sum"))
    text: str = hyperparameter("layer", "anything")
    fast: bool = hyperparameter(False, "a switch")
    free: int = hyperparameter(0, "any whole number")
    plug: object = hyperparameter(Low(), "what is plugged in", kinds=PLUGS)
    label: str = "not a hyper-parameter"


@over_inputs(
    ("settings", "error", "message"),
    [
        ({"share": 0.0}, ValueError, "example: share=0.0 must be in (0, 1]; the default is 0.25"),
        ({"share": 1.5}, ValueError, "example: share=1.5 must be in (0, 1]; the default is 0.25"),
        ({"share": float("nan")}, ValueError, "example: share=nan must be in (0, 1]; the default is 0.25"),
        ({"speed": -1}, ValueError, "example: speed=-1 must be in [0, inf) (bytes per second); the default is 0.1"),
        (
            {"speed": float("inf")},
            ValueError,
            "example: speed=inf must be in [0, inf) (bytes per second); the default is 0.1",
        ),
        ({"steps": 0}, ValueError, "example: steps=0 must be in [1, inf); the default is 3"),
        ({"share": "0.5"}, TypeError, "example: share='0.5' must be a number in (0, 1]"),
        ({"share": None}, TypeError, "example: share=None must be a number in (0, 1]"),
        ({"share": True}, TypeError, "example: share=True must be a number in (0, 1]"),
        ({"steps": 2.0}, TypeError, "example: steps=2.0 must be a whole number in [1, inf)"),
        ({"steps": True}, TypeError, "example: steps=True must be a whole number in [1, inf)"),
        ({"word": "median"}, ValueError, "example: word='median' must be one of mean, sum; did you mean mean?"),
        ({"word": 1}, ValueError, "example: word=1 must be one of mean, sum"),
        ({"text": 64}, TypeError, "example: text=64 must be a text; the default is 'layer'"),
        ({"fast": 1}, TypeError, "example: fast=1 must be True or False; the default is False"),
        ({"fast": "true"}, TypeError, "example: fast='true' must be True or False; the default is False"),
        ({"plug": "low"}, TypeError, "example: plug='low' must be one of high, low"),
        ({"plug": Low}, TypeError, f"example: plug={Low!r} must be one of high, low"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_its_value_and_its_bound(settings, error, message):
    with pytest.raises(error) as caught:
        Example(**settings)
    assert str(caught.value) == message


def test_the_ends_that_belong_to_a_range_are_accepted():
    for name, end in (("share", 1), ("share", 1e-300), ("speed", 0), ("speed", 1e308), ("steps", 1), ("steps", 10**30)):
        Example(**{name: end})
    Example(plug=High())


def test_a_bracket_includes_its_end_and_a_parenthesis_does_not():
    Low(depth=1)
    Low(depth=9)
    for depth in (0, 10):
        with pytest.raises(ValueError, match=r"must be in \[1, 9\]"):
            Low(depth=depth)
    for height in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
            High(height=height)


def test_a_subclass_of_an_allowed_class_has_no_name_and_is_refused():
    class Lower(Low):
        pass

    with pytest.raises(TypeError, match="must be one of high, low"):
        Example(plug=Lower())


@over_inputs(
    ("texts", "message"),
    [
        ({"sahre": "1"}, "example: unknown key 'sahre'; known: {known}; did you mean share?"),
        ({"zzz": "1"}, "example: unknown key 'zzz'; known: {known}"),
        ({"": "1"}, "example: unknown key ''; known: {known}"),
        ({"label": "x"}, "example: unknown key 'label'; known: {known}"),
        ({"share.low": "1"}, "example: unknown key 'share.low'; known: {known}; did you mean share?"),
        ({"share.": "1"}, "example: unknown key 'share.'; known: {known}; did you mean share?"),
        ({"plug.": "low"}, "example: unknown key 'plug.'; known: {known}; did you mean plug?"),
        ({"plug.dept": "1"}, "example: plug: unknown key 'dept'; known: depth; did you mean depth?"),
        ({"plug": "high", "plug.depth": "1"}, "example: plug: unknown key 'depth'; known: height, inner"),
        ({"plug": "hihg"}, "example: plug='hihg' must be one of high, low; did you mean high?"),
        ({"plug": "?"}, "example: plug='?' must be one of high, low"),
        ({"plug.depth": "many"}, "example: plug: depth='many' must be a whole number in [1, 9]"),
        ({"plug.depth": "10"}, "example: plug: example: depth=10 must be in [1, 9]; the default is 2"),
        ({"share": "half"}, "example: share='half' must be a number in (0, 1]"),
        ({"share": ""}, "example: share='' must be a number in (0, 1]"),
        ({"share": "nan"}, "example: share=nan must be in (0, 1]; the default is 0.25"),
        ({"steps": "2.0"}, "example: steps='2.0' must be a whole number in [1, inf)"),
        ({"steps": "9" * 5000}, "example: steps='" + "9" * 5000 + "' must be a whole number in [1, inf)"),
        ({"free": "x"}, "example: free='x' must be a whole number"),
        ({"fast": "yes"}, "example: fast='yes' must be true or false"),
        ({"word": "media"}, "example: word='media' must be one of mean, sum; did you mean mean?"),
    ],
)
def test_a_wrong_text_is_refused_with_its_name_its_value_and_the_remedy(texts, message):
    known = ", ".join(field.name for field, _ in hyperparameters_of(Example))
    with pytest.raises(ValueError, match=r"^example: ") as caught:
        from_text(Example, texts, "example")
    expected, found = message.format(known=known), str(caught.value)
    if "known: share" in expected and "did you mean" not in expected:
        found = found.partition("; did you mean")[0]  # suggestions are allowed; difflib makes them
    assert found == expected


def test_a_class_without_hyperparameters_knows_no_key():
    with pytest.raises(ValueError, match=r"^never: unknown key 'probability'; known: none$"):
        from_text(Never, {"probability": "0.5"}, "never")


def test_texts_become_values_of_the_hyperparameters_types():
    texts = {"share": "1", "speed": "1e6", "steps": "12", "word": "sum", "text": "64", "fast": "True", "free": "-4"}
    example = from_text(Example, texts | {"plug": "high", "plug.height": ".75", "plug.inner.depth": "5"}, "example")
    assert example == Example(
        share=1.0, speed=1e6, steps=12, word="sum", text="64", fast=True, free=-4,
        plug=High(height=0.75, inner=Low(depth=5)),
    )  # fmt: skip
    assert isinstance(example.share, float)
    assert from_text(Example, {"fast": "FALSE"}, "example") == from_text(Example, {}, "example") == Example()


def test_a_nested_key_changes_one_field_of_the_default_and_leaves_the_others():
    assert from_text(Example, {"plug.depth": "7"}, "example").plug == Low(depth=7)
    assert from_text(High, {"height": "0.25"}, "example").inner == Low(depth=4)
    assert from_text(Higher, {"above.height": "0.75"}, "example").above == High(height=0.75, inner=Low(depth=9))
    assert from_text(Higher, {"above.inner.depth": "1"}, "example").above == High(height=0.25, inner=Low(depth=1))
    assert from_text(High, {"inner.depth": "5", "height": "0.25"}, "example") == High(height=0.25, inner=Low(depth=5))


def test_a_hyperparameter_without_a_default_takes_an_integer_in_its_range_or_none():
    assert Capped().cap is None
    assert as_settings(Capped()) == {"cap": "none"}
    assert as_settings(Capped(cap=3)) == {"cap": "3"}
    for text, cap in (("none", None), ("None", None), ("9", 9)):
        made = from_text(Capped, {"cap": text}, "example")
        assert made == Capped(cap=cap)
        assert from_text(Capped, as_settings(made), "example") == made
    for cap in (0, 10):
        with pytest.raises(ValueError, match=rf"^example: cap={cap} must be in \[1, 9\]; the default is None$"):
            Capped(cap=cap)
    for cap in (2.0, True, "3"):
        with pytest.raises(TypeError, match=r"^example: cap=.* must be a whole number in \[1, 9\], or None$"):
            Capped(cap=cap)
    for text in ("2.0", "", "nan", "no"):
        with pytest.raises(ValueError, match=rf"^example: cap='{text}' must be a whole number in \[1, 9\], or none$"):
            from_text(Capped, {"cap": text}, "example")


def test_the_order_in_which_texts_are_given_does_not_matter():
    texts = {"plug.height": "0.125", "plug": "high"}
    assert from_text(Example, texts, "example") == from_text(Example, dict(reversed(texts.items())), "example")


def test_settings_are_the_texts_of_every_hyperparameter_and_of_nothing_else():
    example = Example(share=1 / 3, fast=True, plug=High(), label="mine")
    assert as_settings(example) == {
        "share": "0.3333333333333333",
        "speed": "0.1",
        "steps": "3",
        "word": "mean",
        "text": "layer",
        "fast": "true",
        "free": "0",
        "plug": "high",
        "plug.height": "0.5",
        "plug.inner": "low",
        "plug.inner.depth": "4",
    }
    assert from_text(Example, as_settings(example), "example") == Example(share=1 / 3, fast=True, plug=High())


@over_inputs(
    ("word", "guess"),
    [("compskp", "; did you mean compskip?"), ("sgd", "; did you mean sgd?"), ("%", ""), ("", "")],
)
def test_near_misses_are_offered_only_when_near(word, guess):
    assert near_misses(word, ["compskip", "ec-sgd", "sgd"]) == guess


ENTERED = {**ALGORITHMS, **COMPRESSORS, **SKIP_POLICIES}


@over_inputs("name", ENTERED)
def test_every_named_object_can_be_given_as_text(name):
    cls = ENTERED[name]
    for made in (cls(), cls(**getattr(cls, "example", {}))):
        settings = as_settings(made)
        assert all(isinstance(text, str) for text in settings.values())
        assert from_text(cls, settings, name) == made
        assert as_settings(from_text(cls, settings, name)) == settings


@over_inputs("name", ALGORITHMS)
def test_every_part_of_an_algorithm_can_be_given_as_text(name):
    cls = ALGORITHMS[name]
    for field, spec in hyperparameters_of(cls):
        for word, kind in spec.kinds.items():
            plugged = field.default if type(field.default) is kind else kind()
            assert from_text(cls, {field.name: word}, name) == cls(**{field.name: plugged})


@over_inputs("name", ENTERED)
def test_every_field_of_a_named_class_is_a_hyperparameter_with_a_sentence(name):
    hyperparameters = hyperparameters_of(ENTERED[name])
    assert [field.name for field, _ in hyperparameters] == [field.name for field in fields(ENTERED[name])]
    assert all(spec.about for _, spec in hyperparameters)


def test_nested_settings_of_real_methods_are_read_from_text():
    ec_sgd = from_text(ALGORITHMS["ec-sgd"], {"compressor": "scaled-sign", "compressor.blocks": "64"}, "ec-sgd")
    assert ec_sgd.compressor == ScaledSign(blocks="64")
    compskip = from_text(ALGORITHMS["compskip"], {"server_skip.probability": "0.25"}, "compskip")
    assert compskip.server_skip == RandomSkips(probability=0.25)
    with pytest.raises(
        ValueError, match=r"^ec-sgd: compressor='scaled-sgn' must be one of .*; did you mean scaled-sign"
    ):
        from_text(ALGORITHMS["ec-sgd"], {"compressor": "scaled-sgn"}, "ec-sgd")


def test_naming_the_class_that_is_there_already_keeps_its_settings():
    chosen = from_text(laconic.CompSkip, {"server_skip": "random"}, "compskip")
    assert chosen.server_skip.probability == 0.1
    assert from_text(laconic.CompSkip, {"server_skip": "slow-link"}, "compskip").server_skip.name == "slow-link"


def test_a_range_error_inside_names_the_full_path():
    with pytest.raises(ValueError, match=r"compskip: server_skip: random: probability=2.0 must be in \[0, 1\)"):
        from_text(laconic.CompSkip, {"server_skip.probability": "2"}, "compskip")
