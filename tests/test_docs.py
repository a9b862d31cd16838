"""README and docs/ match the code: their code is taken from files or run, paths and links exist, commands parse.

A comment above every ```python block of a page names the source of the code:

    <!-- from src/laconic/algorithms/ec_sgd.py: ECSGD.work, ECSGD.serve -->    the definitions of these names
    <!-- from src/laconic/algorithms/ec_sgd.py -->                            lines that follow each other there
    <!-- run -->                                                              it is run, in the order of the page
    <!-- sketch: why it is neither -->

`LACONIC_REWRITE_DOCS=1 pytest tests/test_docs.py` rewrites the definitions in the pages.
"""

import ast
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import typer.main

import laconic
from laconic.cli.app import app
from laconic.compressors import COMPRESSORS
from laconic.contract import ModelSpec
from laconic.training import state_dict
from laconic.wire import head
from laconic.wire.packets import KINDS
from support.command_line import laconic as command
from support.inputs import over_inputs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
HISTORY = ROOT / "CHANGELOG.md"  # names what is gone, too
REWRITE = "LACONIC_REWRITE_DOCS"
README_LINES = 120
D = 10**6  # of the bits in the table of methods
N = 10

FENCE = re.compile(r"^( *)```(\w*)$")
FROM = re.compile(r"from (?P<path>\S+?\.\w+)(?:: (?P<names>[\w., ]+))?$")
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
TREE_PATH = re.compile(r"(?<![\w./-])(?:src|tests|docs|benchmarks|examples)/[\w./*-]*[\w*/]")
NAME_IN_FILE = re.compile(r"`((?:src|tests)/[\w/]+\.py): ([\w., ]+)`")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")

over_pages = over_inputs("page", PAGES)


@dataclass(frozen=True)
class Block:
    """A fenced block. `line`: number of its first line of text, from 1; `comment`: the HTML comment right above it."""

    page: Path
    line: int
    language: str
    text: str
    comment: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start = [], None
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if start is None and fence:
            start, language = number, fence[2]
        elif start is not None and fence and not fence[2]:
            above = next((lines[i].strip() for i in range(start - 1, -1, -1) if lines[i].strip()), "")
            comment = above.removeprefix("<!--").removesuffix("-->").strip() if above.startswith("<!--") else ""
            text = textwrap.dedent("\n".join(lines[start + 1 : number]))
            found.append(Block(page, start + 2, language, text, comment))
            start = None
    assert start is None, f"{page.name}:{start}: a block has no end"
    return found


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


CODE = [block for page in PAGES for block in blocks_of(page) if block.language == "python"]
TAKEN = [block for block in CODE if block.comment.startswith("from ")]


