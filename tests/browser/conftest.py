"""Fixtures for tests in a real Chromium, Debian's, driven by Playwright.

chromium        the browser, for a module
open_page       opens a page of the test's own at the gateway's origin, with the client library loaded
network_to      a network to a gateway that can be cut
watched         opens pages of the dashboard; what they do that they mustn't fails the test
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support.waiting import eventually, missing
from tests.support.yardsticks import YARDSTICK_SECONDS, yardstick_seconds

from .network import Network
from .watched import Watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, CDPSession, Page


ROOT = Path(__file__).parents[2]

PATIENCE_SECONDS = 30
"""How long `expect` waits for what a page is to show: a deadline for a busy machine, no claim about how quick it is."""


def chromium_program() -> str | None:
    """Where Chromium is: GATEWAY_TEST_CHROMIUM, or the first on PATH."""
    chosen = os.environ.get("GATEWAY_TEST_CHROMIUM")
    return chosen or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


# For the module only: while Playwright's own loop is there, no other test could run one in this thread.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A running browser without a window."""
    program = chromium_program()
    if program is None:
        missing("Chromium (on Debian: apt install chromium)")
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        missing("the package playwright")
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class WebTools:
    """npm with the packages of web/, as the build finds them."""

    def __init__(self, npm: list[str], environment: dict[str, str]) -> None:
        self._npm = npm
        self._environment = environment

    def run(self, *arguments: str) -> None:
        """Runs npm in web/."""
        done = subprocess.run(
            [*self._npm, *arguments],
            cwd=ROOT / "web",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def web_tools() -> WebTools:
    """npm with the packages of web/, and web/ built, as `make web` leaves it."""
    spec = importlib.util.spec_from_file_location("build_web", ROOT / "scripts" / "build_web.py")
    assert spec is not None
    assert spec.loader is not None
    build_web = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_web)
    if not (build_web.is_built(ROOT) and build_web.is_installed(ROOT / "web")):
        missing("the web pages as they are now, and what they are built with (make web)")
    return WebTools(*build_web.find_npm(ROOT / "build" / "node"))


class MakeNetwork(Protocol):
    """Makes a network to this port."""

    def __call__(self, port: int, *, tls: ssl.SSLContext | None = None, prefix: str = "") -> Network: ...


@pytest.fixture
def network_to() -> Iterator[MakeNetwork]:
    """Makes networks that end with the test."""
    networks: list[Network] = []

    def make(port: int, *, tls: ssl.SSLContext | None = None, prefix: str = "") -> Network:
        networks.append(Network(port, tls=tls, prefix=prefix))
        return networks[-1]

    yield make
    for network in networks:
        network.close()


# What a page of these tests does with the client: it notes whatever comes.
_SETUP = """
async ([module, url, options]) => {
  const { connect } = await import(module);
  if (options.hiddenHz === "Infinity") options.hiddenHz = Infinity;
  const live = connect(url, options);
  Object.assign(globalThis, { connect, live, messages: [], events: [], states: [] });
  live.on("message", (message) => messages.push(message));
  live.on("state", (change) => states.push({ at: performance.now(), ...change }));
  for (const type of ["gap", "upstream", "error", "subscribed"]) {
    live.on(type, (event) => events.push({ type, ...event, code: event.code }));
  }
}
"""


class LivePage:
    """A page with a client on it that notes its messages, events and states."""

    def __init__(self, page: Page, network: Network) -> None:
        self.page = page
        self.network = network
        self.faults: list[str] = []
        page.on("pageerror", lambda fault: self.faults.append(str(fault)))
        page.goto(network.page)

    def connect(self, url: str = "ws", module: str = "./client.js", **options: Any) -> None:
        """Connects, with the client's own options."""
        self.page.evaluate(_SETUP, [module, url, options])

    def wait(self, expression: str, timeout_seconds: float = 20) -> None:
        """Waits until a JavaScript expression is true."""
        self.page.wait_for_function(expression, timeout=timeout_seconds * 1000, polling=50)

    def wait_open(self, timeout_seconds: float = 40) -> None:
        """Waits until it is connected and every subscription taken."""
        self.wait("live.state === 'open' && events.some((event) => event.type === 'subscribed')", timeout_seconds)

    def payloads(self, topic: str) -> list[Any]:
        """What came for a topic."""
        found: list[Any] = self.page.evaluate(
            "(topic) => messages.filter((message) => message.topic === topic).map((message) => message.payload)", topic
        )
        return found

    def wait_payload(self, topic: str, payload: Any, timeout_seconds: float = 20) -> None:
        """Waits until this message has come."""
        self.page.wait_for_function(
            "([topic, payload]) => messages.some((m) => m.topic === topic && m.payload === payload)",
            arg=[topic, payload],
            timeout=timeout_seconds * 1000,
            polling=50,
        )

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind so far."""
        found: list[dict[str, Any]] = self.page.evaluate(
            "(type) => events.filter((event) => event.type === type)", kind
        )
        return found

    def states(self) -> list[str]:
        """The states that it went through."""
        found: list[str] = self.page.evaluate("states.map((change) => change.state)")
        return found

    def cdp(self) -> CDPSession:
        """DevTools of this page."""
        return self.page.context.new_cdp_session(self.page)


class Tasks:
    """What pages did: the processor time of each task of their main threads, in no order.

    In seconds of a machine on which the yardstick takes `YARDSTICK_SECONDS`: a slower one makes both longer. A frame, a
    message and a key wait while a task runs; processor time is what it takes on a machine that does nothing else. From
    Chromium's trace: `tdur` of the events `RunTask`.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    @contextlib.contextmanager
    def noted(self) -> Iterator[list[float]]:
        """A list that is filled when the block ends."""
        tasks: list[float] = []
        before = yardstick_seconds()
        self._browser.start_tracing(categories=["devtools.timeline", "disabled-by-default-devtools.timeline"])
        try:
            yield tasks
        finally:
            events = json.loads(self._browser.stop_tracing())["traceEvents"]
        pace = (before + yardstick_seconds()) / 2 / YARDSTICK_SECONDS
        names = {(each["pid"], each["tid"]): each["args"]["name"] for each in events if each["name"] == "thread_name"}
        tasks += [
            each["tdur"] / 1e6 / pace
            for each in events
            if each["name"] == "RunTask"
            and names.get((each["pid"], each["tid"])) == "CrRendererMain"
            and "tdur" in each
        ]


