"""Pictures that topics carry: shown in the page as such, bounded, and nothing that a browser might run."""

from __future__ import annotations

import json
import struct

import pytest
from playwright.sync_api import expect

from tests.browser.watched import NARROW, Watched, rows
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.pictures import png
from tests.support.publishers import Publisher
from tests.support.waiting import eventually

CAMERA = {
    "name": "Door",
    "uniq_id": "door_cam",
    "t": "cam/door",
    "dev": {"ids": ["door"], "name": "Front door", "mdl": "ESP32-CAM"},
}


@pytest.mark.slow
def test_a_picture_is_shown_where_its_topic_is(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish("cam/door", png(160, 120), retain=True)
        eventually(lambda: gateway.json("/topics?prefix=cam/")["total"] == 1, 20, "the picture")
        # a broker without devices: what was heard last
        page = watched.open(f"{gateway.http}/")
        expect(page.locator(".any .tile img")).to_have_js_property("naturalWidth", 160)
        # its own view, with its bytes as a file
        page.goto(f"{gateway.http}/topics/cam/door")
        picture = page.get_by_role("img", name="Picture, PNG, 160 × 120")
        expect(picture).to_have_js_property("naturalWidth", 160)
        assert (picture.get_attribute("src") or "").startswith("blob:")
        with page.expect_download() as downloading:
            page.locator(".inspector").get_by_role("button", name="Download").click()
        assert downloading.value.suggested_filename.endswith(".png")
        assert downloading.value.path().read_bytes() == png(160, 120)
        # a newer one takes its place
        publisher.publish("cam/door", png(320, 200), retain=True)
        expect(page.locator(".picture img")).to_have_js_property("naturalWidth", 320)
        page.goto(f"{gateway.http}/?view=topics&at=cam/door")
        expect(page.locator(".t-value .tile img")).to_have_js_property("naturalWidth", 320)
        expect(page.locator(".t-value")).to_contain_text(["(PNG picture)"])
        # one that would take much memory when it is drawn, and one that only begins like one
        bomb = bytearray(png(8, 8))
        bomb[16:24] = struct.pack(">II", 60_000, 60_000)
        publisher.publish("cam/bomb", bytes(bomb))
        page.goto(f"{gateway.http}/topics/cam/bomb")
        expect(page.locator(".inspector")).to_contain_text("not shown, since it is of more than 32 million pixels")
        publisher.publish("cam/broken", png(8, 8)[:40])
        page.goto(f"{gateway.http}/topics/cam/broken")
        expect(page.locator(".inspector .hex")).to_contain_text("IHDR")
        publisher.publish("cam/svg", b"\xff<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
        page.goto(f"{gateway.http}/topics/cam/svg")
        expect(page.locator(".inspector .hex")).to_be_visible()
        expect(page.locator(".picture")).to_have_count(0)


@pytest.mark.slow
def test_a_camera_has_a_tile_in_the_list_and_its_picture_on_its_page(
    watched: Watched, make_gateway: MakeGateway, make_mosquitto: MakeMosquitto
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    with Publisher(broker.url) as publisher:
        publisher.publish("homeassistant/camera/door/config", json.dumps(CAMERA), retain=True)
        publisher.publish("cam/door", png(160, 120), retain=True)
        for field in ("temperature", "humidity", "pressure", "illuminance", "co2"):
            sensor = {"name": field, "uniq_id": f"door_{field}", "dev_cla": field, "dev": CAMERA["dev"]}
            sensor |= {"stat_t": "cam/state", "val_tpl": f"{{{{ value_json.{field} }}}}"}
            publisher.publish(f"homeassistant/sensor/door_{field}/config", json.dumps(sensor), retain=True)
        publisher.publish("cam/state", '{"temperature":21,"humidity":50,"pressure":1013.25,"illuminance":9,"co2":500}')
        for viewport in (None, NARROW):
            page = watched.open(f"{gateway.http}/", viewport)
            # what has no room beside the picture is counted, and the number is not cut
            more = rows(page).filter(has_text="Front door").locator(".more")
            inside, outside = more.bounding_box(), rows(page).locator(".readings").first.bounding_box()
            assert inside is not None
            assert outside is not None
            assert inside["x"] + inside["width"] <= outside["x"] + outside["width"], "it is cut"
            tile = rows(page).filter(has_text="Front door").locator(".tile img")
            expect(tile).to_have_js_property("naturalWidth", 160)
            tile.click()
            expect(page.get_by_role("heading", name="Front door")).to_be_visible()
            expect(page.locator(".picture img")).to_have_js_property("naturalWidth", 160)
