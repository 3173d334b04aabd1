"""Draws how sensors and outputs are connected, for docs/firmware.md: docs/wiring/NAME.svg of every row of `PARTS`.

    python scripts/wiring.py

Pins are those of the examples in docs/firmware.md (a test holds them to it). The drawings with more to them than
wires in rows, such as battery.svg, are drawn by hand and are not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).parents[1] / "docs" / "wiring"

SUPPLY, GND, SCL, SDA, DATA, OTHER = "#c62828", "#212121", "#1565c0", "#2e7d32", "#b26a00", "#6a1b9a"
GREEN, TEAL, BLUE, GREY, RED = "#33691e", "#00695c", "#1a4a7a", "#37474f", "#8e2430"
LEFT, RIGHT, TOP, STEP = 256, 534, 150, 38


@dataclass(frozen=True, slots=True)
class Part:
    """What is connected.

    Attributes:
        name: On it.
        below: Beneath its name.
        fill: Its colour.
        wires: Of each wire the end at the board, the end at the part, and the colour.
        notes: Lines beneath the drawing.
        pull_up: A resistor between the wires of these two rows, and its value.
        series: A resistor in the wire of this row, and its value.
        far: What goes on from the part, to something else: name of that, and of each wire its name and colour.
    """

    name: str
    below: str
    fill: str
    wires: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...] = ()
    pull_up: tuple[int, int, str] | None = None
    series: tuple[int, str] | None = None
    far: tuple[str, tuple[tuple[str, str], ...]] | None = None


def on_a_bus(name: str, below: str, fill: str, *notes: str, supply: str = "VIN") -> Part:
    """A sensor with I²C."""
    ends = (("3V3", supply, SUPPLY), ("GND", "GND", GND), ("GPIO 22", "SCL", SCL), ("GPIO 21", "SDA", SDA))
    return Part(name, below, fill, ends, notes)


PARTS = {
    "sht3x": on_a_bus("SHT3x", "0x44", TEAL, "SHT30, SHT31 and SHT35. With ADDR at 3V3 its address is 0x45."),
    "sht4x": on_a_bus("SHT4x", "0x44", TEAL, "SHT40, SHT41 and SHT45. Those with a B or C have 0x45 or 0x46."),
    "aht20": on_a_bus("AHT20", "0x38", BLUE, "The AHT21 is wired likewise. Its address is fixed: one on a bus."),
    "bh1750": on_a_bus(
        "BH1750", "0x23", BLUE, "ADDR open or at GND; at 3V3 its address is 0x5C.", "Nothing may shade it.",
        supply="VCC",
    ),
    "bme680": on_a_bus(
        "BME680", "0x76", GREY, "The BME688 is wired likewise. SDO open or at GND; at 3V3 its address is 0x77.",
        "It heats a layer for each reading: keep it a hand away from other temperature sensors.",
    ),
    "scd30": on_a_bus(
        "SCD30", "0x61", GREEN, "SEL stays open: then it speaks I²C. It draws up to 75 mA when it measures.",
        "Let fresh air reach it now and then, and do not press on its chamber.",
    ),
    "dht11": Part(
        "DHT11", "", BLUE, (("3V3", "VDD", SUPPLY), ("GPIO 4", "DATA", DATA), ("GND", "GND", GND)),
        ("Modules with three pins have the resistor on them. Its fourth pin, where there is one, stays open.",),
        pull_up=(0, 1, "10 kΩ"),
    ),
    "pms5003": Part(
        "PMS5003", "PMS7003, PMSA003", GREY,
        (("5V", "VCC", SUPPLY), ("GND", "GND", GND), ("GPIO 27", "TX", SCL), ("GPIO 26", "RX", SDA)),
        ("Its fan needs 5 V; its lines TX and RX have 3.3 V and go to the chip as they are.",
         "TX and RX cross: what it sends, the board receives. SET and RESET stay open."),
    ),
    "hx711": Part(
        "HX711", "", RED,
        (("3V3", "VCC", SUPPLY), ("GND", "GND", GND), ("GPIO 18", "SCK", SCL), ("GPIO 19", "DT", SDA)),
        ("The colours of a load cell’s wires are usual, and no rule: see its sheet.",
         "VCC at 3V3: with 5 V its output DT would have 5 V, too much for the chip."),
        far=("load cell", (("E+", SUPPLY), ("E−", GND), ("A−", "#9e9e9e"), ("A+", SDA))),
    ),
    "pulse": Part(
        "Meter", "contact, or S0", GREY, (("GPIO 27", "S0+", DATA), ("GND", "S0−", GND)),
        ("The chip’s own resistor holds the pin at 3.3 V, and the contact closes it to GND.",
         "Only such outputs: never connect a wire that carries mains voltage."),
    ),
    "gpio": Part(
        "Contact", "reed, switch, button", GREY, (("GPIO 27", "1", DATA), ("GND", "2", GND)),
        ("The chip’s own resistor holds the pin at 3.3 V while the contact is open.",
         "With more than some metres of wire: 1 kΩ in the wire to the pin, and 100 nF from the pin to GND."),
    ),
    "soil": Part(
        "Soil probe", "capacitive", GREEN, (("3V3", "VCC", SUPPLY), ("GND", "GND", GND), ("GPIO 34", "AOUT", DATA)),
        ("Into the soil up to its line; what is above it must stay dry.",
         "Each probe has its own voltages for dry and wet soil: read them off and give them as dry and wet."),
    ),
    "relay": Part(
        "Relay", "module", BLUE, (("5V", "VCC", SUPPLY), ("GND", "GND", GND), ("GPIO 26", "IN", DATA)),
        ("A module that works with 3.3 V at IN; one that is on while IN is low: inverted=true.",
         "Behind the relay mains voltage may be: leave that side to an electrician."),
        far=("what it switches", (("COM", OTHER), ("NO", OTHER))),
    ),
    "led": Part(
        "LED", "", RED, (("GPIO 25", "+ long leg", DATA), ("GND", "− short leg", GND)),
        ("330 Ω let 4 mA through a red one. A pin gives up to 20 mA: a lamp needs a transistor.",),
        series=(0, "330 Ω"),
    ),
    "pwm": Part(
        "Driver", "of a fan, a valve, a strip", GREY, (("GPIO 27", "PWM", DATA), ("GND", "GND", GND)),
        ("A fan with four wires takes the signal at its fourth; its 12 V come from a supply of its own.",
         "The GND of that supply and that of the board must be connected."),
    ),
}  # fmt: skip


def text(
    x: int, y: int, content: str, fill: str = "#ffffff", size: int = 14, end: str = "start", bold: bool = False
) -> str:
    """A line of text."""
    weight = ' font-weight="700"' if bold else ""
    anchor = "" if end == "start" else f' text-anchor="{end}"'
    return f'<text x="{x}" y="{y}" font-size="{size}"{weight}{anchor} fill="{fill}">{escape(content)}</text>'


def dot(x: int, y: int, edge: str) -> str:
    """A pin."""
    return f'<circle cx="{x}" cy="{y}" r="6" fill="#ffd54f" stroke="{edge}" stroke-width="2"/>'


def resistor(x: int, y: int, value: str, *, lies: bool) -> list[str]:
    """One around a point."""
    width, height = (48, 18) if lies else (18, 26)
    box = f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}"'
    label = text(x, y - 16, value, "#212121", end="middle") if lies else text(x + 18, y + 5, value, "#212121")
    return [f'{box} fill="#fff8e1" stroke="#212121" stroke-width="2.5"/>', label]


def draw(part: Part) -> str:
    """The drawing, as SVG."""
    rows = [TOP + STEP * number for number in range(len(part.wires))]
    bottom = max(rows[-1], TOP + 2 * STEP) + 46
    told = ", ".join(f"{theirs} to {ours}" for ours, theirs, _ in part.wires)
    lines = []
    for y, (_, _, colour) in zip(rows, part.wires, strict=True):
        lines.append(
            f'<path d="M{LEFT} {y}H{RIGHT}" fill="none" stroke="{colour}" stroke-width="4" stroke-linecap="round"/>'
        )
    if part.pull_up is not None:
        one, other, value = part.pull_up
        middle = (rows[one] + rows[other]) // 2
        lines.append(f'<path d="M395 {rows[one]}V{rows[other]}" stroke="#212121" stroke-width="3"/>')
        lines += resistor(395, middle, value, lies=False)
        lines += [f'<circle cx="395" cy="{rows[row]}" r="5" fill="{part.wires[row][2]}"/>' for row in (one, other)]
        told += f"; {value} between {part.wires[one][1]} and {part.wires[other][1]}"
    if part.series is not None:
        row, value = part.series
        lines += resistor(395, rows[row], value, lies=True)
        told += f"; {value} in the wire of {part.wires[row][0]}"
    lines += [
        "<g>",
        f'<rect x="50" y="40" width="200" height="{bottom - 40}" rx="10" fill="#24414f"/>',
        '<rect x="80" y="54" width="100" height="70" rx="4" fill="#b0bec5"/>',
        '<path d="M92 68h14v12h14v-12h14v12h14v-12h14" fill="none" stroke="#37474f" stroke-width="3"/>',
        text(130, 110, "ESP32", "#263238", 16, "middle", bold=True),
        f'<rect x="112" y="{bottom - 12}" width="36" height="20" rx="3" fill="#90a4ae"/>',
        text(130, bottom - 22, "USB", "#cfd8dc", 12, "middle"),
    ]
    for y, (ours, _, _) in zip(rows, part.wires, strict=True):
        lines += [text(236, y + 5, ours, end="end"), dot(250, y, "#24414f")]
    lines += [
        "</g>",
        "<g>",
        f'<rect x="540" y="60" width="200" height="{bottom - 70}" rx="10" fill="{part.fill}"/>',
        text(724, 90, part.name, size=18, end="end", bold=True),
    ]
    if part.below:
        lines.append(text(724, 110, part.below, "#eceff1", 12, "end"))
    for y, (_, theirs, _) in zip(rows, part.wires, strict=True):
        lines += [text(556, y + 5, theirs), dot(540, y, part.fill)]
    lines.append("</g>")
    if part.far is not None:
        name, ends = part.far
        for y, (label, colour) in zip(rows, ends, strict=False):
            lines += [
                f'<path d="M746 {y}H786" stroke="{colour}" stroke-width="4" stroke-linecap="round"/>',
                text(724, y + 5, label, end="end"),
                dot(740, y, part.fill),
            ]
        lines.append(text(786, bottom + 8, f"to {name}", "#455a64", 13, "end"))
        told += f"; {', '.join(label for label, _ in ends)} to {name}"
    lines += [text(50, bottom + 44 + 19 * number, note, "#455a64", 13) for number, note in enumerate(part.notes)]
    height = bottom + 62 + 19 * max(0, len(part.notes) - 1)
    font = "system-ui, Segoe UI, Helvetica, Arial, sans-serif"
    attributes = f'viewBox="0 0 800 {height}" role="img" aria-labelledby="t d" font-family="{font}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>',
        f'  <title id="t">{escape(part.name)} on an ESP32</title>',
        f'  <desc id="d">{escape(told)}.</desc>',
        f'  <rect width="800" height="{height}" rx="10" fill="#ffffff"/>',
    ]
    return "\n".join([*head, *(f"  {line}" for line in lines), "</svg>"]) + "\n"


def main() -> None:
    """The command."""
    for name, part in PARTS.items():
        (FOLDER / f"{name}.svg").write_text(draw(part), encoding="utf-8")


if __name__ == "__main__":
    main()
