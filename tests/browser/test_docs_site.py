"""The documentation as a site: it builds strictly, each link leads somewhere, and nothing comes from another host."""

from __future__ import annotations

import html.parser
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import expect

from gateway.core.protocol import CLOSE_CODES, ERROR_CODES, EVENTS
from gateway.ops.metrics import METRICS
from tests.support.sites import served_folder
from tests.support.waiting import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow]


class Links(html.parser.HTMLParser):
    """What a page links to, what it loads, and which places of it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = {"", "__top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.places.add(str(found["id"]))
        for name in ("href", "src"):
            address = found.get(name)
            if address is not None:
                (self.links if tag == "a" else self.loaded).append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` builds it."""
    if find_spec("mkdocs") is None or find_spec("material") is None:
        missing("the package mkdocs-material (group `docs`)")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    found = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(found) > 25
    return found


def test_each_link_leads_to_a_page_and_to_a_place_on_it(site: Path, pages: dict[Path, Links]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its addresses are those of a server
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or link.startswith(("mailto:", "data:")):
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            if not target.is_file() or (target in pages and unquote(parts.fragment) not in pages[target].places):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[Path, Links]) -> None:
    for path, page in pages.items():
        assert not [address for address in page.loaded if urlsplit(address).netloc], path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_every_page_of_the_documentation_is_reached_from_the_first_one(site: Path, pages: dict[Path, Links]) -> None:
    start = site / "index.html"
    reached, waiting = {start}, [start]
    while waiting:
        path = waiting.pop()
        for link in pages[path].links:
            target = Path(os.path.normpath(path.parent / unquote(urlsplit(link).path)))
            if not urlsplit(link).scheme and target in pages and target not in reached:
                reached.add(target)
                waiting.append(target)
    for source in (ROOT / "docs").rglob("*.md"):
        page = site / source.relative_to(ROOT / "docs").with_suffix(".html")
        assert page in reached, source


def test_the_reference_is_what_the_code_says(site: Path) -> None:
    metrics = (site / "reference/metrics.html").read_text(encoding="utf-8")
    assert all(name in metrics for name in METRICS)
    events = (site / "reference/events.html").read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in events for name in (*EVENTS, *ERROR_CODES))
    assert all(f"<td>{code.value}</td>" in events for code in CLOSE_CODES)
    described = json.loads((site / "reference/asyncapi.json").read_text(encoding="utf-8"))
    page = (site / "reference/asyncapi.html").read_text(encoding="utf-8")
    assert all(f'id="{name.lower()}"' in page for name in described["components"]["messages"])
    described = json.loads((site / "reference/openapi.json").read_text(encoding="utf-8"))
    page = (site / "reference/openapi.html").read_text(encoding="utf-8")
    assert all(f"{path}</code>" in page for path in described["paths"])


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where a web server has the site."""
    with served_folder(site) as origin:
        yield origin


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("is_served", [True, False], ids=["from a server", "from a folder"])
def test_a_page_is_found_by_a_word_and_nothing_is_asked_of_another_host(
    chromium: Browser, site: Path, address: str, width: int, scheme: str, is_served: bool
) -> None:
    root = address if is_served else site.as_uri()
    context = chromium.new_context(
        viewport={"width": width, "height": 844}, color_scheme="dark" if scheme == "dark" else "light"
    )
    try:
        page = context.new_page()
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        # one that lies in a folder finds the way back to the top
        page.goto(f"{root}/{'tutorials/page' if scheme == 'dark' else 'index'}.html")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        if width < 960:
            page.locator("label[for=__search].md-header__button").click()
        page.get_by_role("textbox", name="Search").click()
        expect(page.locator(".md-search-result__meta")).to_have_text("Type to start searching", timeout=30_000)
        # the page listens to keys
        page.get_by_role("textbox", name="Search").press_sequentially("deadband")
        expect(page.locator(".md-search-result__item").first).to_contain_text("The protocol", timeout=30_000)
        page.locator(".md-search-result__item a").first.click()
        page.wait_for_url(f"{root}/protocol.html*")
        assert not [url for url in asked if not url.startswith((root, "data:", "blob:", "about:"))]
        assert errors == []
    finally:
        context.close()
