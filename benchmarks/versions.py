"""The fast tests with the oldest versions that pyproject.toml names, or with the newest that there are.

    make oldest        # python benchmarks/versions.py oldest
    make newest

Each makes an environment of its own in build/, installs the package with its tests there, runs the tests that are
neither slow nor nightly, and prints the versions and the result as a line of docs/results/versions.md. Options after
`--` go to pytest. torch comes as the package index has it, with its libraries for a GPU: several gigabytes. Python is
the one that runs this file: `python3.13 benchmarks/versions.py newest` tests with another.

The tests of golden screens show what the pinned versions of typer and rich draw; they are left out here.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FAST = "not slow and not nightly and not gpu and not browser"
REQUIREMENT = re.compile(r"([\w.-]+)>=([\w.]+)(?:; .*)?")
LINTERS = ("mypy", "ruff")  # no test runs them


def lowest_versions() -> dict[str, str]:
    """Return package -> lowest version, for all that pyproject.toml names: to build, to run and to test."""
    project = PROJECT["project"]
    named = [*PROJECT["build-system"]["requires"], *project["dependencies"], *project["optional-dependencies"]["test"]]
    found = [REQUIREMENT.fullmatch(requirement) for requirement in named]
    assert all(found), f"pyproject.toml: each of {named} must have the form name>=version"
    return {match[1]: match[2] for match in found if match and match[1] not in LINTERS}


def install(folder: Path, *, oldest: bool) -> Path:
    """Make the environment and return its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--no-compile", "--upgrade"]
    subprocess.run([*pip, "pip"], check=True)
    chosen = lowest_versions()
    wanted = [f"{name}=={version}" for name, version in chosen.items()] if oldest else list(chosen)
    # All in one call, so that pip finds versions of what they need that go with all of them.
    subprocess.run([*pip, *wanted], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
    return python


def installed_versions(folder: Path) -> str:
    """Return the versions of what pyproject.toml names, as they are installed."""
    site = next(folder.glob("lib/python*/site-packages"))
    normal = {dist.metadata["Name"].lower().replace("_", "-"): dist.version for dist in distributions(path=[str(site)])}
    return ", ".join(f"{name} {normal.get(name.replace('_', '-'), 'missing')}" for name in lowest_versions())


def main() -> int:
    """Install, run the tests, print the result; the exit code is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("oldest", "newest"))
    parser.add_argument("--keep", action="store_true", help="use the environment that is there")
    given, more = parser.parse_known_args()
    for_pytest = more[1:] if more[:1] == ["--"] else more
    folder = ROOT / "build" / given.which
    python = folder / "bin" / "python" if given.keep else install(folder, oldest=given.which == "oldest")
    left_out = ["--ignore-glob=*screens*"]
    if given.which == "oldest":
        left_out += ["-W", "ignore::DeprecationWarning"]  # of what the old versions call in newer ones
    tests = [python, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", FAST, *left_out, *for_pytest]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    where = f"commit {commit.stdout.strip() or 'unknown'}, {os.cpu_count()} cores"  # before the run: files may change
    result = ""
    # Every process imports torch; compiled once and kept, that takes half as long.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(tests, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:  # shown as it comes, so that a run that is cut off has said something
            sys.stdout.write(line)
            sys.stdout.flush()
            result = line.strip("= \n") or result
    what = f"Python {sys.version.split()[0]}, {installed_versions(folder)}"
    sys.stdout.write(f"\n| {given.which} | {what} | {result}; {where}, {datetime.now(tz=UTC).date()} |\n")
    return running.returncode


if __name__ == "__main__":
    sys.exit(main())
