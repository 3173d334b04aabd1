"""Messages that are too old are gone, whether others arrive or not."""

from __future__ import annotations

import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.publishers import Publisher
from tests.support.waiting import eventually


@pytest.mark.slow
def test_an_idle_gateway_serves_no_message_that_is_too_old_except_last_values(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], history_age="3s")
    publisher.publish_all([(f"{prefix}/a", b"%d" % number) for number in range(20)], qos=1)
    eventually(lambda: gateway.json(f"/topics/{prefix}/a")["messages"][0]["payload"] == 19, what="all of them")
    eventually(lambda: gateway.metrics()["gateway_history_messages"] == 1, what="the last value is all that is left")
    answer = gateway.json(f"/topics/{prefix}/%23?since=1h")
    assert [message["payload"] for message in answer["messages"]] == [19]
    assert answer["recovered"] is False
