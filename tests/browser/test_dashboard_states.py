"""The dashboard for visitors whose token ends, who chose colours for all pages, who have it as an app."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from gateway.access.keys import secret_key
from gateway.access.tokens import mint
from tests.browser.watched import Watched, rows
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.publishers import Publisher

SECRET = "a secret of at least thirty-two bytes, for tests"


@pytest.mark.slow
def test_a_token_that_ends_is_announced_and_leaves_what_was_seen(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker, access_secret=SECRET)

    def token(seconds: int) -> str:
        return mint(secret_key(SECRET), subject="ann", subscribe=("#",), publish=(), ttl_seconds=seconds)

    with Publisher(broker.url) as publisher:
        publisher.publish("sensors/a/state", '{"temperature": 20}')
        page = watched.open(f"{gateway.http}/")
        page.get_by_label("Access token").fill(token(12))
        page.get_by_role("button", name="Sign in").click()
        expect(rows(page)).to_have_count(1)
        expect(page.locator(".banner")).to_contain_text("Your token ends at", timeout=30_000)
        expect(page.locator(".banner")).to_contain_text("Your token has ended.", timeout=30_000)
        expect(page.locator(".banner")).to_contain_text("What you see is as of")
        expect(rows(page)).to_have_count(1)
        page.get_by_label("Access token").fill(token(600))
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".banner")).to_have_count(0)
        publisher.publish("sensors/b/state", '{"temperature": 21}')
        expect(rows(page)).to_have_count(2)


def test_pictures_of_the_app_are_as_large_as_its_manifest_says() -> None:
    public = Path(__file__).parents[2] / "web" / "dashboard" / "public"
    icons = json.loads((public / "manifest.webmanifest").read_text())["icons"]
    drawn = [icon for icon in icons if icon["type"] == "image/png"]
    assert len(drawn) == 3
    for icon in drawn:
        data = (public / icon["src"]).read_bytes()
        width, height = (int.from_bytes(data[start : start + 4]) for start in (16, 20))
        assert f"{width}x{height}" == icon["sizes"]


@pytest.mark.slow
def test_in_forced_colours_what_is_chosen_can_still_be_told(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish("sensors/a/state", '{"temperature": 20}')
        page = watched.open(f"{gateway.http}/", forced_colors="active")
        expect(rows(page)).to_have_count(1)
        current = page.locator(".top nav a[aria-current]").evaluate(
            "(element) => getComputedStyle(element, '::after').backgroundColor"
        )
        expect(page.locator(".statuses button[aria-pressed=true]")).to_have_css("background-color", current)
        expect(page.locator(".statuses button[aria-pressed=false]").first).not_to_have_css("background-color", current)
        # lines of a chart keep the colours that their legend has
        publisher.publish("sensors/b/state", '{"temperature": 21}')
        page.goto(f"{gateway.http}/topics/sensors/+/state")
        expect(page.locator(".legend .entry")).to_have_count(2)
        page.wait_for_function(DRAWN, arg=2)


# Whether so many of the legend's colours are on the chart.
DRAWN = """(count) => {
  const canvas = document.querySelector(".plot canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const probe = document.createElement("canvas").getContext("2d");
  const isDrawn = [...document.querySelectorAll(".legend .swatch")].filter((swatch) => {
    probe.fillStyle = getComputedStyle(swatch).backgroundColor;
    probe.fillRect(0, 0, 1, 1);
    const wanted = probe.getImageData(0, 0, 1, 1).data;
    for (let at = 0; at < data.length; at += 4)
      if (data[at + 3] === 255 && [0, 1, 2].every((part) => Math.abs(data[at + part] - wanted[part]) < 3)) return true;
    return false;
  });
  return isDrawn.length === count;
}"""
