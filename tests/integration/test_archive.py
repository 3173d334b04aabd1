"""A gateway with an archive is stopped, killed and started again: nobody misses what was written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.archive.blocks import Block
from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.publishers import Publisher, publishing
from tests.support.relays import Relay
from tests.support.subscribers import Subscriber
from tests.support.waiting import eventually, missing

pytestmark = pytest.mark.slow


def position_of(client: Subscriber, since: str = "1h") -> str:
    """Where a browser goes on that was there since then; until the end of a replay its head says nothing."""
    head = next(str(event["position"]) for event in client.events if event["event"] == "subscribed")
    if client.messages:
        return f"{head.partition(':')[0]}:{client.messages[-1]['seq']}"
    return since


async def test_clean_restarts_lose_nothing_and_repeat_nothing(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, tmp_path: Path
) -> None:
    """GATEWAY_TEST_RESTARTS says how often, with more subscribers."""
    rounds = int(os.environ.get("GATEWAY_TEST_RESTARTS", "3"))
    clients, count = 12 if rounds == 3 else 50, 6_000 * rounds
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], archive_file=str(tmp_path / "archive.db")
    )
    # far more of each than memory keeps: most replays begin in the file
    messages = [(f"{prefix}/{number % 2}", b"%d" % number) for number in range(count)]
    seen: list[list[int]] = [[] for _ in range(clients)]
    since: list[str] = ["1h"] * clients
    with publishing(mosquitto.url, messages, qos=1, per_second=1_000):
        for round_number in range(rounds + 1):
            async with contextlib.AsyncExitStack() as stack:
                found = [await stack.enter_async_context(Subscriber(gateway, "#", since=each)) for each in since]
                for client in found:
                    answer = await client.wait_event("subscribed")
                    assert answer["recovered"] is True, (round_number, client.events)
                if round_number < rounds:
                    enough = min(1_000, count - len(seen[0]))
                    await found[0].wait_messages(enough, 20)
                    await asyncio.sleep(random.random())
                    assert await asyncio.to_thread(gateway.stop) == 0
                    await asyncio.gather(*(client.wait_closed() for client in found))
                else:
                    for client, before in zip(found, seen, strict=True):
                        await client.wait(lambda c=client, b=before: len(c.messages) + len(b) >= count, 40)  # type: ignore[misc]
                for number, client in enumerate(found):
                    assert not [event for event in client.events if event["event"] == "gap"]
                    seen[number] += client.payloads()
                    since[number] = position_of(client, since[number])
            if round_number < rounds:
                await asyncio.to_thread(gateway.start)
    for each in seen:
        assert each == list(range(count))


async def test_after_sigkill_the_log_goes_on_and_says_what_is_missing(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway,
        mosquitto,
        mqtt_topics=[f"{prefix}/#"],
        archive_file=str(tmp_path / "archive.db"),
        archive_flush_interval="0.2s",
    )
    with Publisher(mosquitto.url) as publisher:
        await asyncio.to_thread(publisher.publish, f"{prefix}/kept", b"on", retain=True)
        async with Subscriber(gateway, "#") as client:
            for number in range(50):
                await asyncio.to_thread(publisher.publish, f"{prefix}/n", b"%d" % number)
            await client.wait_messages(51)
            beyond = position_of(client)
            await asyncio.sleep(1)  # so that it is written
            await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start)
        async with Subscriber(gateway, "#", since=beyond) as client:
            gap = await client.wait_event("gap")
            assert (gap["reason"], gap["lost"]) == ("crash", None)
            assert (await client.wait_event("subscribed"))["recovered"] is False
            await asyncio.to_thread(publisher.publish, f"{prefix}/n", b"50")
            await client.wait(lambda: 50 in client.payloads())
            # the broker has sent its retained message once more, and it is no news
            assert "on" not in client.payloads()
            numbers = [message["seq"] for message in client.messages]
            assert min(numbers) > int(beyond.partition(":")[2])
        async with Subscriber(gateway, "#") as client:
            values = await client.wait_messages(2)
            assert {value["payload"] for value in values} == {"on", 50}
        listed = await asyncio.to_thread(gateway.json, "/topics")
        assert {topic["topic"]: topic["count"] for topic in listed["topics"]} == {
            f"{prefix}/kept": 1,
            f"{prefix}/n": 51,
        }
        page = await asyncio.to_thread(gateway.json, f"/topics/{prefix}/n?since={beyond}")
        assert page["gap"] == {"reason": "crash", "lost": None}


async def test_a_second_gateway_says_that_the_archive_is_in_use(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, tmp_path: Path
) -> None:
    file = str(tmp_path / "archive.db")
    await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], archive_file=file)
    other = await asyncio.to_thread(
        make_gateway,
        mosquitto,
        start=False,
        mqtt_topics=[f"{prefix}/#"],
        archive_file=file,
        mqtt_client_id=f"{prefix}b",
    )
    with contextlib.suppress(RuntimeError):
        await asyncio.to_thread(other.start)
    assert not other.is_alive
    assert "another gateway has the archive" in other.log()
    assert "Traceback" not in other.log()


async def test_a_file_that_can_not_be_used_does_not_stop_the_relay(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], archive_file=str(tmp_path / "nowhere" / "archive.db")
    )
    async with Subscriber(gateway, "#", since="now") as client:
        await client.wait_event("subscribed")
        with Publisher(mosquitto.url) as publisher:
            await asyncio.to_thread(publisher.publish, f"{prefix}/a", b"1")
        await client.wait_messages(1)
    eventually(lambda: "history is in memory only" in gateway.log(), 5)


async def test_what_was_not_written_before_a_crash_comes_again_from_the_broker(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway,
        mosquitto,
        mqtt_topics=[f"{prefix}/#"],
        archive_file=str(tmp_path / "archive.db"),
        archive_flush_interval="60s",
    )
    async with Subscriber(gateway, "#") as client:
        with Publisher(mosquitto.url) as publisher:
            messages = [(f"{prefix}/n", b"%d" % number) for number in range(100)]
            await asyncio.to_thread(publisher.publish_all, messages, qos=1)
            await asyncio.to_thread(publisher.publish, f"{prefix}/two", b"100", qos=2)
        # far more than the 20 that the broker would let wait
        await client.wait_messages(101)
    await asyncio.to_thread(gateway.kill)
    gateway.settings["archive_flush_interval"] = "0.2s"
    await asyncio.to_thread(gateway.start)
    async with Subscriber(gateway, "#", since="1h") as client:
        await client.wait(lambda: set(client.payloads()) == set(range(101)))
        assert len(client.messages) == 101


async def test_a_cut_connection_to_the_broker_repeats_nothing(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, tmp_path: Path
) -> None:
    async with Relay(mosquitto.port).running() as relay:
        gateway = await asyncio.to_thread(
            make_gateway,
            relay.url,
            mqtt_topics=[f"{prefix}/#"],
            archive_file=str(tmp_path / "archive.db"),
        )
        count = 8_000
        messages = [(f"{prefix}/{number % 20}", b"%d" % number) for number in range(count)]
        async with Subscriber(gateway, "#", since="1h") as client:
            await client.wait_event("subscribed")
            with publishing(mosquitto.url, messages, qos=1, per_second=1_000):
                for cut in range(3):
                    await client.wait_messages(800 * (cut + 1), 20)
                    relay.swallows_answers = True
                    await asyncio.sleep(1.5)  # acknowledgements of a second are written and don't arrive
                    relay.cut()
                    relay.swallows_answers = False
                    await asyncio.to_thread(gateway.wait_not_ready)
                    await asyncio.to_thread(gateway.wait_ready)
                await client.wait_messages(count, 30)
            await asyncio.sleep(1.5)  # whatever would come again
            assert sorted(client.payloads()) == list(range(count))
        samples = await asyncio.to_thread(gateway.metrics)
    assert samples['gateway_upstream_dropped_total{reason="duplicate"}'] > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        missing(f"a mount: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_file_system_stops_no_message_and_is_left_as_soon_as_there_is_room(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, small_disk: Path
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway,
        mosquitto,
        mqtt_topics=[f"{prefix}/#"],
        archive_file=str(small_disk / "archive.db"),
        archive_flush_interval="0.2s",
        history_messages=10,
    )
    filler = small_disk / "filler"
    async with Subscriber(gateway, "#", since="now") as client:
        await client.wait_event("subscribed")
        with Publisher(mosquitto.url) as publisher:
            for number in range(20):
                await asyncio.to_thread(publisher.publish, f"{prefix}/n", b"%d" % number)
            await asyncio.sleep(0.5)
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            for number in range(20, 60):
                payload = b'{"n":%d,"x":"%b"}' % (number, random.randbytes(2_000).hex().encode())
                await asyncio.to_thread(publisher.publish, f"{prefix}/n", payload)
            event = await client.wait_event("archive", 20)
            assert (event["kept"], event["reason"]) == (False, "full")
            await client.wait_messages(60)
            filler.unlink()
            await client.wait_event("archive", 20, kept=True)
            await asyncio.to_thread(publisher.publish, f"{prefix}/n", b"60")
        await client.wait_messages(61)
        epoch = client.events[0]["position"].partition(":")[0]
    page = await asyncio.to_thread(gateway.json, f"/topics/{prefix}/n?since={epoch}:0")
    assert (page["recovered"], len(page["messages"])) == (True, 61)
    assert (await asyncio.to_thread(gateway.metrics))["gateway_archive_dropped_total"] == 0
    assert await asyncio.to_thread(gateway.stop) == 0
    check_integrity(small_disk / "archive.db")


def check_integrity(path: Path) -> list[int]:
    """The numbers in the file, each once; the file is whole."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT first_seq, topics, data FROM blocks ORDER BY first_seq").fetchall()
    finally:
        connection.close()
    numbers = [block.first_seq + at for block in (Block(*row) for row in rows) for at in range(len(block))]
    assert numbers == sorted(set(numbers))
    return numbers


