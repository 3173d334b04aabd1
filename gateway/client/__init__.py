"""A client of the gateway for programs in Python: messages as they come, and answers to questions.

    async for message in connect("http://127.0.0.1:8000", topics=["sensors/#"]):
        print(message.topic, message.payload)

The words and rules are those of the library for browsers (web/client), those of a connection in `live`, of questions in
`questions`.
"""

from gateway.client.connection import ClientError, Event, LostError, Message, RefusedError
from gateway.client.live import Live, connect
from gateway.client.questions import Chart, History, alerts, devices, history, last, publish

__all__ = [
    "Chart",
    "ClientError",
    "Event",
    "History",
    "Live",
    "LostError",
    "Message",
    "RefusedError",
    "alerts",
    "connect",
    "devices",
    "history",
    "last",
    "publish",
]
