"""The dashboard in a real Chromium: alerts that fire are shown, counted in the title, and told by the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually, missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"

NOTED = """
window.told = [];
class Told {
  static permission = "default";
  static requestPermission() { Told.permission = "granted"; return Promise.resolve("granted"); }
  constructor(title, options) { window.told.push([title, options.body]); }
}
window.Notification = Told;
"""


@pytest.fixture(autouse=True)
def _is_built() -> None:
    if not (ROOT / "gateway" / "static" / "index.html").exists():
        missing("the built dashboard (python scripts/build_web.py)")


@pytest.mark.slow
def test_what_fires_is_shown_and_told(
    chromium: Browser, mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    alerts = [
        {"name": name, "topics": f"{prefix}/+", "where": f"t {comparison}", "summary": "{topic[1]} has {payload.t} °C"}
        for name, comparison in (("too-hot", "> 30"), ("too-cold", "< 0"))
    ]
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], alert_topic=f"{prefix}-alerts", alerts=alerts)
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    context.add_init_script(NOTED)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(gateway.http)
    expect(page).to_have_title("Devices · gateway")
    shown = page.get_by_role("region", name="Alerts that fire")
    expect(shown).to_have_count(0)
    publisher.publish(f"{prefix}/attic", b'{"t":31}')
    expect(shown).to_contain_text("attic has 31 °C", timeout=20_000)
    expect(page).to_have_title("(1) Devices · gateway")
    if AXE.exists():
        page.evaluate(AXE.read_text(encoding="utf-8"))
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = page.evaluate("axe.run().then(found => found.violations.map(one => one.id))")
            assert found == [], scheme
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Notify me of alerts").click()
    expect(page.get_by_role("button", name="Notify me of alerts")).to_have_count(0)
    assert page.evaluate("told") == []
    publisher.publish(f"{prefix}/cellar", b'{"t":-3}')
    eventually(lambda: page.evaluate("told.length") > 0, 20, "it is told")
    assert page.evaluate("told") == [["too-cold", "cellar has -3 °C"]]
    expect(page).to_have_title("(2) Devices · gateway")
    page.get_by_role("link", name="Publish").click()
    page.reload()
    expect(shown).to_contain_text("too-hot", timeout=20_000)
    publisher.publish(f"{prefix}/attic", b'{"t":20}')
    publisher.publish(f"{prefix}/cellar", b'{"t":20}')
    expect(shown).to_have_count(0, timeout=20_000)
    expect(page).to_have_title("Publish · gateway")
    assert not faults
    context.close()


@pytest.mark.slow
def test_without_alerts_they_are_asked_for_once(
    chromium: Browser, mosquitto: Broker, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(mosquitto)
    page = chromium.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/alerts") else None)
    page.goto(gateway.http)
    page.wait_for_timeout(7_000)
    assert 1 <= len(asked) <= 3
    page.close()
