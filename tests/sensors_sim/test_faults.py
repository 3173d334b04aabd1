"""Faults, by schedule, by probability and by command. Pure: no broker, no clock."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors_sim.dialects.all import DIALECTS
from sensors_sim.faults import MAX_FAULTS, FaultKind, FaultSpec
from sensors_sim.fleet import SEEDED_START, Change, DeviceSpec, Event, Fleet, FleetSpec
from sensors_sim.messages import Message

START = SEEDED_START


def fleet(*faults: dict[str, Any], interval: float = 1.0, seed: int = 7) -> Fleet:
    specs = tuple(FaultSpec.parse(fault) for fault in faults)
    return Fleet(FleetSpec((DeviceSpec("a", "climate", "A", faults=specs),)), seed, START, interval=interval)


def states(events: list[Event]) -> list[dict[str, Any]]:
    return [
        json.loads(event.what.payload)
        for event in events
        if isinstance(event.what, Message) and event.what.topic.endswith("/state")
    ]


def run(seconds: float, *faults: dict[str, Any], **options: Any) -> list[Event]:
    return list(fleet(*faults, **options).take(START + seconds))


def changes(events: list[Event]) -> list[Change]:
    return [event.what for event in events if isinstance(event.what, Change)]


HEALTHY = states(run(60))


def test_a_healthy_device_loses_nothing() -> None:
    assert len(HEALTHY) == 60


def test_drop_out_leaves_a_hole_in_the_numbers() -> None:
    seen = [state["seq"] for state in states(run(60, {"kind": "drop-out", "after": 10, "for": 5}))]
    assert len(seen) == 55
    gaps = [(a, b) for a, b in itertools.pairwise(seen) if b != a + 1]
    assert len(gaps) == 1
    assert gaps[0][1] - gaps[0][0] == 6


def test_a_stuck_field_repeats_and_the_others_go_on() -> None:
    seen = states(run(60, {"kind": "stuck", "field": "co2", "after": 10, "for": 20}))
    during = [state for state in seen if 10 <= state["ts"] - START < 30]
    assert len({state["co2"] for state in during}) == 1
    assert len({state["humidity"] for state in during}) > 1
    assert [state["temperature"] for state in seen] == [state["temperature"] for state in HEALTHY]
    assert seen[-1]["co2"] == HEALTHY[-1]["co2"], "afterwards it measures again"


def test_stuck_without_a_field_holds_all() -> None:
    seen = states(run(30, {"kind": "stuck"}))
    assert len({(state["temperature"], state["humidity"], state["co2"], state["rssi"]) for state in seen}) == 1


def test_a_spike_is_one_reading_far_off() -> None:
    seen = states(run(60, {"kind": "spike", "field": "temperature", "size": 30, "after": 10, "for": 1}))
    off = [a["temperature"] - b["temperature"] for a, b in zip(seen, HEALTHY, strict=True)]
    assert [abs(value) for value in off if value] == [pytest.approx(30, abs=0.02)]


def test_drift_grows_with_time() -> None:
    seen = states(run(3600, {"kind": "drift", "field": "temperature", "size": 4}, interval=60))
    healthy = states(run(3600, interval=60))
    off = [a["temperature"] - b["temperature"] for a, b in zip(seen, healthy, strict=True)]
    assert [off[0], off[30], off[-1]] == pytest.approx([0, 2, 4], abs=0.1)


def test_noise_is_wide_and_changes_nothing_else() -> None:
    seen = states(run(60, {"kind": "noise", "field": "humidity", "size": 10}))
    off = [a["humidity"] - b["humidity"] for a, b in zip(seen, HEALTHY, strict=True)]
    assert max(off) > 8
    assert min(off) < -8
    assert [state["co2"] for state in seen] == [state["co2"] for state in HEALTHY]


def test_a_skewed_clock_is_off_by_its_size() -> None:
    seen = states(run(10, {"kind": "clock-skew", "size": -120}))
    assert [a["ts"] - b["ts"] for a, b in zip(seen, HEALTHY, strict=False)] == pytest.approx([-120] * 10)


def test_duplicates_are_the_same_bytes_twice() -> None:
    payloads = [event.what.payload for event in run(10, {"kind": "duplicate"}) if isinstance(event.what, Message)]
    assert len(payloads) == 20
    assert payloads[::2] == payloads[1::2]


def test_out_of_order_messages_change_places_and_none_is_lost() -> None:
    seen = [state["seq"] for state in states(run(10, {"kind": "out-of-order"}))]
    assert seen == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]


def test_what_out_of_order_holds_is_released_when_it_ends() -> None:
    seen = [state["seq"] for state in states(run(10, {"kind": "out-of-order", "for": 1.5}))]
    assert sorted(seen) == list(range(10))


def is_json(payload: bytes) -> bool:
    try:
        json.loads(payload, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return False
    return True


def is_number(payload: bytes) -> bool:
    try:
        float(payload)
    except ValueError:
        return False
    return True


def test_malformed_messages_are_no_json() -> None:
    payloads = [event.what.payload for event in run(200, {"kind": "malformed"}) if isinstance(event.what, Message)]
    assert len(payloads) == 200
    assert not any(is_json(payload) for payload in payloads)
    assert len({payload[-6:] for payload in payloads}) > 30, "broken in many ways"


CUSTOM = {
    "stream": [
        {"topic": "x/{id}/bare", "format": "number", "retain": True, "field": [{"name": "value", "mean": 3}]},
        {"topic": "x/{id}/text", "format": "text", "field": [{"name": "value", "model": "choice", "choices": ["on"]}]},
        {"topic": "x/{id}/json", "retain": True, "field": [{"name": "v", "mean": 3}]},
        {"topic": "x/{id}/empty", "field": []},
    ]
}


@pytest.mark.parametrize("kind", ["climate", "plug", "motion", "machine", "custom"])
@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_malformed_is_no_reading_in_any_dialect_and_erases_nothing(dialect: str, kind: str) -> None:
    def sent(*faults: dict[str, Any]) -> list[Message]:
        specs = tuple(FaultSpec.parse(fault) for fault in faults)
        options = CUSTOM if kind == "custom" else {}
        spec = FleetSpec((DeviceSpec("a", kind, "A", faults=specs, options=options),))
        events = Fleet(spec, 7, START, interval=1, dialect=dialect).take(START + 100)
        return [event.what for event in events if isinstance(event.what, Message)]

    healthy, malformed = sent(), sent({"kind": "malformed"})
    assert [message.topic for message in malformed] == [message.topic for message in healthy]
    values = {message.payload for message in healthy}
    for message in malformed:
        assert message.payload, "an empty payload would erase what the broker keeps"
        assert not is_json(message.payload)
        assert not is_number(message.payload)
        assert message.payload not in values


def test_a_reboot_counts_and_numbers_begin_again() -> None:
    events = run(30, {"kind": "reboot", "after": 10})
    assert changes(events) == [Change.CUT, Change.JOIN]
    seen = states(events)
    boots = [state["boot"] for state in seen]
    assert boots == sorted(boots)
    assert boots[-1] == boots[0] + 1
    after = [state for state in seen if state["boot"] == boots[-1]]
    assert [state["seq"] for state in after] == list(range(len(after)))
    assert after[0]["ts"] - START > 13, "a restart takes three seconds"


def test_a_crash_is_silent_for_its_time() -> None:
    events = run(60, {"kind": "crash", "after": 10, "for": 20})
    assert changes(events) == [Change.CUT, Change.JOIN]
    assert not [state for state in states(events) if 10.5 < state["ts"] - START < 30]


def test_flapping_breaks_and_returns_and_loses_nothing() -> None:
    events = run(60, {"kind": "flapping", "after": 10, "for": 30, "size": 10})
    assert changes(events) == [Change.OUTAGE, Change.JOIN] * 3
    assert len(states(events)) == 60
    assert len({state["boot"] for state in states(events)}) == 1


def test_a_schedule_repeats() -> None:
    events = run(60, {"kind": "reboot", "after": 5, "every": 20})
    assert changes(events) == [Change.CUT, Change.JOIN] * 3


def test_probability_is_that_of_a_reading() -> None:
    seen = states(run(2000, {"kind": "spike", "field": "co2", "size": 5000, "probability": 0.05}))
    spikes = sum(1 for state in seen if not -1000 < state["co2"] < 4000)
    assert 60 < spikes < 140


def test_a_struck_fault_may_last() -> None:
    seen = [state["seq"] for state in states(run(2000, {"kind": "drop-out", "probability": 0.005, "for": 10}))]
    gaps = [b - a - 1 for a, b in itertools.pairwise(seen) if b != a + 1]
    assert gaps
    assert all(gap >= 10 for gap in gaps)


def test_faults_of_the_connection_strike_by_chance_too() -> None:
    assert Change.CUT in changes(run(500, {"kind": "crash", "probability": 0.02, "for": 5}))


def test_faults_leave_the_world_alone() -> None:
    stormy = states(run(60, {"kind": "spike", "probability": 0.2}, {"kind": "duplicate", "probability": 0.3}))
    assert {state["seq"]: state["humidity"] for state in stormy} == {
        state["seq"]: state["humidity"] for state in HEALTHY
    }


def command(target: Fleet, at: float, **what: Any) -> list[Event]:
    what = {name.rstrip("_"): value for name, value in what.items()}
    return target.command("sensors/a/cmd", json.dumps(what).encode(), START + at)


def test_a_fault_by_command_lasts_as_long_as_it_says() -> None:
    target = fleet()
    list(target.take(START + 10))
    assert command(target, 10, fault="stuck", field="co2", for_="20s") == []
    seen = states(list(target.take(START + 60)))
    during = [state["co2"] for state in seen if state["ts"] - START < 30]
    assert len(set(during)) == 1
    assert len({state["co2"] for state in seen}) > 1


@pytest.mark.parametrize("kind", ["reboot", "crash", "flapping"])
def test_a_fault_of_the_connection_by_command_comes_at_once(kind: str) -> None:
    target = fleet()
    list(target.take(START + 10))
    command(target, 10.2, fault=kind)
    events = list(target.take(START + 10.3))
    assert changes(events) in ([Change.CUT], [Change.OUTAGE])


def test_clear_ends_one_kind_or_all() -> None:
    target = fleet({"kind": "duplicate"}, {"kind": "drop-out"})
    assert not list(target.take(START + 5))
    command(target, 5, clear="drop-out")
    assert len(list(target.take(START + 10))) == 10
    command(target, 10, clear=True)
    assert len(list(target.take(START + 15))) == 5


def test_clear_brings_a_crashed_device_back() -> None:
    target = fleet({"kind": "crash", "after": 2, "for": "1h"})
    list(target.take(START + 10))
    command(target, 10, clear=True)
    assert changes(list(target.take(START + 10.1))) == [Change.JOIN]
    assert states(list(target.take(START + 30)))


LINK_KINDS = ["crash", "reboot", "flapping"]


@pytest.mark.parametrize("other", sorted({kind.value for kind in FaultKind}))
@pytest.mark.parametrize("kind", LINK_KINDS)
def test_clearing_one_kind_leaves_a_broken_connection_of_another_alone(kind: str, other: str) -> None:
    def events_of(*cleared: str) -> list[Message | Change]:
        target = fleet()
        events = list(target.take(START + 10))
        command(target, 10.2, fault=kind, for_="30s")
        events += target.take(START + 11)
        for name in cleared:
            command(target, 11, clear=name)
        return [event.what for event in (*events, *target.take(START + 60))]

    undisturbed = events_of()
    assert len([what for what in undisturbed if isinstance(what, Change)]) >= 2
    if other == kind:
        assert events_of(other) != undisturbed
    else:
        assert events_of(other) == undisturbed


def test_clearing_flapping_ends_it_and_the_stuck_value_stays() -> None:
    target = fleet()
    command(target, 0, fault="stuck", field="co2")
    command(target, 0, fault="flapping", for_="1h")
    list(target.take(START + 12))
    command(target, 12, clear="flapping")
    later = list(target.take(START + 60))
    assert changes(later) in ([], [Change.JOIN])
    assert len({state["co2"] for state in states(later)}) == 1


def test_clearing_flapping_does_not_bring_a_crashed_device_back() -> None:
    target = fleet()
    command(target, 0, fault="flapping", for_="1h")
    list(target.take(START + 2))
    command(target, 2, fault="crash", for_="30s")
    list(target.take(START + 3))
    command(target, 3, clear="flapping")
    assert changes(list(target.take(START + 31))) == []
    assert changes(list(target.take(START + 60))) == [Change.JOIN]


@pytest.mark.parametrize("kind", LINK_KINDS)
@pytest.mark.parametrize("every", [0.1, 0.7, 1.3, 3.3])
def test_a_schedule_of_fractions_of_a_second_goes_on(kind: str, every: float) -> None:
    # 1.77e9 + 3 * 1.3, less 1.77e9, over 1.3 is less than 3: the third occurrence would come for ever.
    target = fleet({"kind": kind, "every": every, "for": 0.1})
    events = list(itertools.islice(target.take(START + 30), 5000))
    assert len(events) < 5000
    assert changes(events)
    assert target.next_time > START + 30


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ({"interval": 1e-9}, "interval"),
        ({"interval": 1e-5}, "interval"),
        ({"fault": "flapping", "size": 1e-12}, "at least 0.1 seconds"),
        ({"fault": "clock-skew", "size": -1e300}, "size is from"),
        ({"fault": "gremlins"}, "unknown fault 'gremlins'"),
        ({"fault": "stuck", "for": "soon"}, "must be such as"),
        ({"fault": "stuck", "probability": 2}, "probability"),
        ({"field": "co2"}, "unknown fault None"),
        ({"clear": "gremlins"}, "clear takes"),
        ({"fault": "spike", "size": "big"}, "size is a number"),
    ],
)
def test_a_bad_fault_by_command_changes_nothing(what: dict[str, Any], text: str, caplog: Any) -> None:
    target = fleet()
    assert target.command("sensors/a/cmd", json.dumps(what).encode(), START + 1) == []
    assert text in caplog.text
    assert states(list(target.take(START + 60))) == HEALTHY


def test_every_kind_of_fault_can_be_described_and_runs() -> None:
    for kind in FaultKind:
        assert run(60, {"kind": kind.value, "after": 5, "for": 10}) is not None


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"kind": "stuck", "often": 1}, "unknown 'often'"),
        ({"kind": "stuck", "every": 0}, "every is at least 0.1 seconds"),
        ({"kind": "reboot", "every": 1e-9}, "every is at least 0.1 seconds"),
        ({"kind": "flapping", "size": 1e-9}, "at least 0.1 seconds"),
        ({"kind": "flapping", "size": -5}, "at least 0.1 seconds"),
        ({"kind": "clock-skew", "size": 1e300}, "size is from -1e+09 to 1e+09"),
        ({"kind": "stuck", "every": 5, "probability": 0.1}, "exclude"),
        ({"kind": "stuck", "field": 3}, "field is a text"),
        ({}, "unknown fault None"),
    ],
)
def test_a_wrong_description_says_what_is_wrong(fault: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="fault") as raised:
        FaultSpec.parse(fault)
    assert text in str(raised.value)


def test_a_sleeper_joins_for_each_reading_and_says_that_it_sleeps() -> None:
    target = Fleet(FleetSpec((DeviceSpec("a", "thermometer", "A"),)), 7, START, interval=60)
    events = list(target.take(START + 70))
    what = [event.what.topic if isinstance(event.what, Message) else event.what for event in events]
    assert what == [Change.JOIN, "sensors/a/state", "sensors/a/status", Change.LEAVE] * 2
    assert isinstance(events[2].what, Message)
    assert events[2].what.payload == b"sleeping"


def test_a_sleeper_that_reads_often_stays_awake() -> None:
    target = Fleet(FleetSpec((DeviceSpec("a", "thermometer", "A"),)), 7, START, interval=1)
    assert changes(list(target.take(START + 10))) == []


def test_commands_leave_a_device_with_so_many_faults_and_no_more() -> None:
    target = fleet()
    command(target, 0, fault="duplicate")
    for _ in range(MAX_FAULTS):
        command(target, 0, fault="noise")
    assert target.devices["a"].faults.names == ["noise"] * MAX_FAULTS


NUMBERS = st.floats() | st.integers(-(10**20), 10**20) | st.sampled_from([0, 0.1, 1e-9, 1e9, -1e9, 0.7, 60])
COMMANDS = st.fixed_dictionaries(
    {"fault": st.sampled_from([kind.value for kind in FaultKind])},
    optional={
        "field": st.sampled_from(["temperature", "power", "voltage", "humidity", "motion", "rssi", "nothing"]),
        "size": NUMBERS,
        "after": NUMBERS,
        "every": NUMBERS,
        "for": NUMBERS,
        "probability": st.floats(0, 1),
        "clear": st.sampled_from([True, "crash", "stuck"]),
    },
) | st.fixed_dictionaries({"interval": NUMBERS}, optional={"reboot": st.just(True)})


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(st.sampled_from(list(DIALECTS)), st.lists(st.tuples(st.sampled_from("abcd"), COMMANDS), max_size=6))
def test_no_command_stops_or_starves_a_fleet(dialect: str, commands: list[tuple[str, dict[str, Any]]]) -> None:
    kinds = {"a": "climate", "b": "plug", "c": "thermometer", "d": "motion", "untouched": "climate"}
    specs = tuple(DeviceSpec(name, kind, name) for name, kind in kinds.items())
    target = Fleet(FleetSpec(specs), 7, START, interval=1, dialect=dialect)
    for name, what in commands:
        target.command(f"sensors/{name}/cmd", json.dumps(what).encode(), START)
    for count, event in enumerate(target.take(START + 5)):
        assert count < 5 * 5 * 1000 * 12, "a reading a millisecond, each with a message for each field"
        assert event.device.id in kinds
    assert target.devices["untouched"].seq == 5
