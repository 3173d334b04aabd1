"""Fleet files and the ready scenarios."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.durations import duration_text, parse_duration
from sensors_sim.cli import main
from sensors_sim.faults import FaultKind
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Fleet, FleetSpec
from sensors_sim.messages import Message
from sensors_sim.scenario import ScenarioError, load_fleet, load_scenario, parse_fleet, scenario_names


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(10, 10), (0.5, 0.5), ("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("2d", 172_800)],
)
def test_durations_are_read(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize("value", ["", "soon", "5 parsecs", -1, True, None, float("inf"), "9" * 400, "s", "1h x"])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"duration .*: must be"):
        parse_duration(value)


@pytest.mark.parametrize("seconds", [0.25, 1, 45, 60, 90, 3600, 86_400, 5400])
def test_a_duration_is_written_as_it_is_read(seconds: float) -> None:
    assert parse_duration(duration_text(seconds)) == seconds


def test_the_scenarios_are_the_four_that_are_promised() -> None:
    assert scenario_names() == ["factory", "greenhouse", "home", "office"]


@pytest.mark.parametrize("name", ["factory", "greenhouse", "home", "office"])
def test_a_scenario_has_a_title_and_every_device_speaks(name: str) -> None:
    spec = load_scenario(name)
    assert spec.title
    assert len(spec.devices) >= 10
    fleet = Fleet(spec, 7, SEEDED_START)
    spoke = {event.device.id for event in fleet.take(SEEDED_START + 11) if isinstance(event.what, Message)}
    assert spoke == set(fleet.devices)


def test_a_file_is_read_with_all_that_it_says(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(
        """
        title = "Test"
        [site]
        latitude = -33.9
        altitude = 25
        [defaults]
        interval = "30s"
        room = "kitchen"
        [[device]]
        id = "a"
        name = "Küche"
        place = "k"
        [[device]]
        id = "p"
        kind = "plug"
        interval = 5
        count = 3
        dialect = "shelly"
        options = { appliance = "tv" }
        [[device.fault]]
        kind = "spike"
        field = "power"
        size = 900
        probability = 0.01
        """,
        encoding="utf-8",
    )
    spec = load_fleet(path)
    assert (spec.title, spec.site.latitude, spec.site.altitude) == ("Test", -33.9, 25)
    a, *plugs = spec.devices
    assert (a.id, a.kind, a.name, a.place, a.room, a.interval) == ("a", "climate", "Küche", "k", "kitchen", 30)
    assert [plug.id for plug in plugs] == ["p-1", "p-2", "p-3"]
    assert plugs[0].options == {"appliance": "tv"}
    assert plugs[2].interval == 5
    assert plugs[0].dialect == "shelly"
    assert (plugs[0].faults[0].kind, plugs[0].faults[0].probability) == (FaultKind.SPIKE, 0.01)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ScenarioError) as raised:
        parse_fleet(
            """
            tilte = "x"
            [site]
            latitude = 95
            [[device]]
            id = "a"
            intervall = 5
            [[device]]
            kind = "plug"
            [[device]]
            id = "c"
            interval = "soon"
            fault = [{ kind = "gremlins" }]
            count = 0
            """,
            "my.toml",
        )
    lines = str(raised.value).splitlines()
    assert all(line.startswith("my.toml: ") for line in lines)
    text = str(raised.value)
    for part in (
        "unknown 'tilte', did you mean 'title'?",
        "latitude is from -90 to 90",
        "device 1 (a): unknown 'intervall', did you mean 'interval'?",
        "device 2: no id",
        "device 3 (c): duration 'soon': must be such as",
        "device 3 (c): unknown fault 'gremlins'",
        "device 3 (c): count is a whole number",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no [[device]]"),
        ("device = 3", "no [[device]]"),
        ("= 3", "my.toml:"),
        ('[[device]]\nid="a"\nkind="climate"\nstream=[]', "for devices of kind 'custom'"),
    ],
)
def test_a_wrong_file_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        parse_fleet(text, "my.toml")
    assert problem in str(raised.value)


def test_what_only_the_kinds_know_is_told_with_the_device() -> None:
    spec = parse_fleet(
        """
        [[device]]
        id = "a"
        kind = "toaster"
        [[device]]
        id = "b"
        kind = "plug"
        options = { appliance = "time machine" }
        [[device]]
        id = "c"
        options = { x = 1 }
        [[device]]
        id = "d"
        dialect = "klingon"
        [[device]]
        id = "a"
        """
    )
    with pytest.raises(ValueError, match="device") as raised:
        Fleet(spec, 7, SEEDED_START)
    text = str(raised.value)
    for part in (
        "device 'a': unknown kind 'toaster'",
        "device 'b': unknown appliance 'time machine'",
        "device 'c': kind 'climate' has no option 'x'",
        "device 'd': unknown dialect 'klingon'",
    ):
        assert part in text


def test_a_missing_file_or_scenario_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nowhere\.toml"):
        load_fleet(tmp_path / "nowhere.toml")
    with pytest.raises(ScenarioError, match="unknown scenario 'mars': known are factory"):
        load_scenario("mars")


def test_a_fleet_is_cut_short_or_filled_with_lookalikes() -> None:
    spec = load_scenario("home")
    assert [device.id for device in spec.resized(2).devices] == ["living-climate", "living-motion"]
    large = spec.resized(30)
    assert len(large.devices) == 30
    assert large.devices[12].id == "living-climate-2"
    assert large.devices[12].place == "living-2"
    assert len({device.id for device in large.devices}) == 30
    Fleet(large, 7, SEEDED_START)


def test_the_sensor_that_sticks_stands_where_its_co2_would_move() -> None:
    spec = next(device for device in load_scenario("office").devices if device.id == "stuck-sensor")

    def co2(described: DeviceSpec) -> list[float]:
        fleet = Fleet(FleetSpec((described,)), 7, SEEDED_START + 2 * 3600)
        return [
            json.loads(event.what.payload)["co2"]
            for event in fleet.take(SEEDED_START + 4 * 3600)
            if isinstance(event.what, Message)
        ]

    off = [abs(a - b) for a, b in zip(co2(spec), co2(replace(spec, faults=())), strict=True)]
    assert max(off) > 100


def test_the_ids_of_a_scenario_are_told_for_who_makes_their_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios", "--ids", "home"]) == 0
    ids = capsys.readouterr().out.split()
    assert len(ids) == 12
    assert "living-climate" in ids
