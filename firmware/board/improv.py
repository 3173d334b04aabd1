"""Settings over the serial line: Improv Wi-Fi for the network, and one command of our own for all the rest.

One invariant: nothing is kept until all of it was checked by settings.py and the network was joined; then it is written
in one step, so a board has its old settings or the new ones. A packet that does not fit its checksum does nothing.

It leaves to others: joining (wifi.py), what good settings are (settings.py), when somebody is listened to (app.py).

Our command, 0xA0, takes settings.json without `wifi` as UTF-8 in pieces: whether it is the last one (0 or 1), its
number from 0, up to 200 bytes. It answers nothing to a piece, and to the last one `ok` and the id, or `problem` and
what settings.py says. `ca_pem` in it is the certificate that `mqtts://` needs. Then the board restarts. A board that
has an `update_key` keeps it, and says so after its id (`key kept`) to whoever gives another: its owner has that one in
a file.

Source: Improv Wi-Fi, "Serial" (packets, commands, states and errors).
"""

import asyncio
import json
import os
import sys

from . import NAME, VERSION, settings
from .line import CTRL_C, HEADER
from .ticks import const, ticks_diff, ticks_ms
from .wifi import Wifi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

STATE, ERROR, RPC, RESULT = const(1), const(2), const(3), const(4)  # types of packets
READY, JOINING, JOINED = const(2), const(3), const(4)  # states
NO_ERROR, BAD_PACKET, UNKNOWN_COMMAND, NOT_JOINED = const(0), const(1), const(2), const(3)
JOIN, TELL_STATE, TELL_ABOUT, SCAN, SETTINGS = const(1), const(2), const(3), const(4), const(0xA0)  # commands

PIECE_BYTES = const(200)  # of settings in one packet, which has room for 255
_MOST = const(8192)  # bytes of settings, with a certificate in them
_STALE_MS = const(1000)  # the rest of a packet comes at once
_IDLE_MS = const(600_000)  # then a board that has settings goes on with them
_BLINK_MS = const(5)  # 115,200 baud fill the port's buffer of 256 bytes in 22


