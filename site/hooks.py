"""What mkdocs calls while it builds the site: pages made from the code, and links that leave docs/."""

import posixpath
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import normalize_url
from mkdocs.utils.templates import TemplateContext

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "src")]

from chapter_pages import chapter_pages  # noqa: E402
from method_pages import method_pages  # noqa: E402
from reference_pages import reference_pages  # noqa: E402

ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["laconic"]["address"]
BROUGHT = {  # files that are pages of the site under another name; the first page is README.md
    "README.md": "index.md",
    "docs/README.md": "pages.md",
    "src/laconic/wire/FORMAT.md": "wire-format.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(\[(?:[^\]\[]|\[[^\]]*\])*\])\((?![a-z]+:|#)([^)#\s]*)(#[^)\s]*)?\)")
_FENCED = re.compile(r"(^ *```.*?^ *```$)", flags=re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and put them into the navigation."""
    files.remove(files.src_uris["README.md"])
    for source, uri in BROUGHT.items():
        _add(files, config, uri, (ROOT / source).read_text(encoding="utf-8"))
    made = {"@methods": method_pages(), "@chapters": chapter_pages(), "@reference": reference_pages()}
    for pages in made.values():
        for uri, text in pages.items():
            _add(files, config, uri, text)
    listed = {name: list(pages) for name, pages in made.items()}
    listed["@results"] = ["results/README.md", *sorted(uri for uri in files.src_uris if _is_result(uri))]
    config.nav = _filled(config.nav, listed)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files outside docs/ into links to their pages, or into plain text where they have none."""
    source = next((source for source, uri in BROUGHT.items() if uri == page.file.src_uri), f"docs/{page.file.src_uri}")
    here = posixpath.dirname(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        words, path, anchor = link[1], link[2], link[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        uri = BROUGHT.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if uri and uri not in files.src_uris:
            uri = next((one for one in (f"{uri}/README.md",) if one in files.src_uris), None)
        if uri:
            return f"{words}({posixpath.relpath(uri, here or '.')}{anchor})"
        return f"{words}({ADDRESS}{target}{anchor})" if ADDRESS else words[1:-1]

    parts = _FENCED.split(markdown)
    return "".join(part if i % 2 else _LINK.sub(moved, part) for i, part in enumerate(parts))


def on_template_context(context: TemplateContext, template_name: str, config: MkDocsConfig) -> TemplateContext:
    """Let 404.html fetch from its own folder, where mkdocs takes the root of a server, which a folder has not."""
    if template_name == "404.html" and not config.site_url:
        context["base_url"] = "."
        context["extra_css"] = [normalize_url(path, None, ".") for path in config.extra_css]
        context["extra_javascript"] = [normalize_url(str(script), None, ".") for script in config.extra_javascript]
    return context


def _add(files: Files, config: MkDocsConfig, uri: str, text: str) -> None:
    files.append(File.generated(config, uri, content=text))


def _is_result(uri: str) -> bool:
    return uri.startswith("results/") and uri.endswith(".md") and uri != "results/README.md"


def _filled(nav: list[Any], listed: dict[str, list[str]]) -> list[Any]:
    """Return the navigation with lists of pages in place of their names."""
    found: list[Any] = []
    for entry in nav:
        if isinstance(entry, str):
            found += listed.get(entry, [entry])
        else:
            found.append(
                {title: _filled(below, listed) if isinstance(below, list) else below for title, below in entry.items()}
            )
    return found
