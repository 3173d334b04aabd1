"""A plain EventSource in Chromium: cut connections, a restarted gateway, and the page needs no code for either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.brokers import Broker
    from tests.support.publishers import Publisher

SCRIPT = """url => {
    window.seen = []; window.gaps = [];
    const source = new EventSource(url);
    source.onmessage = e => window.seen.push(JSON.parse(e.data).payload);
    source.addEventListener("gap", e => window.gaps.push(JSON.parse(e.data)));
}"""


@pytest.mark.slow
def test_an_event_source_misses_nothing_and_gets_nothing_twice(
    chromium: Browser, make_gateway: Any, network_to: Any, mosquitto: Broker, publisher: Publisher, prefix: str
) -> None:
    gateway = make_gateway(mosquitto)
    network = network_to(gateway.port)
    page = chromium.new_page()
    try:
        page.goto(network.page)
        page.evaluate(SCRIPT, f"/topics/{prefix}/%23")
        publisher.publish(f"{prefix}/a", "0")
        eventually(lambda: page.evaluate("window.seen") == [0])
        for number in range(1, 6):
            publisher.publish(f"{prefix}/a", str(number))
            if number == 3:
                network.cut()
        publisher.publish(f"{prefix}/a", "6")
        network.mend()
        eventually(lambda: page.evaluate("window.seen").count(6) == 1, 20)
        publisher.publish(f"{prefix}/a", "7")
        eventually(lambda: page.evaluate("window.seen").count(7) == 1)
        assert page.evaluate("window.seen") == list(range(8))
        assert page.evaluate("window.gaps") == []

        publisher.publish(f"{prefix}/kept", '"retained"', retain=True)
        eventually(lambda: "retained" in page.evaluate("window.seen"))
        gateway.stop()
        gateway.start()
        eventually(lambda: page.evaluate("window.gaps"), 20)
        [gap] = page.evaluate("window.gaps")
        assert (gap["reason"], gap["lost"]) == ("epoch", None)
        eventually(lambda: page.evaluate("window.seen").count("retained") == 2, 20)
    finally:
        page.close()