class Parser:
    """Finds packets among whatever else comes."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def is_idle(self) -> bool:
        """Whether the last byte belongs to no packet."""
        return not self._bytes

    def reset(self) -> None:
        """Forget a packet that was begun."""
        self._bytes = bytearray()

    def feed(self, byte: int) -> "tuple[int, bytes] | None":
        """The type and the data of the packet that ends with this byte."""
        found = self._bytes
        found.append(byte)
        count = len(found)
        if count <= len(HEADER):
            if byte != HEADER[count - 1]:
                self.reset()
                if byte == HEADER[0]:
                    self._bytes.append(byte)
            return None
        if count < 9 or count < 10 + found[8]:
            return None
        self.reset()
        if sum(found[:-1]) & 0xFF != found[-1]:
            return None
        return found[7], bytes(found[9:-1])


def packet(kind: int, data: bytes) -> bytes:
    """A packet, with the newline that keeps it apart from lines of text."""
    body = HEADER + bytes([kind, len(data)]) + data
    return body + bytes([sum(body) & 0xFF, 10])


def answer(command: int, texts: "list[str]") -> bytes:
    """The packet with what a command gives; texts that it has no room for are cut."""
    data = b""
    for text in texts:
        part = text.encode()[: max(0, 250 - len(data))]
        while part and part[-1] & 0x80 and not _is_text(part):  # do not cut a character in two
            part = part[:-1]
        data += bytes([len(part)]) + part
    return packet(RESULT, bytes([command, len(data)]) + data)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except (ValueError, UnicodeError):
        return False
    return True


class Session:
    """One talk over the serial line.

    Args:
        board: See hardware.py.
        given: The settings that there are; None when there are none, or none that can be read.
        write: Takes the bytes of whole packets.
        log: Takes one line of text.
        path: Where settings are kept.
    """

    def __init__(
        self,
        board: "Any",
        given: "dict[str, Any] | None",
        write: "Callable[[bytes], None]",
        log: "Callable[[str], None]" = print,
        path: str = settings.FILE,
    ) -> None:
        self.board = board
        self.given = given or {}
        self.write = write
        self.log = log
        self.path = path
        self.state = READY
        self.is_done = False
        self._has_kept_key = False
        self._wifi = self.given.get("wifi")
        self._pieces: "list[bytes]" = []
        self._wlan: "Any" = None

    async def take(self, kind: int, data: bytes) -> None:
        """Do what a packet asks for."""
        if kind != RPC:
            return
        if len(data) < 2 or data[1] != len(data) - 2:
            self._fail(BAD_PACKET)
            return
        command, data = data[0], data[2:]
        if command == JOIN:
            await self._join(data)
        elif command == TELL_STATE:
            self._tell_state()
            if self.state == JOINED:
                self.write(answer(TELL_STATE, []))
        elif command == TELL_ABOUT:
            self.write(answer(TELL_ABOUT, [NAME, VERSION, self._chip(), self.given.get("name") or self._id()]))
        elif command == SCAN:
            self._scan()
        elif command == SETTINGS:
            self._take_piece(data)
        else:
            self._fail(UNKNOWN_COMMAND)

    def _id(self) -> str:
        return str(self.given.get("id") or self.board.id())

    def _chip(self) -> str:
        """As Espressif writes it: ESP32-C3 for MicroPython's ESP32C3."""
        name = str(self.board.model()).rpartition(" with ")[2]
        return name[:5] + "-" + name[5:] if name[:5] == "ESP32" and len(name) > 5 and name[5] != "-" else name

    def _fail(self, error: int) -> None:
        self.write(packet(ERROR, bytes([error])))

    def _tell_state(self) -> None:
        self.write(packet(STATE, bytes([self.state])))

    def _radio(self) -> "Any":
        if self._wlan is None:
            self._wlan = self.board.wlan(self._id())
        return self._wlan

    async def _join(self, data: bytes) -> None:
        try:
            end = 1 + data[0]
            wifi = {"ssid": data[1:end].decode(), "password": data[end + 1 : end + 1 + data[end]].decode()}
            whole = len(data) == end + 1 + data[end]
        except (IndexError, ValueError, UnicodeError):
            whole, wifi = False, {}
        if not whole or [text for text in settings.check({"wifi": wifi}) if text.startswith("wifi")]:
            self._fail(BAD_PACKET)
            return
        self._fail(NO_ERROR)
        self.state = JOINING
        self._tell_state()
        wlan = self._radio()
        if wlan.active():
            wlan.active(False)  # leave the network that it may be in
        if not await Wifi(wlan, wifi["ssid"], wifi["password"], log=self.log).ready():
            self.state = READY
            self._fail(NOT_JOINED)
            self._tell_state()
            return
        self._wifi = wifi
        self.state = JOINED
        changed = dict(self.given)
        changed["wifi"] = wifi
        if self.given.get("mqtt") and not settings.check(changed):
            self._keep(changed)  # a board that was set up already has a new network now; more may follow
        self._tell_state()
        self.write(answer(JOIN, []))

    def _scan(self) -> None:
        wlan = self._radio()
        wlan.active(True)
        best: "dict[str, tuple[int, bool]]" = {}
        try:
            for found in wlan.scan():
                name, rssi = found[0].decode(), found[3]
                if name and (name not in best or best[name][0] < rssi):
                    best[name] = (rssi, bool(found[4]))
        except (OSError, ValueError, UnicodeError) as error:
            self.log("wifi: %s" % error)
        for name in best:
            rssi, is_secret = best[name]
            self.write(answer(SCAN, [name, str(rssi), "YES" if is_secret else "NO"]))
        self.write(answer(SCAN, []))

    def _take_piece(self, data: bytes) -> None:
        if len(data) < 2 or data[0] > 1:
            self._fail(BAD_PACKET)
            return
        if data[1] == 0:
            self._pieces = []
        if data[1] != len(self._pieces) or sum(map(len, self._pieces)) + len(data) > _MOST:
            self._fail(BAD_PACKET)
            return
        self._pieces.append(data[2:])
        if not data[0]:
            self.write(answer(SETTINGS, []))
            return
        text = b"".join(self._pieces)
        self._pieces = []
        problems = self._take_settings(text)
        for problem in problems:
            self.log("settings: " + problem)
        said = ["ok", self._id(), "key kept"] if self._has_kept_key else ["ok", self._id()]
        self.write(answer(SETTINGS, ["problem"] + problems if problems else said))
        self.is_done = not problems

    def _take_settings(self, text: bytes) -> "list[str]":
        """Check and keep them; what is wrong with them otherwise."""
        try:
            given = json.loads(text.decode())
        except (ValueError, UnicodeError):
            return ["the settings are not JSON"]
        if not isinstance(given, dict):
            return ["settings: expected an object"]
        if self._wifi is None or self.state != JOINED:
            return ["wifi: join the network first"]
        certificate = given.pop("ca_pem", None)
        if certificate is not None and not isinstance(certificate, str):
            return ["ca_pem: expected a text"]
        given["wifi"] = self._wifi
        key, new_key = self.given.get("update_key"), given.get("update_key")
        if key:
            given["update_key"] = key
        if certificate and isinstance(given.get("mqtt"), dict):
            given["mqtt"]["ca"] = "ca.pem"
        problems = settings.check(given)
        if not problems:
            if certificate:
                _write("ca.pem", certificate)
            self._keep(given)
            self._has_kept_key = bool(key and new_key and key != new_key)
        return problems

    def _keep(self, given: "dict[str, Any]") -> None:
        _write(self.path, json.dumps(given))
        self.given = given


