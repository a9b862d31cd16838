"""The documentation builds as a site without a warning, fetches nothing, and has a place for every method and name."""

import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import laconic
from laconic.hyperparameters import hyperparameters_of
from support.browser import browser, requests_of, why_none

ROOT = Path(__file__).parents[1]
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src"}

pytest.importorskip("mkdocs", reason="the extra `site` is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Addresses(HTMLParser):
    """The addresses that a page makes a browser fetch, and the names that can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in FETCHED and given.get("rel") != "canonical":
            self.fetched.append(given.get(FETCHED[tag]) or "")
        self.anchors.add(given.get("id") or "")


def addresses_of(page: Path) -> Addresses:
    parser = Addresses()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


@pytest.mark.slow
def test_a_page_of_the_site_makes_a_browser_fetch_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 60
    assert not [
        (page.name, one) for page in pages for one in addresses_of(page).fetched if re.match(r"(https?:)?//", one)
    ]


@pytest.mark.slow
def test_all_that_a_page_fetches_is_in_the_folder_of_the_site(site):
    missing = [
        (page.relative_to(site), one)
        for page in sorted(site.rglob("*.html"))
        for one in addresses_of(page).fetched
        if one and not one.startswith("data:") and not (page.parent / unquote(urlsplit(one).path)).is_file()
    ]
    assert not missing
    script = json.loads(re.search(r'<script id="__config"[^>]*>(.*?)</script>', (site / "404.html").read_text())[1])
    assert script["base"] == "."


@pytest.mark.slow
def test_the_reference_shows_hyper_parameters_with_plain_defaults_and_their_meanings(site):
    text = "\n".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    assert "hyperparameter(" not in re.sub(r"<[^>]+>", "", text)
    for cls in (laconic.SSGDMVAD, laconic.QSGD, laconic.RandomSkips):  # of inherited fields, a compressor, a policy
        for _, spec in hyperparameters_of(cls):
            assert html.escape(spec.about, quote=False) in re.sub(r"</?code>", "", text)


@pytest.mark.slow
def test_the_page_of_every_method_says_when_to_use_it(site):
    pages = [(site / "methods" / f"{name}.html").read_text(encoding="utf-8") for name in laconic.ALGORITHMS]
    assert all('id="when-to-use-it"' in page for page in pages)


@pytest.mark.slow
def test_the_page_of_no_method_shows_a_backslash_that_only_markdown_needs(site):
    pages = {name: (site / "methods" / f"{name}.html").read_text(encoding="utf-8") for name in laconic.ALGORITHMS}
    assert not {name: found for name, page in pages.items() if (found := re.findall(r"\S*\\[_*<>|&]\S*", page))}
    assert "stored.&lt;rank&gt;" in pages["lag"]


@pytest.mark.slow
def test_every_method_and_every_public_name_has_its_place_on_the_site(site):
    assert not [name for name in laconic.ALGORITHMS if not (site / "methods" / f"{name}.html").exists()]
    anchors = set().union(*(addresses_of(page).anchors for page in (site / "reference").glob("*.html")))
    assert not [name for name in laconic.__all__ if not any(one.endswith(f".{name}") for one in anchors)]


@pytest.mark.slow
def test_the_index_of_the_search_is_a_script_so_that_a_page_of_a_folder_can_read_it(site):
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = ")
    assert "majority vote" in index


@pytest.mark.browser
@pytest.mark.skipif(bool(why_none()), reason=why_none() or "")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_search_finds_a_page_from_a_folder_and_no_page_is_wider_than_the_window(site, tmp_path, width):
    from selenium.webdriver.support.ui import WebDriverWait

    with browser(tmp_path, width=width) as driver:
        driver.get(f"{(site / 'index.html').as_uri()}?q=DoubleSqueeze")
        links = "return [...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
        found = WebDriverWait(driver, 30).until(lambda driver: driver.execute_script(links))
        assert any("methods/ec-sgd.html" in link for link in found)
        too_wide = []
        for page in sorted(site.rglob("*.html")):
            driver.get(page.as_uri())
            if driver.execute_script("return document.documentElement.scrollWidth > window.innerWidth"):
                too_wide.append(page.name)
        assert not too_wide
        assert not [one for one in requests_of(driver) if one.startswith("http")]
