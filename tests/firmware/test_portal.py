"""The board's own access point: what its page takes, what it refuses, and the way from a lost network to a reading.

The radio is a stand-in; the page's socket, the requests and MicroPython are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import files
from firmware.board import names, portal, settings
from firmware.board.wifi import Wifi
from tests.firmware.boards import DEEP_SLEEP, RESET, Board
from tests.firmware.observers import Observer
from tests.firmware.test_over_the_air import mains
from tests.firmware.tunnels import Tunnel
from tests.support.brokers import Broker
from tests.support.waiting import eventually, eventually_async, free_port

MakeBoard = Callable[..., Board]
Observe = Callable[..., Observer]
HOST = "192.168.4.1"
TOKEN = "T" * 16  # stands for the page's own
FORM = "application/x-www-form-urlencoded"


def post(body: str, *headers: str, length: int | None = None, host: str = HOST, kind: str = FORM) -> bytes:
    lines = ["POST / HTTP/1.1", f"Host: {host}", f"Content-Type: {kind}"]
    lines += [f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", body]).encode()


def get(target: str = "/", *headers: str, host: str = HOST) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()


# -- pure


@given(st.dictionaries(st.sampled_from(portal.FIELDS), st.text(max_size=60)))
def test_every_form_is_read_as_browsers_write_it(form: dict[str, str]) -> None:
    assert portal.form_of(urllib.parse.urlencode(form).encode()) == form


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    for whole in (data, data + b"\r\n\r\n"):
        with contextlib.suppress(portal.RequestError):
            found = portal.head_of(whole)
            if found is not None:
                portal.body_bytes(found[0], found[2], HOST)
    with contextlib.suppress(portal.RequestError):
        portal.form_of(data)


def tags(text: str) -> list[str]:
    """The markup of the page whose every text is this one."""
    present = {"wifi": {"ssid": text}, "wifi2": {"ssid": text}, "mqtt": {"url": text}}
    page = b"".join(portal.form_page(text, "0" * 16, [text], present)).decode()
    return [re.sub(r' placeholder="[^"]*"', "", tag) for tag in re.findall(r"<[^>]*>", page)]


@given(st.text(max_size=80))
def test_no_text_of_others_is_markup(text: str) -> None:
    assert tags(text) == tags("x")


PRESENT = {"wifi": {"ssid": "home", "static": ["a"]}, "wifi2": None, "mqtt": {"url": "mqtt://h", "username": "u"}}


@pytest.mark.parametrize(
    ("form", "change"),
    [
        ({"ssid": "b"}, {"wifi": {"ssid": "b", "password": None, "static": None}}),
        ({"ssid": "home", "password": "12345678"}, {"wifi": {"ssid": "home", "password": "12345678"}}),
        ({"ssid2": "c", "password2": "x"}, {"wifi2": {"ssid": "c", "password": "x", "static": None}}),
        ({"url": " 10.0.0.1 "}, {"mqtt": {"url": "mqtt://10.0.0.1", "username": None, "password": None}}),
        (
            {"url": "mqtts://h", "username": "u", "broker_password": "p"},
            {"mqtt": {"url": "mqtts://h", "username": "u", "password": "p"}},
        ),
    ],
)
def test_what_was_filled_in_changes_and_nothing_else(form: dict[str, str], change: dict[str, Any]) -> None:
    assert portal.change_of({"token": "t", "ssid": "", **form}, PRESENT) == change


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({}, "nothing was filled in"),
        ({"password": "12345678"}, "without the name of its network"),
        ({"password2": "12345678"}, "without the name of its network"),
        ({"username": "u"}, "without a broker"),
    ],
)
def test_a_form_with_half_of_something_is_refused(form: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        portal.change_of(form, PRESENT)


def test_the_password_is_the_keys_and_no_other_boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = {"ap_password": None, "update_key": "ab" * 32}
    mine = portal.password_of(base, "kitchen")
    assert re.fullmatch("[a-z2-9]{12}", mine)
    assert mine == portal.password_from("ab" * 32, "kitchen")
    assert len({mine, portal.password_of(base, "attic"), portal.password_from("ac" * 32, "kitchen")}) == 3
    assert portal.password_of({**base, "ap_password": ""}, "kitchen") == ""
    assert portal.password_of({**base, "ap_password": "my own one"}, "kitchen") == "my own one"
    kept = portal.password_of({"ap_password": None, "update_key": None}, "kitchen")
    assert (
        kept == portal.password_of({"ap_password": None, "update_key": None}, "kitchen") == Path("ap.txt").read_text()
    )
    Path("ap.txt").write_text("cut")
    assert portal.password_of({"ap_password": None, "update_key": None}, "kitchen") not in (kept, "cut")
    assert settings.check({"mqtt": {"url": "mqtt://h"}, "ap_password": kept}) == []


@pytest.mark.parametrize("secret", ["short", "x" * 64, 5, "é" * 32])
def test_a_password_that_no_access_point_takes_is_refused(secret: Any) -> None:
    (problem,) = settings.check({"mqtt": {"url": "mqtt://h"}, "ap_password": secret})
    assert problem.startswith("ap_password: expected")
    assert str(secret) not in problem


def test_a_long_name_fits_into_the_air() -> None:
    assert portal.name_of("kitchen") == "sensor-kitchen"
    assert len(portal.name_of("x" * 64)) == 32


# -- names

QUESTION = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01"  # of dig: with RD and AD, and one more record, of EDNS
EDNS = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
NAME = b"\x07captive\x05apple\x03com\0"
ADDRESS = bytes((192, 168, 4, 1))
A_RECORD = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04" + ADDRESS  # RFC 1035 §4.1.3; for 0 seconds


def test_every_name_is_the_board() -> None:
    said = names.answer(QUESTION + NAME + b"\0\x01\0\x01" + EDNS, ADDRESS)
    assert said == b"\x12\x34\x85\0\0\x01\0\x01\0\0\0\0" + NAME + b"\0\x01\0\x01" + A_RECORD


def test_no_name_has_an_address_of_ipv6() -> None:
    said = names.answer(QUESTION + NAME + b"\0\x1c\0\x01", ADDRESS)
    assert said == b"\x12\x34\x85\0\0\x01\0\0\0\0\0\0" + NAME + b"\0\x1c\0\x01"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        QUESTION,
        QUESTION + NAME,
        QUESTION + NAME + b"\0\x01\0",
        QUESTION + NAME + b"\0\x01\0\x03",  # of the class CHAOS
        QUESTION + b"\xc0\x0c\0\x01\0\x01",  # a pointer to itself
        QUESTION + b"\x40" + b"x" * 64 + b"\0\0\x01\0\x01",
        b"\x12\x34\x81" + QUESTION[3:] + NAME + b"\0\x01\0\x01",  # an answer: two boards would talk for ever
        b"\x12\x34\x29" + QUESTION[3:] + NAME + b"\0\x01\0\x01",  # an update, RFC 2136
        QUESTION[:5] + b"\x02" + QUESTION[6:] + NAME + b"\0\x01\0\x01",
    ],
)
def test_what_is_no_question_for_one_name_has_no_answer(data: bytes) -> None:
    assert names.answer(data, ADDRESS) is None


@given(st.binary(max_size=40) | st.binary(max_size=30).map(lambda more: QUESTION + more))
def test_an_answer_is_never_much_longer_than_the_question(data: bytes) -> None:
    said = names.answer(data, ADDRESS)
    assert said is None or len(said) <= len(data) + 16


# -- the page on a socket


class Point:
    """An access point on loopback."""

    def __init__(self) -> None:
        self.on = False
        self.used = False
        self.told: dict[str, Any] = {}

    def active(self, on: bool) -> None:
        self.on = on

    def config(self, **told: Any) -> None:
        assert self.on
        self.told = told

    def isconnected(self) -> bool:
        return self.used

    def ifconfig(self) -> tuple[str, ...]:
        return ("127.0.0.1",)


class Radio:
    """A station that joins when the network is there."""

    def __init__(self) -> None:
        self.there = False
        self.tried = 0
        self.left = 0
        self.on = False

    def active(self, on: bool | None = None) -> bool:
        self.on = self.on if on is None else on
        return self.on

    def disconnect(self) -> None:
        self.left += 1

    def connect(self, ssid: str, password: str | None) -> None:
        self.tried += 1

    def isconnected(self) -> bool:
        return self.there and self.tried > 0

    def status(self) -> int:
        return 201

    def ifconfig(self) -> tuple[str, ...]:
        return ("192.0.2.7",)


class Served:
    """A portal that runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port = free_port()
        monkeypatch.setattr(portal, "PORT", self.port)
        monkeypatch.setattr(names, "PORT", self.port)
        # a machine that has other work to do is slower than a phone
        monkeypatch.setattr(portal, "_REQUEST_MS", 30_000)
        self.point, self.radio = Point(), Radio()
        self.wifi = Wifi(self.radio, "home", "", 0.05)
        self.proposed: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.portal = portal.Portal(
            self.point,
            self.wifi,
            "sensor-a",
            "12345678",
            self.propose,
            PRESENT,
            self.said.append,
            ["<wrong & old>"],
            "Kitchen <1>",
            lambda: None,
        )

    def propose(self, change: dict[str, Any]) -> None:
        if change.get("wifi", {}).get("ssid") == "bad":
            raise ValueError("wifi: <no good>")
        self.proposed.append(change)

    async def ask(self, data: bytes) -> bytes:
        """Everything that is answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answered = b""
        with contextlib.suppress(ConnectionError):
            answered = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return answered

    async def token(self) -> str:
        page = (await self.ask(get(host="127.0.0.1"))).decode()
        found = re.search(r'name="token" value="([0-9a-f]{16})"', page)
        assert found is not None, page
        return found[1]

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        task = asyncio.create_task(self.portal.run())
        while not self.said:
            await asyncio.sleep(0)
            if task.done():
                await task
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert not self.point.on


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    return Served(monkeypatch)


async def test_the_page_is_given_and_settings_are_taken(served: Served) -> None:
    async with served.running() as task:
        assert served.point.told == {"ssid": "sensor-a", "security": 3, "key": "12345678", "max_clients": 2}
        assert served.said == ["access point: sensor-a, password 12345678; then open http://127.0.0.1/"]
        page = (await served.ask(get(host="127.0.0.1"))).decode()
        assert page.startswith("HTTP/1.1 200 OK\r\n")
        assert "Kitchen &lt;1&gt;" in page
        assert "&lt;wrong &amp; old&gt;" in page
        assert 'placeholder="home"' in page
        token = await served.token()
        wrong = await served.ask(post(f"token={token}&ssid=bad", host="127.0.0.1"))
        assert b"wifi: &lt;no good&gt;" in wrong
        assert not task.done()
        good = await served.ask(post(f"token={token}&ssid=gar+den&password=correct%20pony", host="127.0.0.1"))
        assert b"restarts now" in good
        assert await task is True
    assert served.proposed == [{"wifi": {"ssid": "gar den", "password": "correct pony", "static": None}}]


async def test_a_phone_that_looks_for_the_internet_is_sent_to_the_page(served: Served) -> None:
    async with served.running():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            for data in (b"nonsense", QUESTION + NAME + b"\0\x01\0\x01"):
                asking.sendto(data, ("127.0.0.1", served.port))
            loop = asyncio.get_running_loop()
            said = await asyncio.wait_for(loop.sock_recv(asking, 512), 20)
        assert said.endswith(A_RECORD[:-4] + bytes((127, 0, 0, 1)))
        sent_on = (await served.ask(get("/generate_204", host="connectivitycheck.gstatic.example"))).decode()
        assert sent_on.startswith("HTTP/1.1 302 Found\r\n")
        assert "\r\nLocation: http://127.0.0.1/\r\n" in sent_on


async def test_without_a_port_for_names_the_page_is_there(served: Served) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", served.port))
        async with served.running():
            assert (await served.ask(get(host="127.0.0.1"))).startswith(b"HTTP/1.1 200")
            assert "access point: no names: " in served.said[-1]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get(host="connectivitycheck.gstatic.example"), 302),
        (post("ssid=a&token=", host="evil.example"), 421),
        (get(host="127.0.0.1:81"), 302),
        (b"GET / HTTP/1.1\r\n\r\n", 421),
        (get("/favicon.ico", host="127.0.0.1"), 404),
        (get("http://127.0.0.1/", host="127.0.0.1"), 404),
        (b"PUT / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 405),
        (b"OPTIONS / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 405),
        (b"GET / HTTP/2\r\nHost: 127.0.0.1\r\n\r\n", 505),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n", 400),
        (b"\xff\xfe / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 2048, 431),
        (post("ssid=a&token=", host="127.0.0.1"), 403),
        (post("ssid=a&token=0000000000000000", host="127.0.0.1"), 403),
        (post("ssid=%zz", host="127.0.0.1"), 400),
        (post("ssid=%ff", host="127.0.0.1"), 400),
        (post("{}", host="127.0.0.1", kind="application/json"), 415),
        (post("ssid=a", host="127.0.0.1", length=5000), 413),
        (post("ssid=a", host="127.0.0.1", length=2049), 413),
        (post("ssid=a", host="127.0.0.1", length=10**30), 413),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n\r\n" % FORM.encode(), 411),
        (post("ssid=a", "Transfer-Encoding: chunked", host="127.0.0.1"), 411),
        (post(f"ssid=a&token={TOKEN}", "Origin: http://evil.example", host="127.0.0.1"), 403),
        (post(f"ssid=a&token={TOKEN}", "Origin: null", host="127.0.0.1"), 403),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, int) else None,
)
async def test_what_a_page_of_others_or_a_broken_client_sends_changes_nothing(
    data: bytes, status: int, served: Served
) -> None:
    async with served.running():
        if TOKEN.encode() in data:  # even who has the page's secret
            data = data.replace(TOKEN.encode(), (await served.token()).encode())
        answered = await served.ask(data)
        assert answered.split(b" ")[1] == str(status).encode(), answered
        assert b"token" not in answered
        assert served.proposed == []
        assert (await served.ask(get(host="127.0.0.1"))).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
async def test_who_is_slow_holds_others_up_for_no_longer_than_the_limit(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal, "_REQUEST_MS", 3_000)
    async with served.running():
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        other = asyncio.create_task(served.ask(get(host="127.0.0.1")))
        dripped = 0
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof() and dripped < 1000:
                writer.write(b"GET / HTTP/1.1\r\nX: "[dripped % 19 : dripped % 19 + 1])
                await writer.drain()
                dripped += 1
                await asyncio.sleep(0.02)
        writer.close()
        assert dripped < 1000, "it was never sent away"
        assert (await other).startswith(b"HTTP/1.1 200")


async def test_who_goes_away_in_the_middle_is_forgotten(served: Served) -> None:
    async with served.running():
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST / HTTP/1.1\r\n")
        writer.transport.abort()
        assert (await served.ask(get(host="127.0.0.1"))).startswith(b"HTTP/1.1 200")


async def test_known_networks_are_tried_while_nobody_is_connected(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal, "_RETRY_MS", 20)
    served.point.used = True
    async with served.running() as task:
        for _ in range(5):
            await asyncio.sleep(0.02)
        assert served.radio.tried == 0
        assert (
            served.radio.left == 1
        )  # it does not go on trying by itself, which would move the radio to other channels
        served.point.used = False
        await eventually_async(lambda: served.radio.tried >= 1, 20, "an attempt")
        served.point.used = True
        await eventually_async(lambda: served.radio.left >= 2, 20, "the end of that attempt")
        served.point.used = False
        tried = served.radio.tried
        await eventually_async(lambda: served.radio.tried >= tried + 1, 20, "another attempt")
        assert served.point.on
        served.radio.there = True
        assert await asyncio.wait_for(task, 20) is False


async def test_somebody_who_only_stays_connected_keeps_the_networks_away_for_ten_minutes_at_most(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.point.used = True
    assert served.portal.is_used()
    assert portal._USED_MS == 600_000
    served.portal._used_at -= 600_001
    assert not served.portal.is_used()
    served.point.used = False
    assert not served.portal.is_used()
    served.point.used = True
    assert served.portal.is_used()  # somebody came anew


async def test_it_ends_when_nobody_uses_it_for_long_and_always_after_ten_times_as_long(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0]
    monkeypatch.setattr(portal, "ticks_ms", lambda: now[0])
    fed = [0]
    served.portal.feed = lambda: fed.__setitem__(0, fed[0] + 1)

    async def advance(milliseconds: int) -> None:
        """Let time go by; the page looks at the clock twice."""
        now[0] += milliseconds
        seen = fed[0]
        await eventually_async(lambda: task.done() or fed[0] >= seen + 2, 20, "two looks at the clock")

    task = asyncio.create_task(served.portal.run(50))
    await advance(0)
    await advance(50_000)
    assert not task.done()
    served.point.used = True
    await advance(1)
    await advance(449_999)
    assert not task.done()
    await advance(1)
    assert await asyncio.wait_for(task, 20) is False
    assert not served.point.on

    served.point.used = False
    task = asyncio.create_task(served.portal.run(50))
    await advance(0)
    await advance(50_001)
    assert await asyncio.wait_for(task, 20) is False
    assert not served.point.on


# -- the whole way, on MicroPython


def with_portal(make_board: MakeBoard, port: int, tmp_path: Path, **changes: Any) -> Board:
    """A board with short waits whose page is at a free port of loopback, and whose world has no network."""
    board = make_board(port, **{"ap_after": 1, **changes})
    for name, old, new in (
        ("portal.py", "_RETRY_MS = const(180_000)", "_RETRY_MS = const(2_000)"),
        ("after.py", "_AWAKE_SECONDS = const(180)", "_AWAKE_SECONDS = const(1)"),
        ("wifi.py", "limit_seconds: float = 20", "limit_seconds: float = 1"),
    ):
        text = files.sources()[f"board/{name}"].read_text()
        assert old in text
        source = tmp_path / name
        source.write_text(text.replace(old, new, 1))
        files.compile_file(source, board.folder / "board" / name.replace(".py", ".mpy"), f"board/{name}")
    (board.folder / "ap-port").write_text(str(free_port()))
    reach(board)
    return board


def reach(board: Board, **networks: dict[str, Any]) -> None:
    """Say which networks there are."""
    beside = board.folder / "wifi-networks.new"
    beside.write_text(json.dumps(networks))
    beside.rename(board.folder / "wifi-networks")


def ask(board: Board, data: bytes) -> str:
    """What the page of a board answers."""
    port = int((board.folder / "ap-port").read_text())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        answered = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                answered += chunk
    return answered.decode()


def give(board: Board, **form: str) -> str:
    """Fill the form in and send it."""
    found = re.search(r'name="token" value="(\w+)"', ask(board, get()))
    assert found is not None
    return ask(board, post(urllib.parse.urlencode({"token": found[1], **form})))


def wait_open(board: Board, times: int = 1) -> None:
    def opened() -> bool:
        assert board.log().count("then open http://192.168.4.1/") >= times, board.log()[-1500:]
        return (board.folder / "ap").exists()

    eventually(opened, 40, "the access point")


@pytest.mark.slow
def test_a_board_whose_network_is_gone_is_told_of_another_one(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe, tmp_path: Path
) -> None:
    board = with_portal(make_board, mosquitto.port, tmp_path, name="Attic", update_key="ab" * 32)
    observer = observe(board)
    board.power_on(heap=152 * 1024)  # as little as test_fits_into_152_kib has
    wait_open(board)
    password = portal.password_from("ab" * 32, board.id)
    told = json.loads((board.folder / "ap").read_text())
    assert told == {"ssid": portal.name_of(board.id), "security": 3, "key": password, "max_clients": 2}
    assert f"access point: sensor-{board.id}, password {password}; then open" in board.log()
    page = ask(board, get())
    assert "<title>Attic</title>" in page
    assert 'placeholder="home"' in page
    assert "correct horse" not in page

    # what a phone does once it has joined
    port = int((board.folder / "ap-port").read_text())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(20)
        asking.sendto(QUESTION + NAME + b"\0\x01\0\x01" + EDNS, ("127.0.0.1", port))
        assert asking.recv(512).endswith(A_RECORD)
    assert "\r\nLocation: http://192.168.4.1/\r\n" in ask(board, get("/hotspot-detect.html", host="captive.apple.com"))

    # hostile requests, to the real program
    assert "421 Misdirected" in ask(board, post("ssid=a", host="evil.example"))
    assert "405 Method" in ask(board, b"DELETE / HTTP/1.1\r\nHost: 192.168.4.1\r\n\r\n")
    assert "431 Request" in ask(board, b"GET / HTTP/1.1\r\nX: " + b"x" * 9000), board.log()
    assert "413 Content" in ask(board, post("ssid=a", length=2049))
    assert "403 Forbidden" in ask(board, post("ssid=a&token=0"))
    assert "408 Request" in ask(board, b"GET / HT")
    with socket.create_connection(("127.0.0.1", port)):
        # somebody who is connected and says nothing does not keep others out
        assert "wifi: a password has 8 to 63 bytes" in give(board, ssid="cellar", password="short")

    reach(board, cellar={"password": "correct pony & co", "hidden": True})
    with mains(board) as ended:
        assert "restarts now" in give(board, ssid="cellar", password="correct pony & co")
        eventually(lambda: observer.metas() and "trial" not in observer.metas()[-1], 30)
        assert ended == [RESET]
    kept = json.loads((board.folder / "settings.json").read_text())
    assert kept == {**board.settings, "wifi": {"ssid": "cellar", "password": "correct pony & co"}, "revision": 1}
    assert not (board.folder / "ap").exists()
    said = board.log() + str(observer.payloads("log")) + str(observer.payloads("meta"))
    assert "pony" not in said
    assert password not in str(observer.payloads("log"))
    assert "MemoryError" not in board.log()


@pytest.mark.slow
def test_a_second_network_serves_while_the_first_is_away_and_a_fixed_address_is_of_its_network_alone(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe, tmp_path: Path
) -> None:
    static = ["10.0.0.5", "255.255.255.0", "10.0.0.1", "10.0.0.1"]
    home = {"ssid": "home", "password": "correct horse", "static": static}
    attic = {"password": "correct pony"}
    wanted = {"wifi": home, "wifi2": {"ssid": "attic", **attic}, "ap_after": 0, "buffer_messages": 500}
    with Tunnel(mosquitto.port) as tunnel:
        board = with_portal(make_board, tunnel.port, tmp_path, **wanted)
        observer = observe(board)
        reach(board, attic=attic)
        board.power_on()
        observer.wait_states(2, 30)

        def moves(joined: str, **networks: dict[str, Any]) -> None:
            times = board.log().count(joined)
            reach(board, **networks)
            tunnel.cut()
            eventually(lambda: board.log().count(joined) > times, 40, joined)
            seen = observer.states()[-1]["seq"]
            eventually(lambda: observer.states()[-1]["seq"] > seen + 2, 30, "readings from there")

        assert "wifi: joined attic as 192.0.2.7" in board.log()
        moves("wifi: joined home as 10.0.0.5", home={"password": "correct horse"})
        moves("wifi: joined attic as 192.0.2.7", attic=attic)
        moves("wifi: joined home as 10.0.0.5", home={"password": "correct horse"})
        seen = list(dict.fromkeys(state["seq"] for state in observer.states()))
        assert seen == list(range(len(seen)))
        assert {state["boot"] for state in observer.states()} == {1}


@pytest.mark.slow
def test_a_typing_mistake_is_told_on_the_page_and_the_network_before_comes_back_by_itself(
    mosquitto: Broker, make_board: MakeBoard, observe: Observe, tmp_path: Path
) -> None:
    board = with_portal(make_board, mosquitto.port, tmp_path, trial=3600, ap_after=3)
    observer = observe(board)
    board.power_on()
    wait_open(board)
    reach(board, cellar={"password": "correct pony"})
    with mains(board) as ended:
        assert "restarts now" in give(board, ssid="cellar", password="correct donkey")
        board.write_settings(ap_after=3600)  # it comes again at once, for somebody waits
        wait_open(board, 2)
        assert ended == [RESET, RESET]
        note = "settings: back to the settings before: no network was joined: wrong password"
        assert note in ask(board, get())
        reach(board, home={"password": "correct horse"})
        assert observer.wait_states(1, 30)[0]["boot"] == 4
        assert not (board.folder / "ap").exists()
        assert ended == [RESET, RESET, RESET]
    assert json.loads((board.folder / "settings.json").read_text())["wifi"]["ssid"] == "home"
    assert json.loads((board.folder / "trial.json").read_text())["page"] is False


@pytest.mark.slow
def test_a_board_on_a_battery_opens_it_only_after_ten_wakings_without_a_network(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    board = with_portal(make_board, free_port(), tmp_path, profile="battery", interval=60, awake=1)

    def wake(offline: int | None) -> str:
        """One waking after so many without a network; what it says."""
        said = len(board.log())
        memory = {"boot": 1, "seq": 5} if offline is None else {"boot": 1, "seq": 5, "offline": offline}
        (board.folder / "rtc-memory").write_bytes(b"S1" + json.dumps(memory).encode())
        board.power_on("deep sleep")
        assert board.wait_off(30) == DEEP_SLEEP
        return board.log()[said:]

    def remembered() -> Any:
        return json.loads((board.folder / "rtc-memory").read_bytes()[2:].split(b"\n")[0]).get("offline")

    assert "access point" not in wake(None)
    assert remembered() == 1
    assert "access point" not in wake(8)
    assert "then open http://192.168.4.1/" in wake(9)
    assert remembered() == 10
    assert "access point" not in wake(10)
    assert "then open http://192.168.4.1/" in wake(99)
    reach(board, home={"password": "correct horse"})
    assert "access point" not in wake(9)
    assert remembered() is None