async def test_killed_again_and_again_under_load(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, tmp_path: Path
) -> None:
    """GATEWAY_TEST_KILLS says how often."""
    kills = int(os.environ.get("GATEWAY_TEST_KILLS", "3"))
    file = tmp_path / "archive.db"
    gateway = await asyncio.to_thread(make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], archive_file=str(file))
    seen: dict[int, object] = {}
    published = 0
    since = "1h"
    for _ in range(kills):
        messages = [(f"{prefix}/{number % 50}", b"%d" % number) for number in range(published, published + 4_000)]
        async with Subscriber(gateway, "#", since=since) as client:
            await client.wait_event("subscribed")
            with publishing(mosquitto.url, messages, qos=1, per_second=2_000):
                await asyncio.sleep(random.uniform(0.2, 3.0))
                await asyncio.to_thread(gateway.kill)
                await client.wait_closed()
                await asyncio.to_thread(gateway.start)
            published += 4_000
        for message in client.messages:
            # a number is never given to other contents
            assert seen.setdefault(message["seq"], message["payload"]) == message["payload"]
        numbers = [message["seq"] for message in client.messages]
        assert numbers == sorted(set(numbers))
        since = position_of(client, since)
    # everything was acknowledged by the broker to its publisher, so nothing may be missing
    async with Subscriber(gateway, "#", since="1h") as client:
        # asked often: a look at all of them comes last
        await client.wait(
            lambda: len(client.messages) >= published and client.messages[-1]["payload"] == published - 1,
            60 + kills,
            "all that was published is there",
        )
        assert not set(range(published)) - set(client.payloads())
        assert client.events[0]["event"] == "subscribed"
        for message in client.messages:
            assert seen.setdefault(message["seq"], message["payload"]) == message["payload"]
    assert await asyncio.to_thread(gateway.stop) == 0
    assert len(check_integrity(file)) >= published


