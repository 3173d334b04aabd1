"""What README and docs show runs where a reader would paste it, against the demo that he was told to start."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import MakeNetwork
from tests.browser.network import Network
from tests.browser.test_first_page import web_server
from tests.support.waiting import eventually, missing
from tests.test_cli import Running, address_in, run, running
from tests.test_docs import blocks

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
WRITTEN = "127.0.0.1:8000"
"""The address that pages name: the one that the demo prints where nothing else has it."""

pytestmark = [pytest.mark.slow]


@dataclass(frozen=True)
class Snippet:
    """A block of a page."""

    page: str
    number: int
    language: str
    text: str

    @property
    def is_module(self) -> bool:
        """Whether it imports something, so that it can't be pasted into developer tools."""
        return "import {" in self.text

    @property
    def is_of_the_gateways_origin(self) -> bool:
        """Whether its addresses begin with a slash."""
        return bool(re.search(r'["`]/\w', self.text))

    def __str__(self) -> str:
        return f"{self.page}-{self.language}{self.number}"


ELSEWHERE = {"docs/django.md"}
"""What these show is held to `examples/` by tests/test_docs.py, and that runs in test_examples.py."""

SHOWN = [
    "README.md",
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")),
    "web/client/README.md",
]
SNIPPETS = [
    Snippet(page, number, language, text)
    for page in [
        "README.md",
        *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")),
        "web/client/README.md",
    ]
    for language in ("js", "html")
    for number, text in enumerate(blocks((ROOT / page).read_text(encoding="utf-8"), language))
    if page not in ELSEWHERE
]
SCRIPTS = [snippet for snippet in SNIPPETS if snippet.language == "js" and not snippet.is_module]
MODULES = [snippet for snippet in SNIPPETS if snippet.language == "js" and snippet.is_module]
PAGES = [snippet for snippet in SNIPPETS if snippet.language == "html"]
PLACES = [
    (snippet, place)
    for snippet in PAGES
    for place in (("the gateway",) if snippet.is_of_the_gateways_origin else ("a development server", "a file"))
]


@pytest.fixture(scope="module")
def demo() -> Iterator[Running]:
    """`make demo`, less the setting up."""
    with running("demo", "--port", "0") as started:
        address_in(started)
        yield started


@pytest.fixture(scope="module")
def demo_for_files() -> Iterator[Running]:
    """`make demo ARGS="--origin null"`."""
    with running("demo", "--port", "0", "--origin", "null") as started:
        address_in(started)
        yield started


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page that notes what is said in its console; nothing on it may fail."""
    context = chromium.new_context()
    page = context.new_page()
    page.add_init_script("globalThis.said = []; console.log = (...words) => said.push(words.map(String).join(' '))")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def here(text: str, demo: Running) -> str:
    """A snippet with the demo's own port."""
    return text.replace(WRITTEN, urlsplit(address_in(demo)).netloc)


def assert_it_works(page: Page, snippet: Snippet) -> None:
    """It says something that means something, or shows a number, or came to its end."""
    if 'id="temperature"' in snippet.text:
        eventually(
            lambda: page.evaluate("/^-?[0-9.]+$/.test(document.getElementById('temperature')?.textContent ?? '')"), 20
        )
        assert page.evaluate("document.characterSet") == "UTF-8"
    elif "console.log" in snippet.text:
        eventually(lambda: page.evaluate("said.length >= 2"), 20)
        assert not [line for line in page.evaluate("said") if "undefined" in line or "NaN" in line]
    else:
        eventually(lambda: page.evaluate("globalThis.done"), 20)


@pytest.mark.parametrize("snippet", SCRIPTS, ids=str)
def test_a_script_runs_in_the_developer_tools_of_the_demos_page(snippet: Snippet, page: Page, demo: Running) -> None:
    page.goto(address_in(demo))
    tools = page.context.new_cdp_session(page)
    for _ in range(2):  # pasted twice, too
        answer = tools.send("Runtime.evaluate", {"expression": here(snippet.text, demo), "replMode": True})
        assert "exceptionDetails" not in answer, answer
    assert_it_works(page, snippet)


@pytest.mark.parametrize("snippet", [each for each in SCRIPTS if not each.is_of_the_gateways_origin], ids=str)
def test_a_script_runs_on_a_page_of_a_development_server(snippet: Snippet, page: Page, demo: Running) -> None:
    html = f'<!doctype html><meta charset="utf-8"><script>{here(snippet.text, demo)}</script>'
    with web_server(html.encode()) as origin:
        for address in (origin, origin.replace("127.0.0.1", "localhost")):
            page.goto(f"{address}/")
            assert_it_works(page, snippet)


