"""The wheel and the source distribution, built and installed where nothing of this folder is."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("src", "docs", "README.md", "LICENSE", "pyproject.toml", "setup.py")
CODE = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what is needed to build."""
    folder = tmp_path_factory.mktemp("sources")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=unwanted)
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


def build(kind: str, sources: Path, out: Path) -> Path:
    code = CODE.format(kind, str(out))
    ended = subprocess.run([sys.executable, "-c", code], cwd=sources, capture_output=True, text=True, check=True)
    return out / ended.stdout.splitlines()[-1]


def readme_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read("laconic-0.1.0.dist-info/METADATA").decode().partition("\n\n")[2]


@pytest.mark.nightly
def test_the_wheel_from_the_source_distribution_has_all_files_and_runs_in_a_clean_environment(tmp_path, sources):
    with tarfile.open(build("sdist", sources, tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    wheel = build("wheel", tmp_path / "unpacked" / "laconic-0.1.0", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("laconic/")}
    files = (path for path in (sources / "src" / "laconic").rglob("*") if path.is_file())
    assert packed == {path.relative_to(sources / "src").as_posix() for path in files}

    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    site = next((tmp_path / "clean").glob("lib/python*/site-packages"))
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # numpy and the others; no other laconic, whose
    # editable installation needs a line of its own that is not read from there
    command = [tmp_path / "clean" / "bin" / "laconic", "timeline", "ring", "--workers", "3", "--out", "ring.html"]
    subprocess.run(command, cwd=tmp_path, check=True, env={"PATH": "", "HOME": str(tmp_path)})
    assert (tmp_path / "ring.html").stat().st_size > 1000
    where = subprocess.run([python, "-c", "import laconic; print(laconic.__file__)"], cwd=tmp_path, capture_output=True)
    assert str(site) in where.stdout.decode()


@pytest.mark.nightly
def test_links_of_the_readme_begin_with_the_address_once_there_is_one(tmp_path, sources):
    bare = readme_of(build("wheel", sources, tmp_path))
    assert bare.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    folder = tmp_path / "with an address"
    shutil.copytree(sources, folder)
    project = folder / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    assert text.count('address = ""') == 1
    project.write_text(text.replace('address = ""', 'address = "https://example.org/files/"'), encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", readme_of(build("wheel", folder, tmp_path)))
    assert "https://example.org/files/docs/methods.md" in links
    assert all(link.startswith("https://") for link in links)


def test_no_address_is_written_anywhere_but_in_the_project_file():
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if "http" in text]
