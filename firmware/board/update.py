"""A new program over the air: asked for piece by piece, compared by hash, written beside the one that runs.

One invariant: nothing is switched (slots.py) before every file lies in the free slot, was read back from there, and has
the hash that a manifest names which this board's key has signed, for this board, later than the last one.

The board asks and somebody answers, so a lost question or answer, or a broker that restarts, costs a repetition:

    sensors/<id>/update  {"get":"manifest","at":0}          the board asks for the bytes from `at` on
    sensors/<id>/piece   {"of":"manifest","at":0,"size":2345}, a line break, and up to 1,024 bytes

A file is asked for by its hash. The manifest is a line of JSON, and a line with its signature in hexadecimal digits.

The signature is HMAC-SHA256 (RFC 2104) with a key of this board alone. Ed25519 would need no secret on the board, but
MicroPython has no arithmetic for it: in Python a signature takes an ESP32 seconds and tens of KiB, and would be
cryptography of our own. Who reads one board's flash can sign for that board, which is in his hands already.

It leaves to others: carrying questions and pieces (app.py), and what follows a switch.
"""

import asyncio
import binascii
import hashlib
import json
import os

import payloads
import slots

from .ticks import const, ticks_diff, ticks_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from .app import App

_MANIFEST_BYTES = const(8192)
_FILE_BYTES = const(262144)
_FILES = const(64)
_CHUNK = const(512)
_BLOCK = const(4096)  # of LittleFS on a board
_BLOCK_SIZE = const(64)  # of SHA-256
_ASK_AGAIN = const(4)
MANIFEST = "manifest"


class UpdateError(Exception):
    """There is no new program; the text says why. The one that runs goes on."""


