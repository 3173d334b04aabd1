"""The chips of the ESP32 family: where MicroPython goes, and what each pin is good for.

One invariant: what `check_pins` calls a problem can't work on any board with the chip; what depends on the board, or
may be meant, is a warning.

It leaves to others: which options of a sensor are pins at all (board/settings.py).

Sources: MicroPython, `flash_offset` in ports/esp32/boards/*/board.json and the pins in ports/esp32/machine_adc.c;
Espressif, esptool documentation, "Boot Mode Selection"; Espressif, ESP-IDF Programming Guide, "GPIO & RTC GPIO" of each
chip (which pins there are, SPI0/1, strapping, USB-JTAG, ADC) and "ADC Oneshot Mode Driver", "Hardware Limitations";
Espressif, data sheets: ESP32, "Boot Configurations" (strapping), of each chip "Pin Overview" (U0TXD, U0RXD, VDD_SPI).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .board import settings


class ChipError(Exception):
    """No chip of use here; the text says why."""


def numbers(text: str) -> frozenset[int]:
    """The pins of a text such as `0, 2, 6–11`."""
    ends = [part.split("–") for part in text.split(", ")] if text else []
    return frozenset(pin for end in ends for pin in range(int(end[0]), int(end[-1]) + 1))


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip of the family. Pins are texts such as `0, 2, 6–11`.

    Attributes:
        name: As esptool prints it.
        board: MicroPython's name of the generic board with this chip.
        offset: Where the image begins in flash.
        number: What the image calls the chip.
        boot_pin: GPIO that is held low during a reset to enter the bootloader; most boards have a button at it.
        pins: Those that it has.
        flash: Those that its flash needs.
        memory: Those that further memory needs, on boards that have it.
        strapping: Those whose level at a reset decides how it starts.
        console: Those of its serial port and of its own USB.
        inputs: Those that can't be outputs.
        adc1: Analogue inputs.
        adc2: Analogue inputs that do not work beside Wi-Fi.
        i2c: SCL and SDA as most boards with it have them; None where boards differ.
        unsuitable: Why a sensor can't be made of it; empty when it can.
    """

    name: str
    board: str
    offset: int
    number: int
    boot_pin: int
    pins: str = ""
    flash: str = ""
    memory: str = ""
    strapping: str = ""
    console: str = ""
    inputs: str = ""
    adc1: str = ""
    adc2: str = ""
    i2c: tuple[int, int] | None = None
    unsuitable: str = ""

    @property
    def download(self) -> str:
        """The page with MicroPython's images."""
        return f"https://micropython.org/download/{self.board}/"

    def faults_of(self, pin: int, *, is_analogue: bool, is_input: bool = False) -> tuple[str, str]:
        """Why a pin can't be used, and why it perhaps should not be; each empty where there is no reason.

        Args:
            pin: The GPIO's number.
            is_analogue: It is read with the converter.
            is_input: The board only listens to it; otherwise it is an output, too, as all buses need it.
        """
        if pin not in numbers(self.pins):
            return f"an {self.name} has no pin {pin}", ""
        if pin in numbers(self.flash):
            return f"pin {pin} of an {self.name} belongs to its flash", ""
        if is_analogue and pin in numbers(self.adc2):
            return (
                f"pin {pin} of an {self.name} measures with ADC2, which does not work beside Wi-Fi: {self.adc1} do",
                "",
            )
        if is_analogue and pin not in numbers(self.adc1):
            return f"pin {pin} of an {self.name} is no analogue input: {self.adc1} are", ""
        if not is_analogue and not is_input and pin in numbers(self.inputs):
            return f"pin {pin} of an {self.name} is an input only", ""
        return "", next((text for use, text in WARNINGS.items() if pin in numbers(getattr(self, use))), "")


_NO_RADIO = "it has no Wi-Fi"
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "ESP32", "ESP32_GENERIC", 0x1000, 0, 0,
            pins="0–19, 21–23, 25–27, 32–39", flash="6–11", memory="16–17", strapping="0, 2, 5, 12, 15", console="1, 3",
            inputs="34–39", adc1="32–39", adc2="0, 2, 4, 12–15, 25–27", i2c=(22, 21),
        ),
        Chip(
            "ESP32-S2", "ESP32_GENERIC_S2", 0x1000, 2, 0,
            pins="0–21, 26–46", flash="27–32", memory="26", strapping="0, 45, 46", console="19, 20, 43, 44",
            inputs="46", adc1="1–10", adc2="11–20", i2c=(9, 8),
        ),
        Chip(
            "ESP32-S3", "ESP32_GENERIC_S3", 0x0, 9, 0,
            pins="0–21, 26–48", flash="27–32", memory="26, 33–37", strapping="0, 3, 45, 46", console="19, 20, 43, 44",
            adc1="1–10", adc2="11–20", i2c=(9, 8),
        ),
        Chip(
            "ESP32-C2", "ESP32_GENERIC_C2", 0x0, 12, 9,
            pins="0–20", flash="11–17", strapping="8, 9", console="19, 20", adc1="0–4", i2c=(5, 4),
        ),
        Chip(
            "ESP32-C3", "ESP32_GENERIC_C3", 0x0, 5, 9,
            pins="0–21", flash="11–17", strapping="2, 8, 9", console="18–21", adc1="0–4", adc2="5", i2c=(5, 4),
        ),
        Chip(
            "ESP32-C5", "ESP32_GENERIC_C5", 0x2000, 23, 28,
            pins="0–28", flash="16–22", strapping="2, 7, 25, 27, 28", console="11–14", adc1="1–6",
        ),
        Chip(
            "ESP32-C6", "ESP32_GENERIC_C6", 0x0, 13, 9,
            pins="0–30", flash="24–30", strapping="4, 5, 8, 9, 15", console="12, 13, 16, 17", adc1="0–6", i2c=(23, 22),
        ),
        Chip("ESP32-H2", "ESP32_GENERIC_H2", 0x0, 16, 9, unsuitable=_NO_RADIO),
        Chip("ESP32-P4", "ESP32_GENERIC_P4", 0x2000, 18, 35, unsuitable=_NO_RADIO),
    )
}  # fmt: skip