def _write(path: str, text: str) -> None:
    """Write a file beside the old one, then put it in its place."""
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def listen(board: "Any", log: "Callable[[str], None]", is_called: bool) -> bool:
    """Talk with whoever speaks Improv until there are settings.

    Ctrl-C between packets is a KeyboardInterrupt, as it is where nobody listens.

    Args:
        board: See hardware.py.
        log: Takes one line of text.
        is_called: The header of a packet came, and the board has settings: it goes on with them after ten minutes
            without a word. Otherwise it waits for ever.

    Returns:
        Whether the board must restart; not when nobody can ever speak.
    """
    import micropython

    micropython.kbd_intr(-1)  # packets have bytes like Ctrl-C in them
    try:
        return asyncio.run(_listen(board, log, is_called))
    finally:
        micropython.kbd_intr(CTRL_C)


async def _listen(board: "Any", log: "Callable[[str], None]", is_called: bool) -> bool:
    import select

    poller = select.poll()
    poller.register(sys.stdin, select.POLLIN)
    parser = Parser()
    for byte in HEADER if is_called else b"":
        parser.feed(byte)
    session = Session(board, _given(), _write_packet, log)
    heard_at = ticks_ms()
    while True:
        if not poller.poll(0):
            waited = ticks_diff(ticks_ms(), heard_at)
            if waited > _STALE_MS:
                parser.reset()
            if is_called and waited > _IDLE_MS:
                return True
            await asyncio.sleep(_BLINK_MS / 1000)
            continue
        data = sys.stdin.buffer.read(1)
        if not data:  # nobody can ever speak
            return False
        found = parser.feed(data[0])
        if data[0] == CTRL_C and parser.is_idle() and found is None:
            raise KeyboardInterrupt
        heard_at = ticks_ms()
        if found is None:
            continue
        await session.take(*found)
        heard_at = ticks_ms()
        if session.is_done:
            await asyncio.sleep(0.3)  # what was written leaves before the restart
            return True


def _given() -> "dict[str, Any] | None":
    try:
        with open(settings.FILE) as file:
            given = json.load(file)
    except (OSError, ValueError):
        return None
    return given if isinstance(given, dict) else None


def _write_packet(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    flush = getattr(sys.stdout, "flush", None)
    if flush is not None:
        flush()
