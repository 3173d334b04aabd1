"""`sensors-flash update`: gives boards the program of this checkout over the air, and says how far each is.

One invariant: what is given is what this board's key signs, and a board counts as done only when its own `meta` names
the program and no trial.

It leaves to others: the board's side, and the form of questions and pieces (board/update.py), files (files.py), and the
connection (broker.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sensors_sim import payloads

from . import broker, files, keys, plan
from .board import VERSION, mqtt
from .tools import FlashError, say

PIECE_BYTES = 1024  # what a board takes besides topic and header, see max_packet_bytes of its client
FOUND_SECONDS = 2.0  # for retained descriptions to arrive
ASK_AGAIN_SECONDS = 15.0
TRIES = 4
MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class Program:
    """What boards get.

    Attributes:
        version: For people, and for a board to tell older from newer.
        build: Names exactly these files.
        files: Path in a slot to contents, without those that stay as they were flashed.
    """

    version: str
    build: str
    files: dict[str, bytes]

    @staticmethod
    def read(folder: Path, version: str = VERSION) -> Program:
        """The program that `files.build` has laid out in a folder."""
        stay = {*files.STARTERS, *(name.replace(".py", ".mpy") for name in files.STARTERS)}
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        content = {name: found[name] for name in sorted(found) if name not in stay and found[name]}
        digest = hashlib.sha256()
        for name, data in content.items():
            digest.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
        return Program(version, digest.hexdigest()[:12], content)

    def manifest(self, sensor_id: str, key: str, serial: int, *, older: bool = False) -> bytes:
        """What is signed for one board.

        Args:
            sensor_id: The board.
            key: Its key, in hexadecimal digits.
            serial: Seconds since 1970: a board takes none that was signed before the last one.
            older: It may replace a newer version.
        """
        listed = [[name, len(data), hashlib.sha256(data).hexdigest()] for name, data in self.files.items()]
        said = {"version": self.version, "serial": serial, "build": self.build, "files": listed}
        text = json.dumps(said | ({"older": True} if older else {}), separators=(",", ":")).encode()
        signature = hmac.new(bytes.fromhex(key), sensor_id.encode() + b"\n" + text, hashlib.sha256).hexdigest()
        return text + b"\n" + signature.encode()


@dataclass(slots=True)
class Progress:
    """How far one board is."""

    manifest: bytes
    given: set[str] = field(default_factory=set)
    heard_at: float = 0.0
    tries: int = 0
    asleep: bool = False
    outcome: str | None = None
    good: bool = False


class Giver:
    """Answers the questions of boards.

    Args:
        program: What they get.
        board_keys: Board to key.
        older: It may replace a newer version.
        serve: Whoever asks is answered; else those alone that were told to update.
        tries: So often a board may fail.
        reload: Reads the keys anew when a board asks: one that the page has set up meanwhile, or with a new key, is
            known. None where they can't change.
    """

    def __init__(
        self,
        program: Program,
        board_keys: dict[str, str],
        *,
        older: bool = False,
        serve: bool = False,
        tries: int = TRIES,
        reload: Callable[[], dict[str, str]] | None = None,
    ) -> None:
        self.program = program
        self.keys = board_keys
        self.older = older
        self.serve = serve
        self.tries = tries
        self.reload = reload
        self.serial = int(time.time())
        self.boards: dict[str, Progress] = {}
        self.metas: dict[str, dict[str, Any]] = {}
        self.client: mqtt.Client | None = None
        self._by_hash = {hashlib.sha256(data).hexdigest(): (name, data) for name, data in program.files.items()}

    def known(self) -> list[str]:
        """Boards on the broker that can be updated, by id."""
        return sorted(
            sensor_id
            for sensor_id, meta in self.metas.items()
            if sensor_id in self.keys and str(meta.get("firmware", "")).startswith("gateway-sensor ")
        )

    def add(self, sensor_id: str) -> Progress:
        """Take a board up.

        Raises:
            FlashError: There is no key for it.
        """
        if sensor_id not in self.keys:
            raise FlashError(
                f"there is no key for {sensor_id} in {keys.file()}: it was flashed elsewhere, or before there were keys"
            )
        return self.boards.setdefault(sensor_id, Progress(self._manifest(sensor_id)))

    def _manifest(self, sensor_id: str) -> bytes:
        return self.program.manifest(sensor_id, self.keys[sensor_id], self.serial, older=self.older)

    def command(self, sensor_id: str) -> None:
        """Tell a board to update."""
        progress = self.add(sensor_id)
        progress.heard_at = time.monotonic()
        progress.tries += 1
        if self.client is not None:
            self.client.publish(payloads.cmd_topic(sensor_id), b'{"update":true}')

    def take(self, topic: str, payload: bytes, retained: bool) -> None:
        """What a board published."""
        parts = topic.split("/")
        if len(parts) != 3:
            return
        _, sensor_id, leaf = parts
        if leaf == "status" and sensor_id in self.boards:
            self.boards[sensor_id].asleep = payload == payloads.SLEEPING.encode()
            return
        try:
            said = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        if leaf == "meta":
            self.metas[sensor_id] = said
            self._told(sensor_id, said, retained)
        elif leaf == "update":
            self._asked(sensor_id, said)

    def _asked(self, sensor_id: str, question: dict[str, Any]) -> None:
        of, at = question.get("get"), question.get("at")
        if self.reload is not None and of == MANIFEST and at == 0:
            known = self.keys
            with contextlib.suppress(OSError, ValueError):  # it is being edited, or gone for a moment
                self.keys = self.reload()
            if sensor_id in self.boards and sensor_id in self.keys and self.keys[sensor_id] != known.get(sensor_id):
                self.boards[sensor_id].manifest = self._manifest(sensor_id)
        if sensor_id not in self.boards:
            if not self.serve or sensor_id not in self.keys:
                return
            self.add(sensor_id)
        progress = self.boards[sensor_id]
        name, data = (MANIFEST, progress.manifest) if of == MANIFEST else self._by_hash.get(str(of), ("", b""))
        if not isinstance(at, int) or not 0 <= at < len(data) or self.client is None:
            return
        progress.heard_at = time.monotonic()
        if at == 0 and name not in progress.given:
            progress.given.add(name)
            if name != MANIFEST:
                say(f"{sensor_id:<16} {name}")
        head = json.dumps({"of": of, "at": at, "size": len(data)}, separators=(",", ":")).encode()
        self.client.publish(payloads.piece_topic(sensor_id), head + b"\n" + data[at : at + PIECE_BYTES], 0)

    def _told(self, sensor_id: str, meta: dict[str, Any], retained: bool) -> None:
        progress = self.boards.get(sensor_id)
        if progress is None or progress.outcome is not None:
            return
        progress.heard_at = time.monotonic()
        errors = meta.get("errors")
        error = errors.get("update") if isinstance(errors, dict) else None
        if meta.get("build") == self.program.build and not error:
            if meta.get("trial"):
                if not retained:
                    say(f"{sensor_id:<16} on trial")
            else:
                self._end(sensor_id, progress, f"runs {meta.get('firmware')}, build {self.program.build}", good=True)
        elif error and not retained and progress.tries:
            if progress.tries < self.tries:
                say(f"{sensor_id:<16} {error}; once more")
                self.command(sensor_id)
            else:
                self._end(sensor_id, progress, str(error), good=False)

    def _end(self, sensor_id: str, progress: Progress, outcome: str, *, good: bool) -> None:
        progress.outcome, progress.good = outcome, good
        say(f"{sensor_id:<16} {'done: ' if good else 'failed: '}{outcome}")

    def remind(self, seconds: float = ASK_AGAIN_SECONDS) -> None:
        """Tell boards again that have said nothing for so long: they may have lost power meanwhile."""
        for sensor_id, progress in self.boards.items():
            silent = time.monotonic() - progress.heard_at > seconds
            if progress.outcome is None and progress.tries and silent and not progress.asleep:
                progress.tries -= 1  # nothing has failed
                self.command(sensor_id)

    def unfinished(self) -> list[str]:
        """Boards whose outcome is not known yet."""
        return [sensor_id for sensor_id, progress in self.boards.items() if progress.outcome is None]


async def give(
    giver: Giver,
    access: dict[str, Any],
    ca: Path | None,
    ids: Iterable[str] | None,
    wait_seconds: float,
    again_seconds: float = ASK_AGAIN_SECONDS,
) -> None:
    """Update boards, through whatever happens to the broker.

    Args:
        giver: What they get.
        access: `mqtt` of the settings.
        ca: Certificate of the authority, for mqtts://.
        ids: The boards; None for all that the broker knows and that have a key here.
        wait_seconds: For all of them.
        again_seconds: A board that says nothing for so long is told again.

    Raises:
        BrokerError: It can't be reached, or refuses the connection.
        FlashError: There is no key for a board.
    """
    async with broker.connected(access, ca, "sensors/+/meta", giver.take) as client:
        client.backoff = mqtt.Backoff(0.5, 5)
        client.ring = mqtt.Ring(10_000, 1 << 26)
        giver.client = client
        client.subscribe("sensors/+/status")
        client.subscribe("sensors/+/update")
        await asyncio.sleep(FOUND_SECONDS)
        chosen = giver.known() if ids is None else list(ids)
        if not giver.serve:
            if not chosen:
                raise FlashError("the broker knows no board that can be updated")
            for sensor_id in chosen:
                giver.command(sensor_id)
        say(f"{'giving':<16} {giver.program.version}, build {giver.program.build}, {len(giver.program.files)} files")
        started = time.monotonic()
        while giver.serve or (giver.unfinished() and time.monotonic() - started < wait_seconds):
            await asyncio.sleep(0.2)
            giver.remind(again_seconds)


def parser() -> argparse.ArgumentParser:
    """The options of `sensors-flash update`."""
    options = argparse.ArgumentParser(
        prog="sensors-flash update",
        description="Give boards the program of this version over the air.",
        epilog=f"The password is asked for, or read from {plan.MQTT_PASSWORD}; keys from the file in {keys.VARIABLE}.",
    )
    options.add_argument("id", nargs="*", help="boards")
    options.add_argument("--all", action="store_true", help="every board that the broker knows and that has a key here")
    options.add_argument("--serve", action="store_true", help="tell none, and answer whoever asks, until Ctrl-C")
    options.add_argument("--older", action="store_true", help="this version may replace a newer one")
    options.add_argument("--wait", type=float, default=900.0, metavar="SECONDS", help="for all of them (900)")
    plan.add_broker(options)
    return options


def main(arguments: Sequence[str]) -> None:
    """The command `sensors-flash update`.

    Raises:
        FlashError: A board was not updated, or nothing says which.
        BrokerError: The broker can't be used.
    """
    options = parser().parse_args(arguments)
    if not (options.all or options.serve or options.id):
        raise FlashError("which board? Its id, or --all")
    access, ca = plan.broker_access(options)
    with TemporaryDirectory(prefix="sensors-flash-") as name:
        files.build(Path(name), compiled=files.has_compiler())
        program = Program.read(Path(name))
    reload = keys.load if options.serve else None
    giver = Giver(program, keys.load(), older=options.older, serve=options.serve, reload=reload)
    asyncio.run(give(giver, access, ca, None if options.all else options.id, options.wait))
    late = giver.unfinished()
    failed = [sensor_id for sensor_id, progress in giver.boards.items() if progress.outcome and not progress.good]
    if late and not options.serve:
        raise FlashError(f"nothing final within {options.wait:g} s of {', '.join(late)}: they go on, ask again")
    if failed:
        raise FlashError(f"not updated: {', '.join(failed)}")