@pytest.fixture
def page_tasks(chromium: Browser) -> Tasks:
    """The processor time that pages take."""
    return Tasks(chromium)


class Tab:
    """A page that Playwright has no hands on.

    To Playwright every page is in front: a tab that is to be hidden, as another one comes to the front, or frozen, must
    be a stranger to it. Commands go through the browser's own session.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser.new_browser_cdp_session()
        self._answers: dict[int, dict[str, Any]] = {}
        self._last_id = 0
        self._browser.on("Target.receivedMessageFromTarget", self._receive)
        self._others: list[str] = []
        self._id: str = self._browser.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._browser.send("Target.attachToTarget", {"targetId": self._id, "flatten": False})
        self._session: str = attached["sessionId"]

    def _receive(self, event: dict[str, Any]) -> None:
        answer = json.loads(event["message"])
        if "id" in answer:
            self._answers[answer["id"]] = answer

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A DevTools command to the tab, and its answer."""
        self._last_id += 1
        number = self._last_id
        text = json.dumps({"id": number, "method": method, "params": parameters})
        self._browser.send("Target.sendMessageToTarget", {"sessionId": self._session, "message": text})

        def answer() -> dict[str, Any] | None:
            self._browser.send("Target.getTargets")  # lets events in
            return self._answers.pop(number, None)

        got = eventually(answer, 20, method)
        assert got is not None
        assert "error" not in got, got
        result: dict[str, Any] = got["result"]
        return result

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it comes to."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression: str, timeout_seconds: float = 20) -> None:
        """Waits until a JavaScript expression is true."""
        eventually(lambda: self.evaluate(f"!!({expression})"), timeout_seconds, expression)

    def connect(self, network: Network, **options: Any) -> None:
        """Opens a page of the network and connects as `LivePage.connect` does."""
        self.send("Page.enable")
        self.send("Page.navigate", url=network.page)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")
        self.evaluate(f"({_SETUP})({json.dumps(['./client.js', 'ws', options])})")
        self.wait("live.state === 'open'")

    def payloads(self, topic: str) -> list[Any]:
        """What came for a topic."""
        name = json.dumps(topic)
        found: list[Any] = self.evaluate(f"messages.filter((m) => m.topic === {name}).map((m) => m.payload)")
        return found

    def hide(self) -> None:
        """Brings another tab to the front."""
        self._others.append(self._browser.send("Target.createTarget", {"url": "about:blank"})["targetId"])
        self.wait("document.visibilityState === 'hidden'")

    def show(self) -> None:
        """Brings this tab to the front."""
        self._browser.send("Target.activateTarget", {"targetId": self._id})
        self.wait("document.visibilityState === 'visible'")

    def freeze(self) -> None:
        """Stops it as the browser stops tabs that nobody looks at."""
        self.send("Page.setWebLifecycleState", state="frozen")

    def thaw(self) -> None:
        """Lets it go on."""
        self.send("Page.setWebLifecycleState", state="active")

    def close(self) -> None:
        """Closes it."""
        for target in [self._id, *self._others]:
            self._browser.send("Target.closeTarget", {"targetId": target})
        self._browser.detach()


@pytest.fixture
def tab(chromium: Browser, web_tools: WebTools) -> Iterator[Tab]:
    """A tab that can be hidden and frozen."""
    opened = Tab(chromium)
    yield opened
    opened.close()


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Watched]:
    pages = Watched(chromium)
    yield pages
    pages.close()
    assert pages.faults == []


class OpenPage(Protocol):
    """Opens a page behind a network, in a browser profile of its own unless told."""

    def __call__(self, network: Network, context: BrowserContext | None = None) -> LivePage: ...


@pytest.fixture
def open_page(chromium: Browser, web_tools: WebTools) -> Iterator[OpenPage]:
    """Opens pages that are closed with the test; a fault in one of them fails the test."""
    contexts: list[BrowserContext] = []
    pages: list[LivePage] = []

    def make(network: Network, context: BrowserContext | None = None) -> LivePage:
        if context is None:
            context = chromium.new_context(ignore_https_errors=True)
            contexts.append(context)
        pages.append(LivePage(context.new_page(), network))
        return pages[-1]

    yield make
    faults = [fault for page in pages for fault in page.faults]
    for context in contexts:
        context.close()
    assert faults == []