class Updater:
    """One update.

    Args:
        sensor_id: As in the topics; it is signed, too.
        key: The board's secret, in hexadecimal digits.
        version: Of the program that runs, such as "1.0.0".
        subscribe: Subscribes to `piece`; again after a few questions without an answer, for a broker that was killed
            may have come back with an older session.
        ask: Publishes a question; nothing has to come of it.
        log: Takes one line of text.
        wait_seconds: A question that has no answer is asked again after so long.
        patience_seconds: Given up when no piece came for so long.
    """

    def __init__(
        self,
        sensor_id: str,
        key: str,
        version: str,
        subscribe: "Callable[[], None]",
        ask: "Callable[[bytes], None]",
        log: "Callable[[str], None]",
        wait_seconds: float = 5,
        patience_seconds: float = 600,
    ) -> None:
        self.id = sensor_id
        self.key = binascii.unhexlify(key)
        self.version = version
        self.subscribe = subscribe
        self.ask = ask
        self.log = log
        self.wait_seconds = wait_seconds
        self.patience_seconds = patience_seconds
        self._wanted = ("", 0)
        self._came: "tuple[int, bytes] | None" = None
        self._arrived = asyncio.Event()

    def piece(self, payload: bytes) -> None:
        """Take what came on the topic `piece`; what was not asked for is left."""
        end = payload.find(b"\n")
        try:
            head = json.loads(payload[:end].decode())
            of, at, size = head["of"], head["at"], head["size"]
        except (ValueError, KeyError, TypeError):
            return
        if (of, at) == self._wanted and isinstance(size, int):
            self._wanted = ("", 0)
            self._came = (size, payload[end + 1 :])
            self._arrived.set()

    async def run(self) -> bool:
        """Bring the new program into the free slot and choose it.

        Returns:
            False when the program that runs is the one that there is.

        Raises:
            UpdateError: It can't be used, or did not come.
        """
        try:
            return await self._run()
        except OSError as error:
            if error.args and error.args[0] in (28, 27):  # ENOSPC, EFBIG
                raise UpdateError("there is no room for it on the board") from None
            raise UpdateError("the board's file system: %s" % error) from None

    async def _run(self) -> bool:
        self.subscribe()
        manifest = self._check(await self._fetch(MANIFEST, _MANIFEST_BYTES))
        files, choice = manifest["files"], slots.load()
        changed: "list[str]" = []
        for name in files:
            if not await self._has(choice["now"], name, files[name]):
                changed.append(name)
        if not changed:
            slots.same(manifest["serial"], manifest["build"])
            self.log("update: %s is what runs" % manifest["version"])
            return False
        slot = slots.other()
        self.log("update: %s, %d of %d files are new" % (manifest["version"], len(changed), len(files)))
        await self._clear(slot, files)
        await self._make_room(slot, files)
        for name in files:
            if not await self._has(slot, name, files[name]):
                await self._bring(slot, name, files[name], choice["now"], name in changed)
        for name in files:  # what flash holds, not what was sent to it
            if not await self._has(slot, name, files[name]):
                raise UpdateError("%s was written and reads as something else" % name)
        slots.switch(slot, manifest["serial"], manifest["build"])
        self.log("update: %s starts on trial" % manifest["version"])
        return True

    # -- asking

    async def _ask(self, of: str, at: int) -> "tuple[int, bytes]":
        """Size of the whole, and its bytes from `at` on."""
        started = ticks_ms()
        asked = 0
        while ticks_diff(ticks_ms(), started) < self.patience_seconds * 1000:
            if asked and asked % _ASK_AGAIN == 0:
                self.subscribe()
            asked += 1
            self._arrived.clear()
            self._wanted = (of, at)
            self.ask(payloads.json_text({"get": of, "at": at}).encode())
            try:
                await asyncio.wait_for(self._arrived.wait(), self.wait_seconds)
            except asyncio.TimeoutError:
                continue
            if self._came is not None:
                came, self._came = self._came, None
                return came
        raise UpdateError("nobody gave it: is sensors-flash update running?")

    async def _fetch(self, of: str, limit: int) -> bytes:
        data = b""
        while True:
            size, piece = await self._ask(of, len(data))
            if not 0 < size <= limit or len(data) + len(piece) > size or not piece:
                raise UpdateError("a piece that does not fit")
            data += piece
            if len(data) == size:
                return data

    def _check(self, data: bytes) -> "dict[str, Any]":
        text, _, signature = data.partition(b"\n")
        expected = binascii.hexlify(hmac(self.key, self.id.encode() + b"\n" + text))
        given = signature.strip()
        difference = len(expected) ^ len(given)
        for one, other in zip(expected, given):  # as long for a wrong signature as for a right one
            difference |= one ^ other
        if difference:
            raise UpdateError("wrong signature: it was not signed with this board's key")
        try:
            manifest = json.loads(text.decode())
            version, serial, build, listed = (manifest[name] for name in ("version", "serial", "build", "files"))
            files = {name: (size, digest) for name, size, digest in listed}
            good = isinstance(serial, int) and isinstance(build, str) and 0 < len(files) <= _FILES
            for name in files:
                size, digest = files[name]
                good = good and _is_name(name) and 0 < size <= _FILE_BYTES and len(digest) == 64
            new, old = _parts(version), _parts(self.version)
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise UpdateError("a manifest that this program does not understand")
        last = slots.load()["serial"]
        if serial < last or (new < old and manifest.get("older") is not True):
            raise UpdateError("%s is older than what runs or was offered before" % version)
        manifest["files"] = files
        return dict(manifest)

    # -- the free slot

    async def _has(self, slot: str, name: str, wanted: "tuple[int, str]") -> bool:
        """Whether the slot has this file, byte for byte."""
        try:
            if os.stat(_path(slot, name))[6] != wanted[0]:
                return False
            digest = hashlib.sha256()
            with open(_path(slot, name), "rb") as file:
                while True:
                    chunk = file.read(_CHUNK)
                    if not chunk:
                        break
                    digest.update(chunk)
                    await asyncio.sleep(0)
        except OSError:
            return False
        return binascii.hexlify(digest.digest()).decode() == wanted[1]

    async def _clear(self, slot: str, files: "dict[str, tuple[int, str]]") -> None:
        """Remove what an earlier update left there, but for files that are right already."""
        for name in _walk(slot, ""):
            if name not in files or not await self._has(slot, name, files[name]):
                os.remove(_path(slot, name))

    async def _make_room(self, slot: str, files: "dict[str, tuple[int, str]]") -> None:
        needed = 4 * _BLOCK  # two for each new folder
        for name in files:
            if not await self._has(slot, name, files[name]):
                needed += (files[name][0] + _BLOCK - 1) // _BLOCK * _BLOCK
        found = os.statvfs(os.getcwd())
        if needed > found[0] * found[3]:
            raise UpdateError("there is no room for it: it takes %d bytes, %d are free" % (needed, found[0] * found[3]))

    async def _bring(self, slot: str, name: str, wanted: "tuple[int, str]", now: str, is_new: bool) -> None:
        """Write a file into the slot: from the program that runs, or as it comes."""
        _make_folders(_path(slot, name))
        size, digest = wanted
        with open(_path(slot, name), "wb") as file:
            if not is_new:
                with open(_path(now, name), "rb") as source:
                    while True:
                        chunk = source.read(_CHUNK)
                        if not chunk:
                            return
                        file.write(chunk)
                        await asyncio.sleep(0)
            at = 0
            hashed = hashlib.sha256()
            while at < size:
                whole, piece = await self._ask(digest, at)
                if whole != size or not piece or at + len(piece) > size:
                    raise UpdateError("%s comes with another size" % name)
                hashed.update(piece)
                file.write(piece)
                at += len(piece)
        if binascii.hexlify(hashed.digest()).decode() != digest:
            raise UpdateError("%s does not have the hash that the manifest names" % name)