# pins that work, and what to know of them
WARNINGS = {
    "strapping": "decides at a reset how the chip starts: what is connected must not pull it the other way",
    "memory": "belongs to the memory of boards that have some beside the flash (PSRAM)",
    "console": "is the board's USB or serial port, over which it is flashed and tells what it does",
}


def find_chip(name: str) -> Chip:
    """The chip of this name, in any spelling: ESP32-C3, esp32c3.

    Raises:
        ChipError: No such chip, or one without Wi-Fi.
    """
    plain = name.upper().replace("-", "").replace("_", "")
    for chip in CHIPS.values():
        if chip.name.replace("-", "") == plain:
            if chip.unsuitable:
                raise ChipError(f"{chip.name} can't become a sensor: {chip.unsuitable}")
            return chip
    known = ", ".join(chip.name for chip in CHIPS.values() if not chip.unsuitable)
    raise ChipError(f"'{name}' is none of the chips that MicroPython and Wi-Fi run on: {known}")


def boot_pins() -> str:
    """The pins that enter the bootloader, for people: `GPIO 0; 9 on ESP32-C3; …`."""
    chips: dict[int, list[str]] = {}
    for chip in CHIPS.values():
        if not chip.unsuitable:
            chips.setdefault(chip.boot_pin, []).append(chip.name.removeprefix("ESP32-"))
    others = [f"{pin} on {', '.join(names)}" for pin, names in chips.items() if pin != 0]
    return "; ".join(["GPIO 0", *others])


def in_machine(text: str) -> Chip | None:
    """The chip in MicroPython's name of a board, such as `Generic ESP32C3 module with ESP32C3`; None when unknown.

    Raises:
        ChipError: A chip without Wi-Fi.
    """
    words = text.rpartition(" with ")[2].upper().replace("-", "")
    for chip in sorted(CHIPS.values(), key=lambda chip: -len(chip.name)):
        if words.startswith(chip.name.replace("-", "")):
            return find_chip(chip.name)
    return None


def check_pins(
    chip: Chip, sensors: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]] = ()
) -> tuple[list[str], list[str]]:
    """What can't work with the pins of the sensors and outputs on this chip, and what one should know of them.

    Args:
        chip: What they are connected to.
        sensors: `sensors` of the settings, checked by board/settings.py.
        outputs: `outputs`, likewise.
    """
    problems, warnings = [], []
    taken: dict[int, str] = {}
    for position, spec in enumerate(sensors):
        for option in settings.PINS:
            if option not in spec:
                continue
            place = f"sensors[{position}]: {option}: "
            driver = spec["driver"]
            problem, warning = chip.faults_of(
                spec[option],
                is_analogue=driver in settings.ANALOGUE,
                is_input=(driver, option) in settings.INPUTS,
            )
            if driver == "gpio" and spec.get("pull", "up") != "none" and spec[option] in numbers(chip.inputs):
                problem = (
                    problem
                    or f"pin {spec[option]} of an {chip.name} has no resistor of its own: pull=none and one at the pin"
                )
            use = option if option in ("scl", "sda") else f"{option} of sensors[{position}]"  # a bus is shared
            other = taken.setdefault(spec[option], use)
            if other != use:
                problem = problem or f"pin {spec[option]} is the {other} already"
            problems += [place + problem] if problem else []
            warnings += [f"{place}pin {spec[option]} {warning}"] if warning else []
    for position, spec in enumerate(outputs):
        place = f"outputs[{position}]: pin: "
        problem, warning = chip.faults_of(spec["pin"], is_analogue=False)
        if spec["pin"] in taken:
            problem = problem or f"pin {spec['pin']} is the {taken[spec['pin']]} already"
        taken.setdefault(spec["pin"], f"pin of outputs[{position}]")
        problems += [place + problem] if problem else []
        warnings += [f"{place}pin {spec['pin']} {warning}"] if warning else []
    return problems, warnings


def offer() -> dict[str, Any]:
    """What a page offers of each chip: the pins that can work, and why some of them perhaps should not.

    Returns:
        Chip's name to `digital` and `analogue`, lists of pins; `doubts`, pin to a name of `WARNINGS`; `boot`, the pin
        that enters the bootloader; `i2c`, `[scl, sda]` or null.
    """
    offered = {}
    for chip in CHIPS.values():
        if chip.unsuitable:
            continue
        usable = {
            kind: [pin for pin in sorted(numbers(chip.pins)) if not chip.faults_of(pin, is_analogue=analogue)[0]]
            for kind, analogue in (("digital", False), ("analogue", True))
        }
        doubts = {
            str(pin): next(use for use in WARNINGS if pin in numbers(getattr(chip, use)))
            for pin in sorted({*usable["digital"], *usable["analogue"]})
            if any(pin in numbers(getattr(chip, use)) for use in WARNINGS)
        }
        i2c = list(chip.i2c) if chip.i2c else None
        offered[chip.name] = {**usable, "doubts": doubts, "boot": chip.boot_pin, "i2c": i2c}
    return offered
