"""Pages of the dashboard that are watched while a test uses them, and a gateway that has something to show."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from tests.support.brokers import Broker
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}


class Watched:
    """Opens pages at a gateway and notes whatever they do that they mustn't."""

    def __init__(self, chromium: Browser) -> None:
        self._chromium = chromium
        self._contexts: list[BrowserContext] = []
        self.faults: list[str] = []

    def open(
        self,
        address: str,
        viewport: dict[str, int] | None = None,
        html: str | None = None,
        prepare: Callable[[Page], object] | None = None,
        **options: Any,
    ) -> Page:
        """A page in a profile of its own; with `html` the address is answered by that, at its origin.

        `prepare` is called before the page goes anywhere.
        """
        context = self._chromium.new_context(viewport=viewport or WIDE, accept_downloads=True, **options)  # type: ignore[arg-type]
        self._contexts.append(context)
        page = context.new_page()
        host = urlsplit(address).netloc

        def requested(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme not in ("blob", "data") and parts.netloc != host:
                self.faults.append(f"a request to {url}")

        page.on("pageerror", lambda fault: self.faults.append(str(fault)))
        page.on("console", lambda line: self._said(line.text))
        page.on("request", lambda request: requested(request.url))
        page.on("websocket", lambda socket: requested(socket.url))
        if html is not None:
            page.route(address, lambda route: route.fulfill(body=html, content_type="text/html"))
        if prepare is not None:
            prepare(page)
        page.goto(address)
        return page

    def _said(self, text: str) -> None:
        if "Content Security Policy" in text or "Refused to" in text:
            self.faults.append(text)

    def close(self) -> None:
        """Closes every page."""
        for context in self._contexts:
            context.close()


class Site:
    """A broker of its own with a gateway before it."""

    def __init__(self, broker: Broker, gateway: GatewayProcess, publisher: Publisher) -> None:
        self.broker = broker
        self.gateway = gateway
        self.publisher = publisher

    @property
    def home(self) -> str:
        """The dashboard's address."""
        return f"{self.gateway.http}/"

    def live(self, topic_filter: str, query: str = "") -> str:
        """The address of a filter's view."""
        return f"{self.gateway.http}/topics/{quote(topic_filter, safe='/+$')}{query}"

    def seen(self, topic: str, count: int = 1) -> None:
        """Returns when the gateway has so many messages of a topic."""
        address = f"/topics/{quote(topic, safe='/')}?since=1h&limit=10000"
        eventually(lambda: len(self.gateway.json(address)["messages"]) >= count, 20, f"{count} messages of {topic}")


def meta(name: str, interval: float = 10, **fields: tuple[str, str]) -> str:
    described = {field: {"unit": unit, "device_class": kind} for field, (unit, kind) in fields.items()}
    return json.dumps({"schema": 1, "name": name, "model": "ESP32", "interval": interval, "fields": described})


def rows(page: Page) -> Locator:
    return page.locator(".devices .rows [role=row]")