def start(life: "App") -> None:
    """Bring a new program, unless one is under way or on trial."""
    from . import VERSION, mqtt

    if life.updating is not None or life.trial:
        return
    if not life.settings["update_key"]:
        life.note("update", "this board has no key for updates: sensors-flash gives it one")
        return
    life.notes.pop("update", None)
    life.updating = Updater(
        life.id,
        life.settings["update_key"],
        VERSION,
        lambda: life.client.subscribe(payloads.piece_topic(life.id), 0),
        lambda question: life.client.announce(mqtt.Message(payloads.update_topic(life.id), question, 0)),
        life.log,
        life.settings["timeout"] / 2,
    )
    life.update_task = life.supervise("update", _follow(life))


async def _follow(life: "App") -> None:
    from .app import RESTART

    try:
        if await life.updating.run():
            life.finish(RESTART)
            return
        life.build = slots.load()["build"]
        life.notes.pop("update", None)
        life.announce(False)
    except UpdateError as error:
        life.note("update", str(error))
    life.updating = None


def hmac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256, RFC 2104 §2; MicroPython has SHA-256 alone."""
    if len(key) > _BLOCK_SIZE:
        key = hashlib.sha256(key).digest()
    key = key + bytes(_BLOCK_SIZE - len(key))
    inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in key]) + message).digest()
    return bytes(hashlib.sha256(bytes([byte ^ 0x5C for byte in key]) + inner).digest())


def _is_name(name: "Any") -> bool:
    """Whether it is the path of a file of the program, which stays inside its slot."""
    if not isinstance(name, str) or len(name) > 64 or name.split(".")[-1] not in ("py", "mpy"):
        return False
    if name.strip("abcdefghijklmnopqrstuvwxyz0123456789_./") or ".." in name or "//" in name:
        return False
    return name.startswith("board/") or name in ("payloads.py", "payloads.mpy")


def _parts(version: str) -> "list[int]":
    return [int(part) for part in version.split(".")]


def _path(slot: str, name: str) -> str:
    return slot + "/" + name if slot else name


def _make_folders(path: str) -> None:
    parts = path.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        try:
            os.mkdir("/".join(parts[:count]))
        except OSError as error:
            if error.args[0] != 17:  # EEXIST
                raise


def _walk(slot: str, folder: str) -> "list[str]":
    """Every file of a slot, by its path in the slot."""
    found: "list[str]" = []
    try:
        names = os.listdir(_path(slot, folder).rstrip("/"))
    except OSError:
        return found
    for name in names:
        path = folder + name
        if os.stat(_path(slot, path))[0] & 0x4000:
            found += _walk(slot, path + "/")
        else:
            found.append(path)
    return found