@pytest.mark.parametrize("snippet", MODULES, ids=str)
def test_a_module_runs_on_a_page_of_the_gateways_origin(snippet: Snippet, page: Page, network: Network) -> None:
    # what the sentences before it have made
    known = [name for name in ("live", "token") if re.search(rf"\b{name}\b", snippet.text)]
    known = [name for name in known if f"const {name}" not in snippet.text]
    made = {"live": 'const live = (await import("/client.js")).connect("/ws");', "token": "const token = undefined;"}
    module = "".join(made[name] for name in known) + snippet.text + "\nglobalThis.done = true;"
    show(page, network, f'<!doctype html><meta charset="utf-8"><script type="module">{module}</script>')
    assert_it_works(page, snippet)


def show(page: Page, network: Network, html: str) -> None:
    """Shows a page at the gateway's origin: as one that lies beside it behind a proxy."""
    network.html = html
    page.goto(network.page)


@pytest.fixture
def network(network_to: MakeNetwork, demo: Running) -> Network:
    """A way to the demo on which pages of the test's own lie."""
    return network_to(urlsplit(address_in(demo)).port or 80)


@pytest.mark.parametrize(("snippet", "place"), PLACES, ids=str)
def test_a_page_works_where_it_is_said_to(
    snippet: Snippet,
    place: str,
    page: Page,
    demo: Running,
    demo_for_files: Running,
    network: Network,
    tmp_path: Path,
) -> None:
    if place == "the gateway":
        show(page, network, snippet.text)
        return assert_it_works(page, snippet)
    if place == "a file":
        file = tmp_path / "page.html"
        file.write_text(here(snippet.text, demo_for_files), encoding="utf-8")
        page.goto(file.as_uri())
        return assert_it_works(page, snippet)
    with web_server(here(snippet.text, demo).encode()) as origin:
        page.goto(f"{origin.replace('127.0.0.1', 'localhost')}/")
        assert_it_works(page, snippet)
    return None


def shell_lines() -> list[str]:
    text = (ROOT / "docs/tutorials/shell.md").read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in lines if re.match(r"gateway (sub|pub|explain|record) ", line)]


@pytest.mark.parametrize("line", shell_lines())
def test_a_command_that_is_shown_finds_the_demo(line: str, demo: Running, tmp_path: Path) -> None:
    _, *words = shlex.split(line)
    if words[0] in ("sub", "record") and "--timeout" not in words:
        words += ["--timeout", "5"] if words[0] == "sub" else ["--for", "3s"]
    result = run(*words, environ={"GATEWAY_URL": address_in(demo)}, cwd=tmp_path)
    assert result.stdout or words[0] == "pub", result.stderr
    assert result.returncode == 0 or words[0] in ("sub", "explain"), result.stderr


def test_explain_names_first_what_was_meant(demo: Running) -> None:
    result = run("explain", "sensors/living-climate/stat", environ={"GATEWAY_URL": address_in(demo)})
    said = result.stdout.decode()
    near = re.findall(r"sensors/living-climate/\w+", said.partition("near")[2] or said)
    found = [topic for topic in near if topic != "sensors/living-climate/stat"]
    assert found[:2] == ["sensors/living-climate/state", "sensors/living-climate/status"], said


def test_the_client_library_runs_in_node_as_its_page_shows(demo: Running, tmp_path: Path) -> None:
    text = (ROOT / "web/client/README.md").read_text(encoding="utf-8")
    block = text.partition("## In Node.js\n\n")[2].partition("\n\nNode.js 20")[0]
    lines = [line.removeprefix("    ") for line in block.splitlines()]
    node, packages = shutil.which("node"), ROOT / "web/node_modules"
    if node is None or not (ROOT / "web/client/dist").is_dir() or not (packages / "ws").is_dir():
        missing("Node.js and the client library with what it is built with (make web)")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/gateway-live").symlink_to(ROOT / "web/client")
    (tmp_path / "node_modules/ws").symlink_to(packages / "ws")
    script = "\n".join(lines).replace("https://gateway.example.org/", address_in(demo))
    (tmp_path / "script.mjs").write_text(script, encoding="utf-8")
    with subprocess.Popen(
        [node, "--preserve-symlinks", "script.mjs"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline().decode()
        process.kill()
        assert said.startswith("sensors/"), said + process.stdout.read().decode()


def test_json_that_is_shown_is_json() -> None:
    shown = 0
    for page in SHOWN:
        for block in blocks((ROOT / page).read_text(encoding="utf-8"), "json"):
            with contextlib.suppress(json.JSONDecodeError):
                json.loads(block)
                shown += 1
                continue
            for line in block.splitlines():
                json.loads(line)
            shown += 1
    assert shown
