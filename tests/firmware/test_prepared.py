"""Images with everything on them: what is in them, and that MicroPython runs it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from firmware import chips, files, flash, images, keys, prepared, updates
from firmware.board import NAME, VERSION, settings
from tests.firmware import devices
from tests.firmware.boards import Board, Interpreter
from tests.firmware.observers import Observer
from tests.firmware.test_over_the_air import mains, newer, outcomes, update  # noqa: F401 - a fixture
from tests.support.brokers import Broker
from tests.support.waiting import eventually

littlefs = pytest.importorskip("littlefs", reason="littlefs-python (extra `flash`)")

C3 = chips.CHIPS["ESP32-C3"]
ESP32 = chips.CHIPS["ESP32"]


@cache
def made(chip: chips.Chip = C3, **how: object) -> prepared.Prepared:
    return prepared.make(devices.make_image(chip.number, chip.offset, **how), chip, "image.bin")  # type: ignore[arg-type]


def content(image: prepared.Prepared, chip: chips.Chip) -> bytes:
    """The bytes of the partition, as they are in flash after writing."""
    data = image.data[image.files.offset - chip.offset :]
    return data.ljust(image.files.size, b"\xff")


def mounted(data: bytes) -> dict[str, bytes]:
    """Path to content of every file in a file system."""
    disk = littlefs.LittleFS(**prepared.LAYOUT, block_count=len(data) // prepared.BLOCK_BYTES, mount=False)
    disk.context.buffer[:] = data
    disk.mount()
    found = {}
    for folder, _, names in disk.walk("/"):
        for name in names:
            path = f"{folder.rstrip('/')}/{name}"
            with disk.open(path, "rb") as file:
                found[path.lstrip("/")] = file.read()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("chip", [C3, ESP32], ids=lambda chip: chip.name)
def test_it_holds_the_program_and_no_settings(chip: chips.Chip, tmp_path: Path) -> None:
    files.build(tmp_path)
    image = made(chip)
    found = mounted(content(image, chip))
    assert sorted(found) == sorted(files.names())
    for name, data in found.items():
        assert data == (tmp_path / name).read_bytes(), name
    assert settings.FILE not in found


@pytest.mark.slow
def test_it_is_the_same_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    source = devices.make_image(C3.number, C3.offset)
    first = prepared.make(source, C3, "image.bin").data
    monkeypatch.setenv("SENSORS_WIFI_PASSWORD", "correct horse")
    monkeypatch.setenv("SENSORS_MQTT_PASSWORD", "battery staple")
    assert prepared.make(source, C3, "image.bin").data == first
    assert b"horse" not in first
    assert b"staple" not in first


def test_a_table_without_a_file_system_gets_a_row_for_it(tmp_path: Path) -> None:
    image = made()
    rows = images.partitions(image.data, C3, "image.bin")
    assert rows[-1] == images.Partition("vfs", images.DATA_TYPE, 0x81, 0x200000, 0x200000)
    assert image.files == rows[-1]
    (tmp_path / "image.bin").write_bytes(image.data)
    images.check(tmp_path / "image.bin", C3)  # bootloader, table and program still fit their hashes


def test_a_table_with_a_file_system_stays_as_it_is() -> None:
    source = devices.make_image(C3.number, C3.offset, vfs=(0x200000, 0x100000))
    image = prepared.make(source, C3, "image.bin")
    assert image.data[: len(source)] == source
    assert image.files.size == 0x100000
    assert sorted(mounted(content(image, C3))) == sorted(files.names())


def test_an_image_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(images.ImageError, match="leaves 65,536 bytes of flash for files, 262,144 are needed"):
        made(vfs=(0x3F0000, 0x10000))
    with pytest.raises(images.ImageError, match="larger than the place before its files"):
        made(vfs=(0x10000, 0x100000))


def test_of_a_folder_the_newest_image_for_the_chip_is_taken(tmp_path: Path) -> None:
    for name in (
        "ESP32_GENERIC_C3-20250415-v1.25.0.bin",
        "ESP32_GENERIC_C3-20251209-v1.27.0.bin",
        "ESP32_GENERIC_C3-SPIRAM-20261209-v1.29.0.bin",
        "ESP32_GENERIC-20261209-v1.29.0.bin",
        "ESP32_GENERIC_C3-20261209-v1.29.0.app-bin",
    ):
        (tmp_path / name).write_bytes(name.encode())
    old = tmp_path / "ESP32_GENERIC_C3-20250415-v1.25.0.bin"
    assert prepared.find(tmp_path, C3).name == "ESP32_GENERIC_C3-20251209-v1.27.0.bin"
    assert prepared.find(tmp_path, C3, images.digest(old).upper()) == old
    with pytest.raises(images.ImageError, match=r"no image ESP32_GENERIC_C6-….bin in .*: download it from https://"):
        prepared.find(tmp_path, chips.CHIPS["ESP32-C6"])
    with pytest.raises(images.ImageError, match="with the SHA-256 00"):
        prepared.find(tmp_path, C3, "00")


@pytest.mark.slow
def test_the_command_writes_image_manifest_and_pins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for chip in (C3, ESP32):
        devices.write_image(tmp_path / f"{chip.board}-20260101-v1.29.0.bin", chip.number, chip.offset)
    out = tmp_path / "page"
    for name in ("esp32c3", "ESP32", "esp32-c3"):
        short = name.replace("-", "").lower()
        flash.main(["image", "--chip", name, "--firmware", str(tmp_path), "-o", str(out / f"{short}.bin")])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["builds"] == [
        {"chipFamily": "ESP32", "parts": [{"path": "esp32.bin", "offset": 0x1000}]},
        {"chipFamily": "ESP32-C3", "parts": [{"path": "esp32c3.bin", "offset": 0}]},
    ]
    boards = json.loads((out / "boards.json").read_text())
    assert set(boards["drivers"]) == set(settings.DRIVERS)
    assert boards == prepared.offer()
    assert boards["drivers"]["bme280"]["measures"] == ["temperature", "humidity", "pressure"]
    for name, (needs, _) in settings.DRIVERS.items():  # whatever a driver needs can be said on the page
        driver = boards["drivers"][name]
        assert set(needs) <= {*driver["pins"], *driver["choices"]}, name
        assert ("analogue" in driver["pins"].values()) == (name in settings.ANALOGUE), name
    assert set(boards["outputs"]) == set(settings.OUTPUTS)
    assert not {*boards["outputs"]} & {*boards["drivers"]}
    assert boards["units"]["temperature"] == "°C"
    assert "ESP32_GENERIC_C3-20260101-v1.29.0.bin" in capsys.readouterr().out
    (out / "esp32.bin").unlink()  # a build whose image went is forgotten
    flash.main(["image", "--chip", "esp32c3", "--firmware", str(tmp_path), "-o", str(out / "esp32c3.bin")])
    assert [build["chipFamily"] for build in json.loads((out / "manifest.json").read_text())["builds"]] == ["ESP32-C3"]


def test_an_image_for_another_chip_is_refused(tmp_path: Path) -> None:
    wrong = devices.write_image(tmp_path / "image.bin", ESP32.number, ESP32.offset)
    with pytest.raises(SystemExit, match="is for ESP32, the board has ESP32-C3"):
        flash.main(["image", "--chip", "esp32c3", "--firmware", str(wrong), "-o", str(tmp_path / "out.bin")])
    assert not (tmp_path / "out.bin").exists()


def test_only_pins_that_can_work_are_offered() -> None:
    offered = chips.offer()
    assert set(offered) == {chip.name for chip in chips.CHIPS.values() if not chip.unsuitable}
    for name, pins in offered.items():
        chip = chips.CHIPS[name]
        for pin in range(60):
            for kind, driver in (("digital", "dht22"), ("analogue", "adc")):
                problems, warnings = chips.check_pins(chip, [{"driver": driver, "pin": pin}])
                assert (pin in pins[kind]) == (not problems), (name, kind, pin)
                if not problems:
                    assert (str(pin) in pins["doubts"]) == bool(warnings), (name, pin)
        if pins["i2c"]:
            assert set(pins["i2c"]) <= set(pins["digital"])


def board_with(
    image: bytes, size: int, interpreter: Interpreter, standins: Path, folder: Path, settings: dict[str, object]
) -> Board:
    folder.mkdir()
    (folder / "flash.img").write_bytes(image)
    (folder / "flash-bytes").write_text(str(size))
    return Board(interpreter, standins, folder, settings)


@pytest.mark.slow
def test_micropython_mounts_it_and_runs_the_program_to_its_first_reading(
    mosquitto: Broker,
    interpreter: Interpreter,
    standins: Path,
    tmp_path: Path,
    prefix: str,
    observe: Callable[..., Observer],
) -> None:
    image = made()
    chosen: dict[str, object] = {
        "id": f"{prefix}-image",
        "wifi": {"ssid": "home", "password": "correct horse"},
        "mqtt": {"url": f"mqtt://127.0.0.1:{mosquitto.port}"},
        "interval": 0.2,
        "ntp": "",
    }
    data = content(image, C3)
    board = board_with(data, image.files.size, interpreter, standins, tmp_path / "board", chosen)
    observer = observe(board)
    try:
        board.power_on(start="mounted.py")
        assert observer.wait_states(2)[0]["boot"] == 1
        assert "'main.py'" in board.log()
        board.cut_power()  # what it writes, it finds again
        board.power_on(start="mounted.py")
        observer.wait_states(4)
        assert observer.states()[-1]["boot"] == 2
    finally:
        board.cut_power()


def test_a_partition_of_another_size_would_not_be_mounted(
    interpreter: Interpreter, standins: Path, tmp_path: Path
) -> None:
    image = made()
    board = board_with(content(image, C3), 2 * image.files.size, interpreter, standins, tmp_path / "board", {})
    board.power_on(start="mounted.py")
    board.wait_off()
    assert "OSError" in board.log()  # hence the row in the table


@pytest.mark.slow
def test_an_update_in_its_file_system_outlives_a_power_cut_and_a_bad_one_goes_back(
    mosquitto: Broker,
    interpreter: Interpreter,
    standins: Path,
    tmp_path: Path,
    prefix: str,
    observe: Callable[..., Observer],
    newer: Callable[..., updates.Program],  # noqa: F811
) -> None:
    image = made()
    key = keys.of(f"{prefix}-slots")
    chosen: dict[str, object] = {
        "id": f"{prefix}-slots",
        "wifi": {"ssid": "home", "password": "correct horse"},
        "mqtt": {"url": f"mqtt://127.0.0.1:{mosquitto.port}"},
        "interval": 0.2,
        "ntp": "",
        "timeout": 2,
        "trial": 8,
        "update_key": key,
    }
    board = board_with(content(image, C3), image.files.size, interpreter, standins, tmp_path / "board", chosen)
    observer = observe(board)

    def on_flash() -> dict[str, bytes]:
        return mounted((board.folder / "flash.img").read_bytes().ljust(image.files.size, b"\xff"))

    def firmware() -> tuple[object, object]:
        meta = observer.metas()[-1]
        return meta["firmware"], meta.get("trial")

    board.power_on(start="mounted.py")
    observer.wait_states(2, 60)
    assert firmware() == (f"{NAME} {VERSION}", None)
    flashed = {name: data for name, data in on_flash().items() if name in files.names()}
    good = newer("1.0.1", "board/app.py", '"restarting"', '"restarting now"')  # its largest file
    try:
        with mains(board, start="mounted.py"):
            giver = updates.Giver(good, keys.load())
            give = updates.give(giver, {"url": f"mqtt://127.0.0.1:{mosquitto.port}"}, None, [board.id], 180, 3)
            thread = threading.Thread(target=lambda: asyncio.run(give))
            thread.start()
            eventually(lambda: len(observer.payloads("update")) >= 6, 60, "questions")
            board.cut_power()  # in the middle of a file that is written
            board.power_on(start="mounted.py")
            thread.join(200)
            assert outcomes(giver)[board.id][0], (outcomes(giver), board.log()[-2000:])
            assert firmware() == ("gateway-sensor 1.0.1", None)
            now = json.loads(on_flash()["slot.json"])["now"]
            assert {f"{now}/{name}": data for name, data in good.files.items()}.items() <= on_flash().items()

            board.cut_power()  # it starts again with what was chosen
            board.power_on(start="mounted.py")
            count = len(observer.states())
            observer.wait_states(count + 2, 60)
            assert firmware() == ("gateway-sensor 1.0.1", None)

            bad = newer("1.0.2", "board/app.py", "import asyncio\n", "import nothing_of_this_name\n")
            refused = update(mosquitto, bad, board.id, tries=1)
            assert not outcomes(refused)[board.id][0]
            assert "back to the program before: ImportError" in str(outcomes(refused)[board.id][1])
            count = len(observer.states())
            observer.wait_states(count + 2, 60)
            assert firmware() == ("gateway-sensor 1.0.1", None)
        files_now = on_flash()
        assert json.loads(files_now["slot.json"])["now"] == now
        assert {name: files_now.get(name) for name in files.names()} == flashed  # it lies there as it was
    finally:
        board.cut_power()
