"""What a message costs, in work of the interpreter that runs beside it: what else the machine does changes little."""

import itertools
import json
import time
from collections.abc import Callable

import pytest

from sensors_sim.address import BrokerAddress
from sensors_sim.fleet import SEEDED_START, Fleet, counted_fleet
from sensors_sim.messages import Message
from sensors_sim.runner import Runner
from tests.conftest import Yardstick
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually


@pytest.mark.timing
@pytest.mark.slow
@pytest.mark.parametrize(("qos", "per_second"), [(0, 10_000), (1, 5_000)])
def test_a_core_publishes_what_the_documentation_says(
    make_mosquitto: Callable[..., Broker], yardstick: Yardstick, qos: int, per_second: int
) -> None:
    broker = make_mosquitto(kind="process")
    fleet = Fleet(counted_fleet(200), 7, SEEDED_START, interval=0.05)
    fleet.prepare()
    runner = Runner(fleet, BrokerAddress.parse(broker.url), shared_clients=4, qos=qos)
    links = runner.links
    for link in runner._devices_of:
        links.open(link)

    def turned(condition: Callable[[], bool]) -> bool:
        links.turn(0.001)
        return condition()

    eventually(lambda: turned(lambda: links.up == 4), 10, "four clients up")
    turns = itertools.count(1)

    def message() -> float:
        begun, start = links.counters.published, time.process_time()
        for number, event in enumerate(fleet.take(SEEDED_START + next(turns) * 0.5)):
            assert isinstance(event.what, Message)
            links.publish(runner._link_of[event.device], event.what._replace(qos=qos))
            if number % 50 == 0:
                links.turn(0)
        eventually(lambda: turned(lambda: not any(link.backlog for link in runner._devices_of)), 30, "all confirmed")
        return (time.process_time() - start) / (links.counters.published - begun)

    # where the documentation was measured the yardstick takes 12 µs
    assert yardstick(message) < 1e6 / per_second / 12
    runner.close()


@pytest.mark.slow
def test_a_busy_fleet_on_shared_clients_loses_nothing(make_mosquitto: Callable[[], Broker]) -> None:
    broker = make_mosquitto()
    fleet = Fleet(counted_fleet(200), 7, SEEDED_START, interval=0.1)
    runner = Runner(fleet, BrokerAddress.parse(broker.url), shared_clients=4)

    def published() -> int:
        return sum(device.seq for device in fleet.devices.values())

    with Publisher(broker.url) as listener:
        listener.subscribe("sensors/+/state")
        runner.run(60.0, lambda running: running.stop() if published() >= 200 * 25 else None)
        expected = published()
        assert expected >= 200 * 25
        eventually(lambda: len(listener.received) == expected, 30, f"{expected} messages")
    numbers: dict[str, list[int]] = {}
    for topic, payload in listener.received:
        numbers.setdefault(topic, []).append(json.loads(payload)["seq"])
    assert all(seen == list(range(len(seen))) for seen in numbers.values())
    assert runner.links.counters.dropped == 0