async def test_a_disk_whose_every_sync_takes_two_seconds_delays_no_message(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, start=False, mqtt_topics=[f"{prefix}/#"], archive_file=str(tmp_path / "archive.db")
    )
    # every process of the test's reads this before anything else
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLOW_SYNC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        await asyncio.to_thread(gateway.start)
    messages = [(f"{prefix}/{number % 50}", b"%d" % number) for number in range(10_000)]
    async with Subscriber(gateway, "#", since="now") as client:
        await client.wait_event("subscribed")
        with publishing(mosquitto.url, messages, qos=1, per_second=1_000):
            await client.wait_messages(10_000, 30)
        samples = await asyncio.to_thread(gateway.metrics)
    assert samples["gateway_archive_commit_seconds_total"] >= 1.9 * samples["gateway_archive_commits_total"] > 0
    late = 1 - samples['gateway_loop_stall_seconds_bucket{le="0.5"}'] / samples["gateway_loop_stall_seconds_count"]
    assert late == 0
    assert samples["gateway_archive_dropped_total"] == 0
    assert samples["gateway_archive_kept"] == 1
    assert await asyncio.to_thread(gateway.stop) == 0


SLOW_SYNC = """
import time
from gateway.archive import file

append = file.ArchiveFile.append

def slowly(self, *arguments, **named):
    time.sleep(2)
    return append(self, *arguments, **named)

file.ArchiveFile.append = slowly
"""
