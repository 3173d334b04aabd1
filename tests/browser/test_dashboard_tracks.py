"""Positions of topics as a track: from history and live, without a picture from any other host."""

from __future__ import annotations

import json
import math
import re
import time

import pytest
from playwright.sync_api import expect

from tests.browser.watched import NARROW, WIDE, Watched
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.publishers import Publisher
from tests.support.waiting import eventually


def place(step: int) -> dict[str, object]:
    """A step of a walk in a park, a minute after the one before, as OwnTracks sends it."""
    return {
        "_type": "location",
        "lat": round(52.51 + 0.003 * math.sin(step / 6), 6),
        "lon": round(13.35 + 0.0005 * step, 6),
        "tst": int(time.time()) - 60 * (30 - step),
    }


@pytest.mark.slow
def test_a_track_comes_from_history_grows_live_and_is_walked_by_keyboard(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        for step in range(20):
            publisher.publish("owntracks/ann/phone", json.dumps(place(step)))
        eventually(lambda: len(gateway.json("/topics/owntracks/ann/phone?since=1h")["messages"]) == 20, 20, "the walk")
        page = watched.open(f"{gateway.http}/topics/owntracks/ann/phone?since=1h")
        track = page.locator(".track")
        for viewport in (WIDE, NARROW):
            page.set_viewport_size(viewport)  # type: ignore[arg-type]
            expect(track.locator("figcaption")).to_contain_text("20 points, 965 m")
            picture = track.get_by_role("img")
            expect(picture).to_have_attribute("aria-label", re.compile(r"north is up\. .* in 20 points, from 52\.51"))
            plane = track.get_by_role("group")
            plane.focus()
            page.keyboard.press("End")
            expect(track.get_by_role("status")).to_contain_text(f", {place(19)['lat']:.5f}"[:8])
            page.keyboard.press("Home")
            expect(track.get_by_role("status")).to_contain_text("52.51000, 13.35000")
            page.keyboard.press("Escape")
            expect(track.get_by_role("status")).to_have_text("")
            # the pointer tells the point that is nearest
            picture.scroll_into_view_if_needed()
            box = picture.bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 36)
            expect(track.get_by_role("status")).to_contain_text("phone")
            page.mouse.move(5, 5)
            # its numbers are drawn when they are chosen
            expect(page.locator(".panel")).to_have_count(0)
            page.get_by_role("button", name="Lat", exact=True).click()
            expect(page.locator(".panel")).to_have_count(1)
            page.get_by_role("button", name="Lat", exact=True).click()
            expect(page.locator(".panel")).to_have_count(0)
        page = watched.open(f"{gateway.http}/topics/owntracks/ann/phone?since=1h")
        track = page.locator(".track")
        expect(track.locator("figcaption")).to_contain_text("20 points")
        publisher.publish("owntracks/ann/phone", json.dumps(place(25)))
        expect(track.locator("figcaption")).to_contain_text("21 points")
        # a topic without positions has no track
        publisher.publish("plain", "7")
        page.goto(f"{gateway.http}/topics/plain")
        expect(page.locator(".panel")).to_be_visible()
        expect(page.locator(".track")).to_have_count(0)