@cache
def definitions_in(path: Path) -> dict[str, str]:
    """The source of every class, function and method of a file, by its dotted name."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found: dict[str, str] = {}

    def look(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                begin = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                found[prefix + child.name] = textwrap.dedent("\n".join(lines[begin - 1 : child.end_lineno]))
                look(child, f"{prefix}{child.name}.")

    look(ast.parse(text), "")
    return found


def source_of(block: Block) -> str | None:
    """The text that a block must have, if its comment names definitions."""
    match = FROM.match(block.comment)
    assert match, f"{block.place}: {block.comment!r} must be `from FILE` or `from FILE: NAME, NAME`"
    if match["names"] is None:
        return None
    known = definitions_in(ROOT / match["path"])
    return "\n\n".join(known[name.strip()] for name in match["names"].split(","))


def test_code_in_the_pages_is_from_a_file_or_is_run():
    for block in CODE:
        is_placed = block.comment == "run" or block.comment.startswith(("from ", "sketch: "))
        assert is_placed, f"{block.place}: say above it where it is from, see {Path(__file__).name}"


@over_inputs("block", TAKEN)
def test_code_from_a_file_equals_the_file(block):
    source = source_of(block)
    if source is None:
        lines = (ROOT / FROM.match(block.comment)["path"]).read_text(encoding="utf-8").splitlines()
        size = len(block.text.splitlines())
        assert block.text in (textwrap.dedent("\n".join(lines[i : i + size])) for i in range(len(lines)))
        return
    text = block.page.read_text(encoding="utf-8")
    if os.environ.get(REWRITE) == "1":
        text = text.replace(block.text, source)
        block.page.write_text(text, encoding="utf-8")
    assert source in text, f"{REWRITE}=1 pytest tests/test_docs.py writes it anew"


@pytest.fixture
def example_run(tmp_path, monkeypatch) -> Iterator[dict[str, object]]:
    """What a block may use without defining it: a process group of one rank, a model and its batches.

    Registries are restored afterwards, so that what a page registers is gone.
    """
    monkeypatch.chdir(tmp_path)
    registries = laconic.ALGORITHMS, COMPRESSORS, KINDS
    known = [dict(registry) for registry in registries]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    torch.manual_seed(0)
    inputs, labels = torch.randn(8, 16, 6), torch.randint(3, (8, 16))
    yield {
        "torch": torch,
        "laconic": laconic,
        "cross_entropy": torch.nn.functional.cross_entropy,
        "model": torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)),
        "inputs": inputs,
        "labels": labels,
        "batches": list(zip(inputs, labels, strict=True)),
    }
    dist.destroy_process_group()
    for registry, before in zip(registries, known, strict=True):
        registry.clear()
        registry.update(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", sorted({block.page for block in CODE if block.comment == "run"}), ids=lambda page: page.name
)
def test_code_marked_run_runs_in_the_order_of_the_page(page, example_run, monkeypatch):
    for trainer in ("lightning", "pytorch_lightning"):  # another test may have imported it, and a hook warns of it
        monkeypatch.delitem(sys.modules, trainer, raising=False)
    for name in re.findall(r'@algorithm\("([\w-]+)"\)', page.read_text(encoding="utf-8")):
        laconic.ALGORITHMS.pop(name, None)  # someone may have put the page's example into the package
    for block in blocks_of(page):
        if block.comment == "run":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), example_run)


def exists(path: str) -> bool:
    return any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


@over_pages
def test_every_path_that_a_page_names_exists(page):
    named = set(TREE_PATH.findall(page.read_text(encoding="utf-8")))
    assert not sorted(path for path in named if not exists(path))


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@over_inputs("page", [*PAGES, HISTORY])
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(prose_of(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@over_pages
def test_every_name_that_a_page_locates_in_a_file_is_defined_there(page):
    for path, names in NAME_IN_FILE.findall(page.read_text(encoding="utf-8")):
        known = definitions_in(ROOT / path)
        assert not [name for name in names.split(", ") if name not in known], path


COMMANDS = typer.main.get_command(app)
TOP = COMMANDS.make_context("laconic", [], resilient_parsing=True)


def command_lines(page: Path) -> Iterator[list[str]]:
    """The calls of `laconic` in a page's blocks: without a prompt, a comment, or torchrun before it."""
    for block in blocks_of(page):
        if block.language not in ("python", "toml", "json"):
            for line in re.sub(r"\\\n *", "", block.text).splitlines():
                if match := re.match(r"(?:\$ )?(?:torchrun .* --no-python )?laconic (.+)$", line):
                    yield shlex.split(match[1], comments=True)


def parse(words: list[str]) -> None:
    """Parse the words with the parser of the command line, without running anything."""
    command, context = COMMANDS, None
    while True:
        context = command.make_context(command.name, list(words), parent=context)
        words = [*getattr(context, "_protected_args", ()), *context.args]
        if not hasattr(command, "resolve_command"):
            return
        _, command, words = command.resolve_command(context, words)


@over_pages
def test_the_command_line_accepts_every_command_of_a_page(page):
    for words in command_lines(page):
        try:
            parse(words)
        except Exception as error:
            raise AssertionError(f"laconic {shlex.join(words)}") from error


def below(command: object) -> list[object]:
    """The commands of a group."""
    names = command.list_commands(TOP) if hasattr(command, "list_commands") else ()
    return [command.resolve_command(TOP, [name])[1] for name in names]


@cache
def known_options() -> set[str]:
    """Every option of every command, and those that tests/conftest.py gives pytest."""

    def of(command: object) -> set[str]:
        own = {option for parameter in command.params for option in parameter.opts}
        return own.union(*map(of, below(command)))

    in_tests = re.findall(r'"(--[\w-]+)"', (ROOT / "tests/conftest.py").read_text(encoding="utf-8"))
    return of(COMMANDS) | set(in_tests) | {"--help"}


