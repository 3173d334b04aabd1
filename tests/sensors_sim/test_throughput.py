"""What a message costs, in work of the interpreter that runs beside it: what else the machine does changes little."""

import itertools
import json
import time
from collections.abc import Callable

from sensors_sim.fleet import SEEDED_START, Fleet, counted_fleet
from sensors_sim.messages import Message
from sensors_sim.mqtt import BrokerAddress
from sensors_sim.packets import Session
from sensors_sim.runner import Runner
from tests.conftest import Yardstick
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually


def test_twenty_thousand_messages_a_second_leave_a_core_to_spare(yardstick: Yardstick) -> None:
    """Model, payload, packet and acknowledgement, all but the sockets: at 20,000/s a message may take 50 µs.

    That is where the yardstick takes 12 µs.
    """
    fleet = Fleet(counted_fleet(200), 7, SEEDED_START, interval=0.05)
    fleet.world.prepare()
    session = Session(lambda _code: None, lambda _delivery: None)
    list(fleet.take(SEEDED_START + 0.2))
    turns = itertools.count(1)

    def message() -> float:
        count = 0
        start = time.process_time()
        for event in fleet.take(SEEDED_START + 0.2 + next(turns) * 0.5):
            assert isinstance(event.what, Message)
            session.publish(event.what)
            count += 1
            if len(session.out) == 100:
                data = b"".join(session.out)
                session.out.clear()
                acknowledgements = b"".join(b"\x40\x02%c%c" % divmod(packet, 256) for packet in session.unacknowledged)
                session.feed(acknowledgements)
                assert data
        assert count == 2000
        return (time.process_time() - start) / count

    assert yardstick(message) < 50 / 12


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
