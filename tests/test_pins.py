"""What is installed to run and to test is pinned with hashes, and the files that say so agree."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PIN = re.compile(r"([\w.-]+)==([^\s;]+)(?: ; .*?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", one)[0]) for one in requirements}


def pins_of(file: str) -> dict[str, set[str]]:
    """Package -> versions, each with hashes."""
    text = (ROOT / "pins" / file).read_text()
    found: dict[str, set[str]] = {}
    for name, version, _ in PIN.findall(text):
        found.setdefault(normal(name), set()).add(version)
    assert not PIN.sub("", text).strip(), "a line that is no pin with hashes"
    return found


def chosen() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize("file", ["run.txt", "test.txt"])
def test_all_that_is_installed_has_a_version_and_hashes_but_for_torch(file):
    named = PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"]
    if file == "test.txt":
        extras = PROJECT["project"]["optional-dependencies"]
        named = named + extras["test"] + extras["site"] + extras["prometheus"]
    assert names_of(named) - pins_of(file).keys() == {"torch"}


def test_the_versions_are_those_that_were_chosen_and_the_tests_run_what_users_run():
    run, tests = pins_of("run.txt"), pins_of("test.txt")
    assert {name: {version} for name, version in chosen().items() if name != "torch"}.items() <= tests.items()
    assert run.items() <= tests.items()


def test_no_requirement_has_a_lowest_version_above_the_chosen_one():
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    named = project["dependencies"] + PROJECT["build-system"]["requires"]
    named = named + extras["test"] + extras["site"] + extras["prometheus"]
    for requirement in named:
        found = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)(; .*)?", requirement)
        assert found, requirement
        lowest, used = ([int(part) for part in text.split(".")] for text in (found[2], chosen()[normal(found[1])]))
        assert lowest <= used, requirement
