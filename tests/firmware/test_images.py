"""MicroPython images: whole or not, and for which chip."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from firmware import chips, images, tools
from tests.firmware import devices

ESP32 = chips.CHIPS["ESP32"]


@pytest.mark.parametrize("name", ["ESP32", "ESP32-S2", "ESP32-S3", "ESP32-C2", "ESP32-C3", "ESP32-C5", "ESP32-C6"])
def test_a_good_image_is_accepted_for_its_chip_alone(name: str, tmp_path: Path) -> None:
    chip = chips.find_chip(name)
    path = devices.write_image(tmp_path / "good.bin", chip.number, chip.offset)
    assert images.check(path, chip).size == path.stat().st_size
    for other in chips.CHIPS.values():
        if other is not chip:
            with pytest.raises(images.ImageError, match=f"is for {chip.name}, the board has {other.name}"):
                images.check(path, other)


def test_any_altered_byte_of_bootloader_table_and_program_is_found(tmp_path: Path) -> None:
    good = devices.make_image(0, 0x1000)
    path = tmp_path / "altered.bin"
    rng = random.Random(7)
    # the bootloader with its hash, the partitions, the program with its hash; between them is nothing that runs
    for start, end in ((0, 2270), (0x7000, 0x7000 + 64), (0xF000, len(good))):
        for _ in range(40):
            data = bytearray(good)
            data[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            with pytest.raises(images.ImageError):
                images.check(path, ESP32)


@pytest.mark.parametrize("kept", [0, 10, 1000, 0x7000, 0x8000, 0xF000, 0xF100, 0xF000 + 40_000])
def test_a_broken_download_is_found(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "short.bin"
    path.write_bytes(devices.make_image(0, 0x1000)[:kept])
    with pytest.raises(images.ImageError, match=r"download|no ESP32 image|partition table"):
        images.check(path, ESP32)


def test_a_given_hash_must_fit(tmp_path: Path) -> None:
    path = devices.write_image(tmp_path / "good.bin")
    good = images.check(path, ESP32).sha256
    assert images.check(path, ESP32, good.upper()).sha256 == good
    with pytest.raises(images.ImageError, match=r"good\.bin has the SHA-256 [0-9a-f]{64}, expected 00"):
        images.check(path, ESP32, "00" * 32)


def test_images_are_as_esptool_understands_them(tmp_path: Path) -> None:
    pytest.importorskip("esptool")
    path = devices.write_image(tmp_path / "good.bin")
    command = [sys.executable, "-m", "esptool", "--chip", "esp32", "image-info", str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"Chip ID: +0 \(ESP32\)", output)
    assert re.search(r"Validation hash: +[0-9a-f]{64} \(valid\)", output)


@pytest.mark.parametrize(("name", "text"), [("ESP32-H2", "no Wi-Fi"), ("esp32p4", "no Wi-Fi"), ("ESP8266", "none of")])
def test_chips_that_are_of_no_use(name: str, text: str) -> None:
    with pytest.raises(chips.ChipError, match=text):
        chips.find_chip(name)


@pytest.mark.parametrize("name", ["ESP32-C3", "esp32c3", "Esp32_C3"])
def test_chips_in_any_spelling(name: str) -> None:
    assert chips.find_chip(name).download == "https://micropython.org/download/ESP32_GENERIC_C3/"


def test_the_pins_of_the_bootloader_are_named() -> None:
    assert "hold BOOT (GPIO 0; 9 on C2, C3, C6; 28 on C5), press" in tools.CAUSES["no bootloader"].text
