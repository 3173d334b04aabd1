"""Alerts about devices that are offline, by each device's own rule."""

from __future__ import annotations

from typing import Any

from gateway.alerts.absences import AT_ONCE
from gateway.alerts.machine import State
from gateway.settings.alerting import AlertSettings
from tests.test_alerts import World, rule_of

PLACE = "home/attic/state"


def about_devices(**settings: Any) -> AlertSettings:
    return rule_of(**{"offline": True, "topics": ["home/#"], **settings})


def announce(world: World, name: str = "attic", **members: Any) -> None:
    said = {
        "name": "Temperature",
        "uniq_id": name,
        "stat_t": f"home/{name}/state",
        "val_tpl": "{{ value_json.temp }}",
        "avty_t": f"home/{name}/lwt",
        "dev": {"ids": name, "name": name.title()},
        **members,
    }
    world.say(f"homeassistant/sensor/{name}/config", said, retained=True)


def test_a_device_that_says_goodbye_fires_until_it_is_back() -> None:
    world = World(about_devices())
    announce(world)
    world.say("home/attic/lwt", b"online", retained=True)
    world.wait(2)
    assert world.states() == {}
    world.say("home/attic/lwt", b"offline", retained=True)
    world.wait(2)
    assert world.states() == {PLACE: "firing"}
    assert world.report()["summary"] == "Attic is offline (home/attic/state)"
    assert world.report()["reason"] == "offline"
    world.say("home/attic/lwt", b"online", retained=True)
    world.wait(2)
    assert [notice.change.after for notice in world.notices] == [State.FIRING, State.OK]


def test_it_may_be_away_for_a_while() -> None:
    world = World(about_devices(**{"for": "60s"}, summary="{value} is away for {for}"))
    announce(world)
    world.say("home/attic/lwt", b"offline", retained=True)
    world.wait(50)
    assert world.states() == {PLACE: "pending"}
    world.wait(15)
    assert world.report()["summary"] == "Attic is away for 1m"


def test_who_only_fell_silent_is_away_by_its_own_rule() -> None:
    world = World(about_devices())
    announce(world, exp_aft=30, avty_t=None)
    world.say(PLACE, {"temp": 1})
    world.wait(25)
    assert world.states() == {}
    world.wait(8)
    assert world.states() == {PLACE: "firing"}
    world.say(PLACE, {"temp": 2})
    world.wait(12)
    assert world.states() == {}


def test_while_the_broker_is_away_no_device_is_and_a_silence_begins_anew_when_it_is_back() -> None:
    world = World(about_devices())
    announce(world, exp_aft=30, avty_t=None)
    world.say(PLACE, {"temp": 1})
    world.wait(20)
    world.wait(300, connected=False)
    assert world.states() == {}
    world.wait(25)
    assert world.states() == {}
    world.wait(8)
    assert world.states() == {PLACE: "firing"}


def test_a_device_that_nothing_announces_any_more_is_forgotten() -> None:
    world = World(about_devices())
    announce(world)
    world.say("home/attic/lwt", b"offline", retained=True)
    world.wait(2)
    assert world.states() == {PLACE: "firing"}
    world.say("homeassistant/sensor/attic/config", b"", retained=True)
    world.wait(2)
    assert world.states() == {}


def test_an_alert_is_about_the_devices_that_it_names() -> None:
    world = World(about_devices(topics=["home/cellar/#"]), about_devices(name="all", topics=["#"]))
    for name in ("attic", "cellar"):
        announce(world, name)
        world.say(f"home/{name}/lwt", b"offline", retained=True)
    world.wait(2)
    assert world.states() == {"home/cellar/state": "firing"}
    assert set(world.states("all")) == {PLACE, "home/cellar/state"}


def test_a_restart_goes_on_where_it_was_and_tells_only_what_is_new() -> None:
    before = World(about_devices())
    for name in ("attic", "cellar", "gone"):
        announce(before, name)
        before.say(f"home/{name}/lwt", b"offline", retained=True)
    before.wait(2)
    report = before.report()
    assert report["firing"] == 3
    world = World(about_devices(), settled=False)
    world.say("gateway/alerts/hot", report, retained=True)
    for name, word in (("attic", b"offline"), ("cellar", b"online")):
        announce(world, name)
        world.say(f"home/{name}/lwt", word, retained=True)
    world.wait(2)
    world.alerts.settle()
    world.wait(2)
    assert world.states() == {PLACE: "firing"}
    assert world.report()["since"] == report["since"]
    told = [(notice.change.topic, notice.change.after) for notice in world.notices]
    assert told == [("home/cellar/state", State.OK), ("home/gone/state", State.OK)]
    # an empty message to its topic begins it anew
    world.say("gateway/alerts/hot", b"", retained=True)
    world.wait(2)
    assert world.states() == {PLACE: "firing"}


def test_a_fleet_is_looked_at_in_steps() -> None:
    world = World(about_devices())
    for number in range(3 * AT_ONCE):
        announce(world, f"d{number}")
        world.say(f"home/d{number}/lwt", b"offline", retained=True)
    for _ in world.registry.work():
        pass
    world.alerts.tick(True)
    assert world.report()["firing"] == AT_ONCE
    assert world.alerts.wait_seconds() == 0
    world.wait(3)
    assert world.report()["firing"] == 3 * AT_ONCE
    assert world.alerts.wait_seconds() > 0
