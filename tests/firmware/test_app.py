"""The sensor's program without a board: names of fields, what the watchdog believes, settings that can't be used."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from firmware.board import app as program
from firmware.board import battery, mqtt, settings
from firmware.board.drivers import Sensor, SensorError
from tests.support.waiting import PATIENCE_SECONDS, eventually_async


class FakeBoard:
    """A board of Python objects."""

    def __init__(self, memory: dict[str, Any] | None = None) -> None:
        self.memory = memory or {}
        self.interval: float | None = None
        self.boots = 6
        self.fed = 0
        self.room = 2048
        self.kept: list[str] = []
        self.free = [60_000]
        self.looked = 0  # how often somebody asked for the time

    def id(self) -> str:
        return "esp32-abcdef"

    def model(self) -> str:
        return "Generic"

    def cause(self) -> str:
        return "power"

    def recall(self) -> dict[str, Any]:
        return dict(self.memory)

    def remember(self, memory: dict[str, Any]) -> bool:
        if len(json.dumps(memory)) > self.room:
            return False
        self.memory = json.loads(json.dumps(memory))
        return True

    def count_boot(self) -> int:
        self.boots += 1
        return self.boots

    def keep_log(self, lines: list[str]) -> None:
        self.kept = list(lines)

    def last_log(self) -> list[str]:
        return self.kept

    def heap(self) -> tuple[int, int]:
        return self.free.pop(0) if len(self.free) > 1 else self.free[0], 40_000

    def load_interval(self) -> float | None:
        return self.interval

    def save_interval(self, seconds: float) -> None:
        self.interval = seconds

    def feed(self) -> None:
        self.fed += 1

    def start_watchdog(self, seconds: float) -> None:
        pass

    def set_time(self, moment: tuple[int, ...], microseconds: int) -> None:
        pass

    def uptime_seconds(self) -> float:
        self.looked += 1
        return 0.0

    def i2c(self, scl: int, sda: int) -> None:
        return None

    def dht22(self, pin: int) -> None:
        return None

    def ds18x20(self, pin: int) -> None:
        return None


def make_app(board: FakeBoard | None = None, **changes: Any) -> program.App:
    """A program that has not been started."""
    given = {"mqtt": {"url": "mqtt://127.0.0.1:1"}, "ntp": "", **changes}
    return program.make_app(settings.complete(given), board or FakeBoard(), lambda _: None)


class Answers(Sensor):
    """Gives what it was told to, one after the other."""

    kind = "answers"
    model = "Answers"
    fields = ("temperature",)

    def __init__(self, *answers: float | Exception, start: Exception | None = None) -> None:
        self.answers = list(answers)
        self.starts = 0
        self.start_error = start

    async def start(self) -> None:
        self.starts += 1
        if self.start_error is not None:
            raise self.start_error

    async def read(self) -> dict[str, float]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"temperature": answer}


def source(sensor: Sensor) -> program.Source:
    found = program.Source(sensor, sensor.kind)
    found.names = {field: field for field in sensor.fields}
    return found


def test_fields_of_several_sensors_have_different_names() -> None:
    app = make_app(
        sensors=[
            {"driver": "dht22", "pin": 4},
            {"driver": "dht22", "pin": 5},
            {"driver": "dht22", "pin": 6, "label": "outdoor"},
            {"driver": "ds18b20", "pin": 7, "probes": 2},
        ]
    )
    assert [list(each.names.values()) for each in app.sources] == [
        ["temperature", "humidity"],
        ["temperature_2", "humidity_2"],
        ["outdoor_temperature", "outdoor_humidity"],
        ["temperature_3", "temperature_4"],
    ]
    assert [each.name for each in app.sources] == ["dht22", "dht22_2", "outdoor", "ds18b20"]
    fields = app.fields()
    for name in ("temperature_2", "outdoor_temperature", "temperature_4"):
        assert fields[name] == {"unit": "°C", "device_class": "temperature", "min": -40, "max": 85}


async def test_a_sensor_that_failed_is_set_up_again() -> None:
    sensor = Answers(20.0, OSError(19), 21.0)
    tried = source(sensor)
    assert await tried.read() == {"temperature": 20.0}
    assert await tried.read() == {}
    errors = [tried.error]
    assert await tried.read() == {"temperature": 21.0}
    assert [*errors, tried.error] == ["OSError: 19", None]
    assert sensor.starts == 2


async def test_a_sensor_that_hangs_is_given_up() -> None:
    class Hanging(Answers):
        limit_seconds = 0.05

        async def read(self) -> dict[str, float]:
            await asyncio.Event().wait()
            return {}

    tried = source(Hanging())
    assert await tried.read() == {}
    assert tried.error == "no reading within 0.05 s"


async def test_a_sensor_is_not_asked_more_often_than_it_can_answer() -> None:
    class Slow(Answers):
        minimum_interval_seconds = 60.0

    tried = source(Slow(20.0, 21.0))
    assert await tried.read() == {"temperature": 20.0}
    assert await tried.read() == {}
    assert tried.error is None


async def test_errors_stand_in_meta_until_they_are_over() -> None:
    app = make_app()
    app.sources = [source(Answers(SensorError("unplugged"), 20.0))]
    assert await app.measure() is None
    assert json.loads(app.meta().whole())["errors"] == {"answers": "SensorError: unplugged"}
    payload = await app.measure()
    assert payload is not None
    assert json.loads(payload)["temperature"] == 20.0
    assert "errors" not in json.loads(app.meta().whole())


async def test_a_reading_that_failed_uses_no_number() -> None:
    app = make_app()
    app.sources = [source(Answers(OSError(1), 20.0))]
    await app.measure()
    payload = await app.measure()
    assert payload is not None
    assert json.loads(payload) == {**json.loads(payload), "seq": 0, "boot": 7}


def test_progress_names_who_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000]
    monkeypatch.setattr(program, "ticks_ms", lambda: now[0])
    progress = program.Progress({"sensors": 10, "link": 30})
    now[0] += 9_000
    assert progress.late() == []
    progress.mark("link")
    now[0] += 2_000
    assert progress.late() == ["sensors"]
    progress.mark("sensors")
    now[0] += 29_000
    assert progress.late() == ["sensors", "link"]


async def test_the_watchdog_starves_when_one_part_gives_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0  # a clock of its own: a busy machine makes nothing late
    monkeypatch.setattr(program, "ticks_ms", lambda: now)
    board = FakeBoard()
    app = make_app(board)
    app.settings["watchdog"] = 0.12  # which makes it look every 10 ms
    watching = asyncio.create_task(app._watch())
    await eventually_async(lambda: board.fed > 3)
    now += int(app.progress.limits["link"] * 1000) + 1
    app.progress.mark("sensors")  # the sensors work, the link is silent
    assert app.progress.late() == ["link"]
    fed, looked = board.fed, board.looked
    await eventually_async(lambda: board.looked > looked + 10)
    assert board.fed == fed
    app.progress.mark("link")
    await eventually_async(lambda: board.fed > fed)
    watching.cancel()


async def test_a_reading_for_which_there_is_no_memory_costs_older_ones_that_wait_and_no_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make_app(interval=3600)
    for number in range(4):
        app.client.publish("s", b"%d" % number)
    app.sources = [source(Answers(*map(float, range(20))))]
    publish, is_short = app._publish, True

    def may_be_short_of_memory(reading: bytes) -> None:
        if is_short:
            raise MemoryError
        publish(reading)

    async def measured(seq: int) -> None:
        app.retime.set()
        await eventually_async(lambda: app.seq == seq)

    monkeypatch.setattr(app, "_publish", may_be_short_of_memory)
    sampling = asyncio.create_task(app._sample())
    await measured(1)
    await measured(2)
    is_short = False
    await measured(3)
    await measured(4)
    oldest, *others = [message.whole() for message in app.client.ring.messages]
    assert (oldest, [json.loads(reading)["seq"] for reading in others]) == (b"3", [2, 3])
    assert app.client.ring.dropped == 2 + 3  # readings 0 and 1, and what was there before but for the newest
    is_short = True
    for seq in range(5, 10):
        await measured(seq)
    assert not sampling.done()
    await measured(10)
    with pytest.raises(MemoryError):  # then it restarts
        await sampling


def test_the_watchdog_is_patient_with_an_attempt_that_keeps_its_limits() -> None:
    app = make_app(timeout=60, watchdog=30)
    assert app.progress.limits["link"] >= 60 + 60 + 60


def test_settings_of_an_earlier_life_count_on() -> None:
    app = make_app(FakeBoard({"boot": 5, "seq": 17, "dropped": 2}))
    assert (app.boot, app.seq) == (5, 17)
    assert json.loads(app.meta().whole())["dropped"] == 2
    assert make_app().boot == 7


async def test_a_backlog_that_is_too_large_for_the_memory_loses_its_oldest_and_counts_them() -> None:
    board = FakeBoard()
    board.room = 320
    app = make_app(board, profile="battery", awake=1)
    assert isinstance(app, battery.Waking)
    app._remember([b"x" * 100, b"y" * 100, b"z" * 100])
    assert board.memory["backlog"] == ["y" * 100, "z" * 100]
    assert board.memory["dropped"] == 1


class ScriptedBroker:
    """Takes everything that a client says and acknowledges what it is told to.

    Attributes:
        session_present: What CONNACK says.
        deaf_to: No PUBACK for topics that end so.
        heard: The topics of each connection.
    """

    def __init__(self) -> None:
        self.session_present = False
        self.deaf_to: str | None = None
        self.heard: list[list[str]] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        topics: list[str] = []
        self.heard.append(topics)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, length = await reader.readexactly(1), 0
                for position in range(4):
                    (byte,) = await reader.readexactly(1)
                    length |= (byte & 0x7F) << 7 * position
                    if byte < 0x80:
                        break
                body = await reader.readexactly(length)
                match first[0] & 0xF0:
                    case 0x10:
                        writer.write(bytes((0x20, 2, self.session_present, 0)))
                    case 0x80:
                        writer.write(b"\x90\x03" + body[:2] + b"\x01")
                    case 0x30:
                        topic, _, packet_id = mqtt.parse_publish(first[0], body)
                        topics.append(topic.rpartition("/")[2])
                        if self.deaf_to is None or not topic.endswith(self.deaf_to):
                            writer.write(b"\x40\x02" + packet_id.to_bytes(2, "big"))
                    case 0xE0:
                        break
        writer.close()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[ScriptedBroker]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self


async def wake(board: FakeBoard, broker: ScriptedBroker, **changes: Any) -> list[str]:
    """One waking of a battery sensor; what the broker heard, but for the readings."""
    url = {"url": f"mqtt://127.0.0.1:{broker.port}"}
    count = len(broker.heard)
    app = make_app(board, profile="battery", mqtt=url, **{"awake": PATIENCE_SECONDS, "discovery": True, **changes})
    assert await app.run() == "sleep"
    assert len(broker.heard) > count
    return [leaf for leaf in broker.heard[count] if leaf not in ("state", "log")]


@pytest.mark.slow
async def test_a_battery_sensor_describes_itself_once_to_a_broker_that_remembers() -> None:
    board = FakeBoard({"boot": 5})
    async with ScriptedBroker().serving() as broker:
        everything, nothing_new = ["status", "meta", "diag", "config", "config"], ["status"]
        heard = [(await wake(board, broker))[:-1]]  # without its goodbye
        broker.session_present = True
        heard.append((await wake(board, broker))[:-1])
        heard.append((await wake(board, broker, name="Attic"))[:-1])
        heard.append((await wake(board, broker, name="Attic"))[:-1])
        broker.session_present = False  # it has lost its memory
        heard.append((await wake(board, broker, name="Attic"))[:-1])
    assert heard == [everything, nothing_new, everything, nothing_new, everything]


@pytest.mark.slow
async def test_a_battery_sensor_repeats_its_description_until_it_is_acknowledged_and_now_and_then() -> None:
    board = FakeBoard({"boot": 5})
    async with ScriptedBroker().serving() as broker:
        broker.session_present = True
        broker.deaf_to = "/config"
        assert "meta" in await wake(board, broker, awake=3)
        broker.deaf_to = None
        assert "meta" in await wake(board, broker)
        assert "meta" not in await wake(board, broker)
        board.memory["wakings"] = 1000
        assert "meta" in await wake(board, broker)
        assert "meta" not in await wake(board, broker)


def announced(app: program.App) -> dict[str, Any]:
    """What the program has handed over, by the end of its topic, until everything is acknowledged; not its log."""
    said: dict[str, Any] = {}
    while app.client._birth_messages:
        message = app.client._birth_messages.pop(0)
        said[message.topic.partition(app.id + "/")[2]] = json.loads(message.whole())
        app._on_progress("acknowledged")
    said.pop("log", None)
    return said


@pytest.mark.slow
async def test_what_home_assistant_must_know_is_announced_with_a_new_interval() -> None:
    app = make_app(discovery=True)
    app.client.connected = True
    app._on_message("cmd", b'{"interval":120}', False)
    said = announced(app)
    assert said["meta"]["interval"] == 120
    assert said["config"]["cmps"]["temperature"]["expire_after"] == 360
    assert list(said) == ["meta", "config", "diag/config"]
    app._on_message("cmd", b"nonsense", False)  # of no interest to Home Assistant
    assert list(announced(app)) == ["meta"]
    app.sources = [source(Answers(21.0))]  # it turns out to have other fields
    await app.measure()
    said = announced(app)
    assert set(said["config"]["cmps"]) == {"temperature", "restart"}
    assert set(said["diag/config"]["cmps"]) == {"firmware", "started_by", "heap_free", "uptime"}


@pytest.mark.parametrize("discovery", [True, False])
def test_what_was_dropped_after_the_description_was_made_is_told_once_more(discovery: bool) -> None:
    app = make_app(discovery=discovery)
    app.client.connected = True
    app.births()
    announced(app)
    app.client.ring.dropped = 3
    app._on_progress("acknowledged")
    assert announced(app)["meta"]["dropped"] == 3
    app._on_progress("acknowledged")
    assert announced(app) == {}


def test_a_command_may_be_long_only_where_there_is_room() -> None:
    board = FakeBoard()
    app = make_app(board)
    board.free = [24_001]
    app.births()
    assert app.client.max_packet_bytes == 6144
    board.free = [24_000]
    app.births()
    assert app.client.max_packet_bytes == 2048


def test_what_is_seldom_needed_is_not_kept_in_memory() -> None:
    code = (
        "import sys, firmware.board.slots as slots, sensors_sim.payloads as payloads;"
        "sys.modules.update(slots=slots, payloads=payloads);"
        "from tests.firmware.test_app import make_app;"
        "sys.modules.pop('firmware.board.battery');"
        "one = make_app(); one.births(); one._discovery(); one._on_message('cmd', b'{\"interval\":20}', False);"
        "print([name for name in ('battery', 'diag', 'entities', 'after', 'portal', 'changes', 'commands')"
        " if 'firmware.board.' + name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_a_message_for_which_there_is_no_memory_is_made_later_and_costs_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make_app(discovery=True)
    app.client.connected = True
    app.births()
    with monkeypatch.context() as full:

        def fail() -> mqtt.Message:
            raise MemoryError

        full.setattr(app, "_discovery", fail)
        app._on_progress("acknowledged")
    assert announced(app) == {}
    app._on_progress("acknowledged")
    assert list(announced(app)) == ["config", "diag/config"]


def test_the_largest_message_waits_until_others_have_gone() -> None:
    app = make_app(discovery=True)
    app.client.connected = True
    app.births()
    for number in range(20):
        app.client.publish("s", b"%d" % number)
    app.log.waiting.clear()
    for _ in range(20 - app.client.window):
        app.client.ring.remove(app.client.ring.messages[0])
        app._on_progress("acknowledged")
        assert not app.client._birth_messages
    app.client.ring.remove(app.client.ring.messages[0])
    for _ in range(3):  # the second one follows when the first one has been acknowledged
        app._on_progress("acknowledged")
        assert [message.topic for message in app.client._birth_messages] == [f"homeassistant/device/{app.id}/config"]
    assert list(announced(app)) == ["config", "diag/config"]


def test_a_certificate_that_is_missing_is_told() -> None:
    with pytest.raises(ValueError, match=r"no certificate in nowhere\.pem"):
        make_app(mqtt={"url": "mqtts://broker.example", "ca": "nowhere.pem"})


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'{"interval":-1}', b'{"interval":0.0001}', b'{"format_disk":true}', b"\xff"]
)
def test_a_bad_command_changes_nothing_and_is_noted(payload: bytes) -> None:
    board = FakeBoard()
    app = make_app(board)
    app._on_message("cmd", payload, False)
    assert (app.interval, board.interval) == (10, None)
    assert "cmd" in app.errors()
    app._on_message("cmd", b'{"interval":30}', False)
    assert (app.interval, board.interval) == (30, 30)
    assert "cmd" not in app.errors()


def test_a_command_for_which_there_is_no_memory_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    board = FakeBoard()
    app = make_app(board)
    with monkeypatch.context() as full:

        def fail(_seconds: float) -> None:
            raise MemoryError

        full.setattr(board, "save_interval", fail)
        app._on_message("cmd", b'{"interval":30}', False)
    assert app.errors()["cmd"] == "there was no memory for it: send it again"
    app._on_message("cmd", b'{"interval":30}', False)
    assert (app.errors(), board.interval) == ({}, 30)


def test_a_part_that_ends_restarts_the_board_also_when_there_is_no_memory_to_tell_it() -> None:
    app = make_app()

    def no_memory(_text: str, _level: str = "info") -> None:
        raise MemoryError

    async def part() -> None:
        raise ValueError("a bug")

    app.log = no_memory  # type: ignore[assignment]
    with pytest.raises(MemoryError):
        asyncio.run(app._supervised("sensors", part()))
    assert app._outcome == "restart"