@over_pages
def test_every_option_that_a_page_names_exists(page):
    names = COMMANDS.list_commands(TOP)
    for code in INLINE.findall(prose_of(page)):
        words = code.split()
        if words[0] == "laconic" and re.fullmatch("[a-z]+", " ".join(words[1:2])):
            assert words[1] in names, code
        if words[0] == "laconic" or words[0].startswith("--"):
            options = [word for word in words if re.fullmatch(r"--[a-z][\w-]*", word)]
            assert not [option for option in options if option not in known_options()], code


@over_pages
def test_every_target_of_make_that_a_page_names_exists(page):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make (\w+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert named <= targets


def test_the_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < README_LINES


def rows_of(page: str) -> list[list[str]]:
    """The cells of every row of every table of a page."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def is_public(cls: type) -> bool:
    """Whether `laconic` names the class. Pages must have those; of others they may say nothing, but nothing wrong."""
    return cls.__name__ in laconic.__all__


PUBLIC_METHODS = {name for name, cls in laconic.ALGORITHMS.items() if is_public(cls)}


def test_the_table_of_methods_has_every_public_method_and_all_rows_have_the_papers_bits():
    cells = {name: row[2:4] for row in rows_of("docs/methods.md") for name in re.findall(r"`([\w-]+)`", row[0])}
    assert set(cells) >= PUBLIC_METHODS
    for name in cells.keys() & laconic.ALGORITHMS.keys():
        figures = laconic.ALGORITHMS[name]().paper_bits(ModelSpec.of_sizes(D), N)
        for cell, bits in zip(cells[name], figures, strict=True):
            expected = float(f"{bits / D:.3g}")
            assert cell == "not counted" if not bits else float(cell.removeprefix("at most ")) == expected, name


def test_the_page_of_methods_has_every_public_compressor():
    public = {name for name, cls in COMPRESSORS.items() if is_public(cls)}
    assert public <= set(re.findall(r"`([\w-]+)`", (ROOT / "docs/methods.md").read_text(encoding="utf-8")))


def test_the_glossary_has_every_public_method():
    page = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    assert not [name for name in PUBLIC_METHODS if f"`{name}`" not in page]


def test_every_memory_name_is_in_the_glossary_or_at_the_top_of_a_method_that_is_not_public():
    page = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    new = {cls.__module__.rpartition(".")[2] for cls in laconic.ALGORITHMS.values() if not is_public(cls)}
    for folder in ("algorithms", "policies"):
        for path in sorted((ROOT / "src/laconic" / folder).glob("*.py")):
            _, top, code = path.read_text(encoding="utf-8").split('"""', 2)
            explained = page + top if path.stem in new else page
            memories = re.findall(r'memory(?:\.number|\.set_number)?[\[(]f?"([\w ]+)', code)
            assert not [name for name in memories if not re.search(rf'memory\["{name}[."]', explained)], path.name


def test_the_versions_of_data_are_those_of_the_code():
    versions = {row[0]: row[1] for row in rows_of("docs/compatibility.md") if len(row) == 4}
    assert versions["wire format"] == str(head.FORMAT_VERSION)
    assert versions["saved state"] == str(state_dict.VERSION)


SHOWN = {
    "README.md": "run --algorithm sgd --epochs 1 --workers 2",
    "docs/plan.md": "plan sgd --params 1000 --workers 2 --bandwidth 1Gbit --no-measure",
}


@pytest.mark.parametrize("page", SHOWN)
def test_a_table_that_a_page_shows_has_the_columns_that_the_command_prints(page):
    printed = [line.split() for line in command(*SHOWN[page].split()).out.splitlines()]
    rules = [number for number, words in enumerate(printed) if words and set(words[0]) == {"─"}]
    columns = ["wall" if word == "simulated" else word for word in printed[rules[0] - 1]]  # of processes in the README
    assert columns in [line.split() for line in (ROOT / page).read_text(encoding="utf-8").splitlines()], columns


def test_a_word_is_in_the_glossary_once():
    words = [row[0] for row in rows_of("docs/glossary.md") if len(row) == 2 and row[0].strip("-") not in ("", "word")]
    assert [one for one, other in pairwise(sorted(words)) if one == other] == []
