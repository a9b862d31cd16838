"""A page for each method, made from its file and from what `laconic show` says of it."""

import html
import re
from pathlib import Path

from laconic.cli.method import claims_of, head_of, hyperparameter_rows, links_of, python_line, summary_line
from laconic.cli.show import paragraphs
from laconic.contract import ALGORITHMS
from laconic.lab.algorithms import make_algorithm

ROOT = Path(__file__).parents[1]
_CONVENTION = re.compile(r"^- (.+?)(?=^- |^$)", flags=re.DOTALL | re.MULTILINE)


def method_pages() -> dict[str, str]:
    """Return the path and text of the page of each method."""
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    section = text.partition("## Conventions\n")[2].partition("\n`laconic reproduce")[0]
    conventions = [" ".join(found.split()) for found in _CONVENTION.findall(section + "\n")]
    cases = _cases()
    return {f"methods/{name}.md": _page(name, conventions, cases) for name in sorted(ALGORITHMS)}


def _cases() -> list[list[str]]:
    """Return the rows of the table of docs/which-method.md: case, methods, evidence."""
    text = (ROOT / "docs" / "which-method.md").read_text(encoding="utf-8").partition("|---|---|---|\n")[2]
    rows = [line.strip("| ").split(" | ") for line in text.partition("\n\n")[0].splitlines()]
    missing = [name for name in ALGORITHMS if not any(f"`{name}`" in row[1] for row in rows)]
    assert not missing, f"docs/which-method.md has no case for {missing}"
    return rows


def _page(name: str, conventions: list[str], cases: list[list[str]]) -> str:
    algorithm = make_algorithm(name, {})
    cls = type(algorithm)
    links = ", ".join(f"[{link.removeprefix('https://')}]({link})" for link in links_of(cls))
    own = [line for line in conventions if line.startswith("all ") or f"`{name}`" in line.partition(":")[0]]
    when = [
        f"- {case[0].upper()}{case[1:]}: {evidence.replace('](', '](../')}"
        for case, methods, evidence in cases
        if f"`{name}`" in methods
    ]
    parts = [
        f"# {name}\n\n{summary_line(cls)}\n",
        f"*{cls.source}*" + (f" ({links})" if links else "") + "\n",
        f"```python\n{python_line(algorithm, {})}\n```\n\n```\nlaconic run -a {name}\n```\n",
        "## When to use it\n\n" + "\n".join(when) + "\n\nBeside the others: [which method when](../which-method.md).\n",
        f"## Paper, symbols, equations\n\n{_as_prose(head_of(cls))}\n",
        *_hyperparameters(hyperparameter_rows(cls)),
        "## Claims, memory and bytes\n\nThe tests hold the method to these. d is the number of parameters.\n\n"
        + _table(("claim", "value"), claims_of(algorithm)),
        "## Conventions\n\n"
        + "\n".join(f"- {line}" for line in own)
        + "\n\nMore: [methods](../methods.md#conventions).\n",
    ]
    return "\n".join(parts)


def _as_prose(head: str) -> str:
    """Return the head of a file as Markdown: paragraphs broken anew, and indented lines as they are."""
    blocks: list[str] = []
    for line in paragraphs(head):
        indented = line.startswith(" ")
        if indented and blocks and blocks[-1].startswith("    "):
            blocks[-1] += f"\n  {line}"
        elif line.strip():
            blocks.append(f"  {line}" if indented else _as_it_is(line))
    return "\n\n".join(blocks)


def _as_it_is(line: str) -> str:
    """Return Markdown that shows a line of plain text; what stands between backticks is code already."""
    parts = line.split("`")
    for number in range(0, len(parts), 2):
        parts[number] = re.sub(r"([*_|\\])", r"\\\1", html.escape(parts[number], quote=False))
    return "`".join(parts)


def _hyperparameters(rows: "list[tuple[str, str, str, str, str]]") -> list[str]:
    """Return the tables of the method's own hyper-parameters and, once, of those of what is plugged in."""
    columns = ("key", "meaning", "default", "range", "unit")  # on a telephone the last ones are out of sight
    ordered = [(key, about, default, bounds, unit) for key, default, bounds, unit, about in rows]
    own = [row for row in ordered if "." not in row[0]]
    plugged = {(row[0].rpartition(".")[2], row[1]): row for row in ordered if "." in row[0]}
    parts = ["## Hyper-parameters\n\n" + _table(columns, own)]
    if plugged:
        keys = ", ".join(
            f"`{key}.NAME`" for key in dict.fromkeys(row[0].partition(".")[0] for row in rows if "." in row[0])
        )
        below = [(row[0].partition(".")[2], *row[1:]) for row in plugged.values()]
        parts.append(f"What is plugged in has options of its own, set as {keys}:\n\n" + _table(columns, below))
    return parts


def _table(columns: tuple[str, ...], rows: "list[tuple[str, ...]]") -> str:
    """Return rows as a table, or a line that there are none."""
    if not rows:
        return "None.\n"
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
