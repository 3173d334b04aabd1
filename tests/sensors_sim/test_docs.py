"""docs/sensors.md against the code."""

import re
import shlex
from pathlib import Path

import pytest

from gateway.core.durations import duration_text
from sensors_sim import cli
from sensors_sim.dialects.all import DIALECTS
from sensors_sim.faults import FaultKind
from sensors_sim.fleet import SEEDED_START, Fleet
from sensors_sim.kinds import KINDS
from sensors_sim.model.climate import PROFILES
from sensors_sim.model.electricity import APPLIANCES
from sensors_sim.scenario import parse_fleet, scenario_names

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/sensors.md").read_text(encoding="utf-8")


def first_column(head: str) -> list[str]:
    """The code spans in the first column of the table with that head."""
    table = TEXT.partition(f"| {head} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)


def row(name: str) -> list[str]:
    (line,) = re.findall(rf"^\| `{name}` \|.*$", TEXT, re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")]


def listed(head: str) -> list[str]:
    return re.findall(r"`([^`]+)`", TEXT.partition(f"\n{head}: ")[2].partition("\n\n")[0])


def test_tables_and_lists_are_complete() -> None:
    assert first_column("kind") == list(KINDS)
    assert first_column("fault") == [kind.value for kind in FaultKind]
    assert first_column("dialect") == list(DIALECTS)
    assert sorted(first_column("scenario")) == scenario_names()
    assert listed("Rooms") == list(PROFILES)
    assert listed("Appliances") == list(APPLIANCES)


@pytest.mark.parametrize("name", list(KINDS))
def test_options_and_intervals_of_a_kind_are_those_of_the_code(name: str) -> None:
    _, readings, options, interval = row(name)
    assert set(re.findall(r"`(\w+)`", options)) == KINDS[name].options
    assert interval.replace(" ", "").replace("min", "m") == duration_text(KINDS[name].interval)
    assert ("sleeps" in readings) == KINDS[name].sleeps


def test_the_fleet_file_that_is_shown_runs() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    fleet = Fleet(parse_fleet(block), 7, SEEDED_START)
    assert list(fleet.devices) == ["living", "bedroom-1", "bedroom-2", "fridge"]


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("sensors-sim")]


@pytest.mark.parametrize("command", commands())
def test_every_command_that_is_shown_is_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]
    if words[0] in ("replay", "clone", "scenarios"):
        with pytest.raises(SystemExit) as ended:
            cli.main([words[0], "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        for word in words[1:]:
            assert not word.startswith("-") or word in text
    else:
        cli.parser().parse_args(words)


def test_every_flag_that_is_named_is_one() -> None:
    source = Path(cli.__file__).read_text(encoding="utf-8")
    for flag in re.findall(r"`(--[a-z-]+)", TEXT):
        assert f'"{flag}"' in source, flag


def test_modules_that_are_named_exist() -> None:
    section = TEXT.partition("### What is behind the readings")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z/]+\.py)`", section))
    assert len(named) > 5
    assert all((ROOT / "sensors_sim" / path).exists() for path in named)
