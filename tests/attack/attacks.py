"""The table of hostile clients: what each does for a few seconds while a neighbour measures.

To add one, write a function that takes a `Target` and decorate it. It opens sockets, which stay open until all has been
measured, and sends; bounds that are wider than the usual ones need a reason in its docstring.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from tests.support.faults import client_frame, upgrade

from .target import MIB, Target, command


@dataclass(frozen=True)
class Attack:
    """One hostile client.

    Attributes:
        run: what it does.
        max_memory: so much more the gateway may hold meanwhile, in bytes.
        max_open: so many of its sockets may still be open after the time for a handshake; None: it may stay.
        stage: which gateway it attacks (`stages`).
    """

    run: Callable[[Target], None]
    max_memory: int
    max_open: int | None
    stage: str

    @property
    def name(self) -> str:
        return self.run.__name__


ATTACKS: list[Attack] = []


def attack(
    max_memory: int = 64 * MIB, max_open: int | None = None, stage: str = "usual"
) -> Callable[[Callable[[Target], None]], None]:
    """Adds a function to the table."""

    def add(run: Callable[[Target], None]) -> None:
        ATTACKS.append(Attack(run, max_memory, max_open, stage))

    return add


def _handshakes(target: Target, more: bytes) -> None:
    for _ in range(60):
        with contextlib.suppress(OSError):
            target.connect(upgrade("/ws", "localhost")[:-2] + more)


@attack(max_open=0)
def handshake_with_a_body(target: Target) -> None:
    """One parser takes the request, the other one does not."""
    _handshakes(target, b"Content-Length: 1\r\n\r\n")


@attack(max_open=0)
def handshake_in_chunks(target: Target) -> None:
    _handshakes(target, b"Transfer-Encoding: chunked\r\n\r\n")


@attack(max_open=0)
def handshake_with_a_long_line(target: Target) -> None:
    _handshakes(target, b"X-Long: " + b"x" * 9_000 + b"\r\n\r\n")


@attack(max_open=0)
def handshake_with_many_headers(target: Target) -> None:
    _handshakes(target, b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\n")


@attack(max_open=0)
def no_request_at_all(target: Target) -> None:
    for _ in range(60):
        with contextlib.suppress(OSError):
            target.connect(b"GET /ws HT")


@attack()
def answers_that_quote_much_and_are_not_read(target: Target) -> None:
    target.push(target.websockets(30), command("subscribe", topics=["x"], mode="\x7f" * (300 * 1024)))


@attack()
def ids_that_are_long_and_answers_that_are_not_read(target: Target) -> None:
    target.push(target.websockets(30), command("subscribe", topics=["x"], id="\x7f" * (300 * 1024)))


@attack()
def pings_from_one(target: Target) -> None:
    target.flood(target.websockets(1), client_frame(9, b"") * 10_000)


@attack()
def pings_from_four_that_read_nothing(target: Target) -> None:
    target.flood(target.websockets(4, has_token=False), client_frame(9, b"x" * 125) * 2_000)


@attack()
def pongs_from_four(target: Target) -> None:
    target.flood(target.websockets(4), client_frame(10, b"") * 10_000)


@attack()
def commands_from_eight(target: Target) -> None:
    target.flood(target.websockets(8), command("ping") * 1_000)


@attack()
def garbage_for_commands(target: Target) -> None:
    target.flood(target.websockets(8), client_frame(1, b"[" * 60_000) * 4)


@attack()
def one_topic_named_190000_times(target: Target) -> None:
    target.push(target.websockets(15), command("subscribe", topics=["a"] * 190_000))


@attack()
def topics_of_100000_names(target: Target) -> None:
    names = [f"{number}/" for number in range(100_000)]
    target.push(target.websockets(15), command("unsubscribe", topics=names))


@attack()
def messages_that_are_never_finished(target: Target) -> None:
    """Without a token: 60 times 2 MiB less a byte."""
    frame = client_frame(1, b"x" * (2 * MIB - 64))
    target.push(target.websockets(60, has_token=False), frame[:-1])


@attack()
def messages_that_are_never_finished_with_a_token(target: Target) -> None:
    """An address has 16 MiB for what is unfinished, whatever is granted to it."""
    frame = client_frame(1, b"x" * (2 * MIB - 64))
    target.push(target.websockets(40), frame[:-1])


@attack()
def fragments_without_end(target: Target) -> None:
    sockets = target.websockets(4, has_token=False)
    target.push(sockets, client_frame(1, b"", fin=False))
    target.flood(sockets, client_frame(0, b"", fin=False) * 10_000)


@attack()
def filters_that_come_and_go(target: Target) -> None:
    """A command makes or removes 7,000 nodes of the trie in one step."""
    topics = [f"{number}/" + "+/" * 70 + "#" for number in range(100)]
    pair = command("subscribe", topics=topics, since="now") + command("unsubscribe", topics=topics)
    target.flood(target.websockets(8), pair * 10)


@attack()
def bodies_a_byte_at_a_time(target: Target) -> None:
    sockets = []
    for _ in range(30):
        head = f"POST /topics/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.token}\r\n"
        sockets.append(target.connect(head.encode() + b"Content-Length: 1000000\r\n\r\n"))
        sockets[-1].setblocking(False)
    target.flood(sockets, b"x")


@attack()
def chunks_of_a_byte(target: Target) -> None:
    sockets = []
    for _ in range(8):
        head = f"POST /topics/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.token}\r\n"
        sockets.append(target.connect(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n"))
        sockets[-1].setblocking(False)
    target.flood(sockets, b"1\r\nx\r\n" * 20_000)


@attack()
def bodies_that_are_left_in_the_middle(target: Target) -> None:
    for _ in range(200):
        head = f"POST /topics/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.token}\r\n"
        with contextlib.suppress(OSError):
            target.connect(head.encode() + b"Content-Length: 1000\r\n\r\nx").close()


@attack()
def requests_in_a_row(target: Target) -> None:
    sockets = [target.connect() for _ in range(8)]
    for sock in sockets:
        sock.setblocking(False)
    target.flood(sockets, b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000)


@attack()
def requests_that_are_none(target: Target) -> None:
    for _ in target.rounds():
        with contextlib.suppress(OSError):
            target.connect(b"\x00\x01\x02 nonsense\r\n\r\n").close()


@attack()
def pings_to_a_broker_that_nobody_reads(target: Target) -> None:
    """`/mqtt` answers pings of the WebSocket itself."""
    sockets = [target.websocket("/mqtt", headers=b"Sec-WebSocket-Protocol: mqtt\r\n") for _ in range(4)]
    target.flood(sockets, client_frame(9, b"x" * 125) * 2_000)


@attack()
def publishes_that_are_large(target: Target) -> None:
    """Memory: history keeps what is published; and the neighbour's messages stand behind these in the broker's line."""
    frame = command("publish", topic="a", payload="x" * 200_000)
    target.flood(target.websockets(8), frame)


LARGE = json.dumps({f"n{number}": number for number in range(60_000)})
"""0.9 MB with 60,000 numbers."""


def _shapes(target: Target, shapes: list[dict[str, object]]) -> None:
    """As many connections as shapes, and large messages that all of them want."""
    for shape in shapes:
        target.websocket(f"/ws?{urlencode({'topic': 'large', 'since': 'now', **shape})}")
    publisher = target.websocket("/ws")
    for number in range(3):
        target.push([publisher], command("publish", topic="large", payload=LARGE.replace("0", str(number), 1)))


@attack()
def means_of_a_large_message(target: Target) -> None:
    """Worked out once for each of 60 groups, each message took half a minute and a gigabyte."""
    _shapes(target, [{"mode": "mean", "max_hz": 1 + number / 100} for number in range(60)])


@attack(max_memory=96 * MIB)
def shapes_of_a_large_message(target: Target) -> None:
    """60 shapes of every kind; 32 MiB more for answers that are large and not read, a few to a socket."""
    kinds: list[Callable[[float], dict[str, object]]] = [
        lambda hz: {"mode": "minmax", "max_hz": hz},
        lambda hz: {"mode": "mean", "max_hz": hz, "deadband": 0.5},
        lambda hz: {"deadband": hz},
        lambda hz: {"where": f"n1 > {hz - 10}"},
        lambda hz: {"fields": ",".join(f"n{int(hz * 100)}{number}" for number in range(40))},
        lambda hz: {"max_hz": hz},
    ]
    _shapes(target, [kinds[number % 6](1 + number / 100) for number in range(60)])


@attack()
def shapes_of_small_messages(target: Target) -> None:
    """A few hundred messages a second, and 90 shapes that each look into them."""
    for number in range(90):
        shape = {"topic": "small", "since": "now", "mode": "minmax", "max_hz": 100 + number, "deadband": 0.1}
        target.websocket(f"/ws?{urlencode(shape)}")
    frame = command("publish", topic="small", payload={f"n{number}": number for number in range(100)})
    target.flood(target.websockets(8), frame)


def _requests(target: Target, path: str, count: int) -> None:
    """Requests whose answers nobody reads."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nAuthorization: Bearer {target.token}"
    for _ in range(count):
        with contextlib.suppress(OSError):
            target.connect(f"{head}\r\n\r\n".encode())
    for _ in target.rounds():
        pass


