"""A page for each chapter of the monograph: its sections, its methods, and what its figures measured here."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
METHODS_OF = {  # the methods that a chapter is about
    1: ("sgd",),
    2: ("sgd", "sgd-model", "sgd-server"),
    3: ("csgd", "csgd-ring", "ec-sgd"),
    4: ("asgd",),
    5: ("dsgd",),
    6: ("diloco", "powersgd", "sparseloco"),
}
_CHAPTER = re.compile(r"^## (\d) (.+?)\n(.*?)(?=^## )", flags=re.DOTALL | re.MULTILINE)
_ITEM = re.compile(r"reproduce (003-[\w.-]+)")


def chapter_pages() -> dict[str, str]:
    """Return the path and text of the page of each chapter."""
    text = (ROOT / "docs" / "monograph.md").read_text(encoding="utf-8")
    verdicts = _verdicts()
    pages = {}
    for number, title, sections in _CHAPTER.findall(text):
        methods = ", ".join(f"[`{name}`](../methods/{name}.md)" for name in METHODS_OF[int(number)])
        items = [item for item in dict.fromkeys(_ITEM.findall(sections)) if item in verdicts]
        rows = "\n".join(f"| `laconic reproduce {item}` | {verdicts[item]} |" for item in items)
        measured = f"\n## Measured here\n\n| command | verdict |\n|---|---|\n{rows}\n" if rows else ""
        pages[f"monograph/chapter-{number}.md"] = (
            f"# {number} {title}\n\n"
            f"Liu, Zhang: *Distributed Learning Systems with First-Order Methods*, chapter {number}.\n"
            f"Methods: {methods}. [All chapters, and how to read this table](../monograph.md).\n\n"
            f"## Sections\n{sections.replace('](../notebooks', '](../../notebooks')}{measured}"
            + ("\nThe figures are in [the recorded reproductions](../results/reproductions.md).\n" if rows else "")
        )
    assert len(pages) == len(METHODS_OF), "a chapter of docs/monograph.md has no methods here"
    return pages


def _verdicts() -> dict[str, str]:
    """Return the verdict of each item, from the recorded table."""
    text = (ROOT / "docs" / "results" / "reproductions.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| 003-")
    ]
    return {row[0]: row[-1] for row in rows if len(row) == 5}
