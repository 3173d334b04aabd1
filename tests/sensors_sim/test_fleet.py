"""sensors_sim/fleet.py: a pure model, so no broker and no clock."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest

from sensors_sim.fleet import SEEDED_START, Change, DeviceSpec, Event, Fleet, FleetSpec, counted_fleet
from sensors_sim.messages import Message


def make(count: int = 3, seed: int = 7, interval: float = 1.0, **options: Any) -> Fleet:
    return Fleet(counted_fleet(count), seed, SEEDED_START, interval=interval, **options)


def messages(events: Iterable[Event]) -> list[Message]:
    return [event.what for event in events if isinstance(event.what, Message)]


def test_the_same_seed_gives_the_same_messages() -> None:
    first = messages(make().take(SEEDED_START + 60))
    second = messages(make().take(SEEDED_START + 60))
    assert len(first) == 180
    assert first == second


def test_another_seed_gives_others() -> None:
    assert messages(make(seed=7).take(SEEDED_START + 5)) != messages(make(seed=8).take(SEEDED_START + 5))


def test_a_device_reads_the_same_in_a_smaller_fleet() -> None:
    def of(count: int) -> list[Message]:
        topic = "sensors/sim-2/state"
        return [message for message in messages(make(count).take(SEEDED_START + 20)) if message.topic == topic]

    assert of(3) == of(9)


def test_events_do_not_depend_on_how_they_are_asked_for() -> None:
    at_once = messages(make().take(SEEDED_START + 30))
    fleet = make()
    in_steps = [message for step in range(1, 301) for message in messages(fleet.take(SEEDED_START + step / 10))]
    assert in_steps == at_once


def test_readings_come_once_an_interval_and_are_numbered() -> None:
    fleet = make(1, interval=2.0)
    states = [json.loads(message.payload) for message in messages(fleet.take(SEEDED_START + 20))]
    assert [state["seq"] for state in states] == list(range(10))
    assert len({state["boot"] for state in states}) == 1
    steps = [later["ts"] - earlier["ts"] for earlier, later in itertools.pairwise(states)]
    assert steps == pytest.approx([2.0] * 9, abs=0.0011)


def test_time_stamps_are_model_time_plus_the_offset() -> None:
    fleet = make(1, ts_offset=1000.0)
    (first, *_) = messages(fleet.take(SEEDED_START + 1))
    assert 0 <= json.loads(first.payload)["ts"] - 1000 - SEEDED_START <= 1


def test_a_command_changes_the_interval_and_is_told_in_meta() -> None:
    fleet = make(1)
    list(fleet.take(SEEDED_START + 5))
    (meta,) = messages(fleet.command("sensors/sim-1/cmd", b'{"interval":5}', SEEDED_START + 5))
    assert meta.topic == "sensors/sim-1/meta"
    assert json.loads(meta.payload)["interval"] == 5
    assert len(messages(fleet.take(SEEDED_START + 30.5))) == 5


@pytest.mark.parametrize("interval", [5e-324, 1e-9, 1e-7, 1e-5, 0.001, 0.002])
def test_no_command_lets_one_device_starve_the_others(interval: float) -> None:
    fleet = make(3)
    list(fleet.take(SEEDED_START + 5))
    fleet.command("sensors/sim-2/cmd", json.dumps({"interval": interval}).encode(), SEEDED_START + 5)
    seen = [message.topic for message in messages(itertools.islice(fleet.take(SEEDED_START + 15), 20_000))]
    assert seen.count("sensors/sim-1/state") == 10
    assert seen.count("sensors/sim-3/state") == 10
    assert seen.count("sensors/sim-2/state") <= 10 / 0.001 + 1


def test_an_interval_too_short_for_the_clock_is_refused_in_a_description() -> None:
    with pytest.raises(ValueError, match="interval is at least"):
        make(1, interval=1e-9)


def test_a_sleeper_that_shall_read_often_joins_and_stays() -> None:
    fleet = Fleet(FleetSpec((DeviceSpec("a", "thermometer", "A"),)), 7, SEEDED_START, interval=60)
    list(fleet.take(SEEDED_START + 65))
    events = fleet.command("sensors/a/cmd", b'{"interval":5}', SEEDED_START + 65)
    assert events[0].what is Change.JOIN
    said = {message.topic: message.payload for message in messages(events)}
    assert said["sensors/a/status"] == b"online"
    assert json.loads(said["sensors/a/meta"])["interval"] == 5
    later = list(fleet.take(SEEDED_START + 100))
    assert len(messages(later)) == 7
    assert not [event for event in later if isinstance(event.what, Change)]


def test_a_device_without_power_obeys_no_reboot() -> None:
    fleet = make(1)
    fleet.command("sensors/sim-1/cmd", b'{"fault":"crash","for":60}', SEEDED_START)
    list(fleet.take(SEEDED_START + 5))
    assert fleet.command("sensors/sim-1/cmd", b'{"reboot":true}', SEEDED_START + 5) == []
    assert not list(fleet.take(SEEDED_START + 50))


def test_a_reboot_cuts_the_link_and_starts_the_numbers_again() -> None:
    fleet = make(1)
    before = [json.loads(message.payload) for message in messages(fleet.take(SEEDED_START + 5))]
    assert [event.what for event in fleet.command("sensors/sim-1/cmd", b'{"reboot":true}', SEEDED_START + 5)] == [
        Change.CUT
    ]
    events = list(fleet.take(SEEDED_START + 12))
    assert events[0].what is Change.JOIN
    after = json.loads(messages(events)[0].payload)
    assert (after["seq"], after["boot"]) == (0, before[-1]["boot"] + 1)


@pytest.mark.parametrize("payload", [b"", b"nonsense", b'{"interval":-1}', b'{"unknown":1}'])
def test_a_bad_command_changes_nothing(payload: bytes, caplog: pytest.LogCaptureFixture) -> None:
    fleet = make(1)
    assert fleet.command("sensors/sim-1/cmd", payload, SEEDED_START) == []
    assert "sim-1" in caplog.text
    assert fleet.command("sensors/other/cmd", b'{"reboot":true}', SEEDED_START) == []


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (DeviceSpec("Küche", "climate", "K"), "device id 'Küche'"),
        (DeviceSpec("a", "toaster", "T"), "unknown kind 'toaster'"),
        (DeviceSpec("a", "climate", "T", room="moon"), "unknown room 'moon'"),
    ],
)
def test_a_wrong_description_is_refused(spec: DeviceSpec, text: str) -> None:
    with pytest.raises(ValueError, match=r"device|kind|room") as raised:
        Fleet(FleetSpec((spec,)), 1, SEEDED_START)
    assert text in str(raised.value)


def test_two_devices_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="another device"):
        Fleet(FleetSpec((DeviceSpec("a", "climate", "A"), DeviceSpec("a", "climate", "B"))), 1, SEEDED_START)


def test_devices_of_one_place_measure_the_same_room() -> None:
    specs = [DeviceSpec(name, "climate", name, place="kitchen", room="kitchen") for name in ("a", "b")]
    states = messages(Fleet(FleetSpec(tuple(specs)), 7, SEEDED_START, interval=60).take(SEEDED_START + 60))
    a, b = (json.loads(state.payload) for state in states)
    assert a["co2"] == pytest.approx(b["co2"], abs=120)
    assert a["temperature"] == pytest.approx(b["temperature"], abs=1.2)