@attack(stage="full")
def lists_of_topics_that_nobody_reads(target: Target) -> None:
    _requests(target, "/topics?limit=10000", 150)


@attack(stage="full")
def last_values_that_nobody_reads(target: Target) -> None:
    _requests(target, "/topics/many/%23?limit=10000", 150)


@attack(max_memory=80 * MIB, stage="full")
def pages_of_history_that_nobody_reads(target: Target) -> None:
    """Each of 8 MiB; two more of them where the first ones that a gateway ever made are these."""
    _requests(target, "/topics/large/%23?since=1h&limit=10000", 150)


@attack(max_memory=128 * MIB, stage="full")
def charts_that_nobody_reads(target: Target) -> None:
    """Each of 8 MiB; 32 MiB more where an answer is made of its parts, in four places at a time."""
    _requests(target, "/topics/many/%23?since=1h&points=5000&format=columns&limit=1000", 150)


@attack(stage="full")
def downloads_that_nobody_reads(target: Target) -> None:
    _requests(target, "/topics/%23?since=1h&format=csv&fields=x", 150)


@attack(stage="full")
def requests_that_are_long_and_leave(target: Target) -> None:
    for _ in target.rounds():
        with contextlib.suppress(OSError):
            head = (
                f"GET /topics?limit=10000 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.token}\r\n\r\n"
            )
            target.connect(head.encode()).close()


@attack(stage="full")
def explanations_of_wildcards(target: Target) -> None:
    """126 levels of `+`."""
    _requests(target, "/explain?topic=" + "%2B/" * 125 + "%2B", 150)


@attack(stage="full")
def badges_that_look_far_back(target: Target) -> None:
    _requests(target, "/topics/%23?since=1h&format=svg&where=nothing==1", 150)


@attack(stage="full")
def replays_of_everything(target: Target) -> None:
    """With shapes of their own, so that each is worked out for itself, and read."""
    sockets = [
        target.websocket(f"/ws?{urlencode({'topic': '#', 'since': '1h', 'deadband': 1 + number})}")
        for number in range(100)
    ]
    for _ in target.rounds():
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.recv(65_536)


@attack(stage="encrypted", max_open=0)
def handshakes_of_tls_that_are_begun(target: Target) -> None:
    """Each makes the gateway sign, and goes no further."""
    hello = _client_hello()
    for _ in target.rounds():
        with contextlib.suppress(OSError):
            target.connect(hello)


@attack(stage="encrypted")
def handshakes_of_tls_that_leave(target: Target) -> None:
    hello = _client_hello()
    for _ in target.rounds():
        with contextlib.suppress(OSError):
            target.connect(hello).close()


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()
