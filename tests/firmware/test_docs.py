"""docs/firmware.md says what the code does."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from firmware import chips, files, flash, listening, plan, prepared, tools, updates
from firmware.board import settings, wifi
from scripts import wiring

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "firmware.md").read_text()
ROWS = {
    cells[0]: cells for line in TEXT.splitlines() if line.startswith("| ") and (cells := line.strip("| ").split(" | "))
}


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    for name, default in settings.DEFAULTS.items():
        row = ROWS[f"`{name}`"]
        if isinstance(default, (int, str)) and not isinstance(default, bool):
            assert row[1].strip("`") == str(default), name
    documented = {cell.strip("`") for cell in ROWS if re.fullmatch(r"`[a-z_]+2?`", cell)}
    assert documented == set(settings.DEFAULTS)


def test_the_example_of_flashing_copies_as_many_files_as_there_are() -> None:
    assert f"copying  {len(files.names()) + 1} files" in TEXT  # the program, and its settings


def test_every_option_stands_in_the_table() -> None:
    parsers = [plan.parser(), prepared.parser(), updates.parser(), listening.parser()]
    actions = [action for parser in parsers for action in parser._actions]
    known = {option for action in actions for option in action.option_strings if option.startswith("--")}
    documented = {option for cell in ROWS for option in re.findall(r"`(--[a-z0-9-]+)`", cell)}
    assert documented == known - {"--help"}


def test_every_chip_stands_in_the_table_with_its_image_and_offset() -> None:
    for chip in chips.CHIPS.values():
        if chip.unsuitable:
            assert chip.name in TEXT
            assert chip.name not in ROWS
        else:
            assert ROWS[chip.name][1] == f"[{chip.board}]({chip.download})"
            assert ROWS[chip.name][2] == f"0x{chip.offset:x}"
            assert ROWS[chip.name][3] == ("SCL {}, SDA {}".format(*chip.i2c) if chip.i2c else "see your board")
            assert ROWS[chip.name][4:] == [chip.adc1, chip.flash, chip.strapping, chip.memory or "none", chip.console]


def test_the_pins_of_the_bootloader_are_the_chips() -> None:
    assert f"hold BOOT ({chips.boot_pins()})" in TEXT


def test_every_driver_has_an_example_that_works() -> None:
    examples = re.findall(r"`--sensor (\S+)`", TEXT)
    specs = [plan.parse_sensor(example) for example in examples]
    good = {"mqtt": {"url": "mqtt://h"}, "sensors": specs}
    assert settings.check(good) == []
    for spec in specs:
        assert chips.check_pins(chips.CHIPS["ESP32"], [spec]) == ([], [])
    assert {spec["driver"] for spec in specs} | {"fake"} == set(settings.DRIVERS)


def test_every_output_has_an_example_that_works() -> None:
    specs = [plan.parse_output(example) for example in re.findall(r"`--output (\S+)`", TEXT)]
    assert settings.check({"mqtt": {"url": "mqtt://h"}, "outputs": specs}) == []
    assert chips.check_pins(chips.CHIPS["ESP32"], [], specs) == ([], [])
    assert {spec["output"] for spec in specs} == set(settings.OUTPUTS)


@pytest.mark.parametrize("drawing", sorted(path.name for path in (DOCS / "wiring").glob("*.svg")))
def test_the_drawings_are_shown_and_name_the_pins_of_the_examples(drawing: str) -> None:
    assert f"](wiring/{drawing})" in TEXT
    root = ET.parse(DOCS / "wiring" / drawing).getroot()
    labels = {element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")}
    name = "adc" if drawing == "battery.svg" else drawing.removesuffix(".svg")
    [example, *_] = re.findall(rf"`--(?:sensor|output) ({name}:\S+)`", TEXT)
    spec = plan.parse_output(example) if name in settings.OUTPUTS else plan.parse_sensor(example)
    pins = {f"GPIO {spec[key]}" for key in settings.PINS if key in spec}
    assert pins == {label for label in labels if re.fullmatch(r"GPIO \d+", label)}
    assert root.find("{http://www.w3.org/2000/svg}title") is not None


def test_every_sensor_and_output_has_a_drawing() -> None:
    drawn = {path.stem for path in (DOCS / "wiring").glob("*.svg")}
    assert {*settings.DRIVERS, *settings.OUTPUTS} - {"fake", "adc"} <= drawn  # battery.svg has the example of adc
    assert "](wiring/battery.svg)" in TEXT[: TEXT.index("`--sensor adc:") + 200]


def test_the_drawings_that_are_made_are_those_of_the_script() -> None:
    for name, part in wiring.PARTS.items():
        assert (DOCS / "wiring" / f"{name}.svg").read_text() == wiring.draw(part), "python scripts/wiring.py"


@pytest.mark.parametrize("name", wiring.PARTS)
def test_what_is_drawn_stays_inside_and_wires_lead_to_their_own_pin(name: str) -> None:
    root = ET.fromstring(wiring.draw(wiring.PARTS[name]))
    width, height = (int(each) for each in root.attrib["viewBox"].split()[2:])
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        x, y, size = (float(element.attrib[key]) for key in ("x", "y", "font-size"))
        reach = 0.56 * size * len(element.text or "")  # of a wide font
        left = {"end": x - reach, "middle": x - reach / 2}.get(element.get("text-anchor", ""), x)
        assert left >= 0, element.text
        assert left + reach <= width, element.text
        assert y < height, element.text
    crossing = {"pms5003": {"GPIO 27": "TX", "GPIO 26": "RX"}}
    ends = {ours: theirs for ours, theirs, _ in wiring.PARTS[name].wires}
    assert crossing.get(name, {}).items() <= ends.items()
    assert len(ends) == len(wiring.PARTS[name].wires)


def test_a_bare_cell_is_not_drawn_at_the_pin_of_a_regulator_that_needs_more() -> None:
    drawing = (DOCS / "wiring" / "battery.svg").read_text()
    assert not re.search(r'text-anchor="end" fill="#ffffff">[^<]*(VIN|5V)', drawing)  # the labels of the pins
    assert "with protection circuit" in drawing
    assert "AMS1117" in drawing


# what is quoted there and is said by ESP-IDF and by MicroPython, not by us
FOREIGN = ("Brownout detector was triggered", "ETIMEDOUT", "ENODEV", "ValueError: The certificate")


def quoted() -> list[str]:
    """The symptoms in quotes of the table under "Troubleshooting", in pieces without what differs from case to case."""
    table = TEXT[TEXT.index("## Troubleshooting") : TEXT.index("## Coming from")]
    symptoms = [line.strip("| ").split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    texts = [text for symptom in symptoms for text in re.findall(r'"([^"]+)"', symptom)]
    pieces = [piece.strip(" ,") for text in texts for piece in re.split(r"\bPORT\b|…|\b\d+ s$", text)]
    return [re.sub(r"^(wifi|mqtt|connection refused):( |$)", "", piece) for piece in pieces]


def test_the_rows_of_the_troubleshooting_are_what_tool_and_board_say() -> None:
    sources = "\n".join(path.read_text() for path in sorted(Path(plan.__file__).parent.rglob("*.py")))
    said = re.sub(r'"\s*\n\s*f?"', "", sources)  # a text that is written in several pieces
    pieces = [piece for piece in quoted() if piece and piece not in FOREIGN]
    assert len(pieces) > 25
    assert [piece for piece in pieces if piece not in said] == []


def test_every_cause_that_the_tool_knows_has_a_row() -> None:
    pieces = [piece for piece in quoted() if len(piece) > 9]
    for name, cause in tools.CAUSES.items():
        text = re.sub(r"\{\w+\}", "", cause.text)
        assert any(piece in text for piece in pieces), f"{name}: {cause.text}"


def test_every_way_in_which_the_tool_gives_up_on_a_board_has_a_row() -> None:
    pieces = [piece for piece in quoted() if len(piece) > 9]
    lacking = []
    for module in (flash, tools):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            if ast.unparse(node.exc.func) != "FlashError" or ast.unparse(node.exc.args[0]).startswith("f'{error}"):
                continue  # the latter adds to what another part has said
            parts = [part.value for part in ast.walk(node.exc.args[0]) if isinstance(part, ast.Constant)]
            text = "".join(part for part in parts if isinstance(part, str))
            if text and not any(piece in text for piece in pieces):
                lacking.append(text)
    assert lacking == []


def test_every_state_of_the_radio_has_a_row() -> None:
    pieces = [piece for piece in quoted() if len(piece) > 8]
    assert [text for text in wifi.REASONS.values() if not any(piece in text for piece in pieces)] == []


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", TEXT):
        assert (DOCS / target.partition("#")[0]).exists(), target
