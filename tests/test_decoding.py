"""Rules in the log: what is decoded once, kept beside what came, and told the same from memory and from a file."""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import cbor2
import pytest

from gateway.access.grants import Owner
from gateway.archive.archive import Archive, KeptHistory
from gateway.archive.blocks import DECODED, FORM, Batch, Block, encode_batch, repack
from gateway.core.filters import FilterSet
from gateway.core.frames import unframe
from gateway.core.history import DECODED_COST, EVICTED_COST, MESSAGE_COST, History, _properties_cost
from gateway.core.hub import Hub
from gateway.core.messages import DecodedMessage, Kind, Message, encode_topic
from gateway.core.shapes import Format, Framing, Mode, Shape
from gateway.core.since import SINCE_NOW
from gateway.core.snapshots import arrived, restore_counts, take_back, topic_states
from gateway.decoders.decoding import Decoding, Rule, make_rule
from gateway.decoders.sparkplug_form import payload_class
from gateway.ops.explain import explain_topic
from gateway.upstream.state import UpstreamState
from tests.fakes import FakeLoop, FakeSocket, finished, make_hub
from tests.test_explain import ANYONE

TEMPERATURE = bytes.fromhex("03670110")  # cayenne: temperature_3 = 27.2
COLD = bytes.fromhex("0367ffd7")  # -4.1, and no text
NODE = "spBv1.0/plant/{}/press"
DEVICE = "spBv1.0/plant/{}/press/oil"


def with_rules(history: History, *rules: Rule) -> Decoding:
    decoding = Decoding(rules)
    decoding.start(history)
    return decoding


def cayenne() -> Rule:
    return make_rule(["lora/#"], ["cayenne"])


def body(message: Message | None) -> Any:
    assert message is not None
    return json.loads(message.body)


def test_a_payload_is_decoded_once_and_kept_as_it_came() -> None:
    history = History()
    with_rules(history, cayenne())
    message = history.append("lora/a", TEMPERATURE, 5, qos=1)
    assert message is not None
    assert json.loads(message.body) == {
        "topic": "lora/a", "payload": {"temperature_3": 27.2}, "time": 5, "seq": 1, "qos": 1,
    }  # fmt: skip
    assert message.payload == TEMPERATURE
    assert message.value() == {"temperature_3": 27.2}
    assert message.kind is Kind.JSON
    assert message.decoded == b'{"temperature_3":27.2}'
    assert list(unframe(message.raw_frame())) == [(True, TEMPERATURE)]
    cold = history.append("lora/a", COLD, 5)
    assert cold is not None
    assert list(unframe(cold.raw_frame())) == [(False, COLD)]
    assert (cold.is_text, cold.text) == (False, b"A2f/1w==")
    # others are as they were
    assert body(history.append("other", COLD, 5))["encoding"] == "base64"
    assert type(history.append("other", b"1", 5)) is Message


def test_what_cannot_be_decoded_says_so_in_its_envelope() -> None:
    history = History()
    decoding = with_rules(history, cayenne())
    message = history.append("lora/a", b"\x03", 5, retained=True)
    assert message is not None
    assert json.loads(message.body) == {
        "topic": "lora/a", "payload": "Aw==", "time": 5, "seq": 1, "retained": True, "decode": "failed",
        "encoding": "base64",
    }  # fmt: skip
    assert (message.payload, message.kind, message.decoded) == (b"\x03", Kind.BASE64, b"")
    assert decoding.counts() == {"cayenne": (0, 1)}
    assert "cut short" in str(decoding.rules[0].failure("lora/a"))
    history.append("lora/a", TEMPERATURE, 5)
    assert decoding.rules[0].failure("lora/a") is None
    assert decoding.counts() == {"cayenne": (1, 1)}
    # text that is no payload of the format is no exception
    assert body(history.append("lora/a", b'{"t":1}', 5))["decode"] == "failed"


def test_a_cleared_topic_and_a_topic_without_a_rule_are_not_decoded() -> None:
    history = History()
    decoding = with_rules(history, cayenne(), make_rule(["spBv1.0/#"], ["sparkplug"]))
    assert body(history.append("lora/a", b"", 5))["payload"] == ""
    assert body(history.append("spBv1.0/STATE/host", b'{"online":true}', 5))["payload"] == {"online": True}
    assert decoding.counts() == {"cayenne": (0, 0), "sparkplug": (0, 0)}


def test_the_first_rule_that_matches_decides() -> None:
    history = History()
    with_rules(history, make_rule(["lora/x"], ["cbor"]), cayenne())
    assert body(history.append("lora/x", cbor2.dumps({"t": 1}), 5))["payload"] == {"t": 1}
    assert body(history.append("lora/y", TEMPERATURE, 5))["payload"] == {"temperature_3": 27.2}


def test_a_topic_without_a_rule_is_as_it_would_be_without_any() -> None:
    history = History()
    with_rules(history, cayenne())
    history.append("other", b"1", 5)
    history.append("lora/a", TEMPERATURE, 5)
    makes = [history.topic(name).make for name in ("other", "lora/a")]  # type: ignore[union-attr]
    assert makes[0] == Message.arrived
    assert makes[1] != Message.arrived


@pytest.mark.slow
@pytest.mark.parametrize(("topics", "size"), [(1, 100), (2_000, 2), (20_000, 50)])
def test_the_counted_bytes_are_what_the_memory_is(topics: int, size: int) -> None:
    generator = random.Random(1)
    rule = make_rule(["#"], ["cbor"])
    names = [f"sensors/{number}/state" for number in range(topics)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    history = History(max_bytes=12 * 2**20)
    with_rules(history, rule)
    for number in range(30_000):
        payload = cbor2.dumps(generator.randbytes(size).hex())
        history.append(generator.choice(names), payload, number)
    gc.collect()
    real = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert history.bytes * 0.5 <= real <= history.bytes * 1.05


def test_rules_count_for_topics_that_were_there_before() -> None:
    history = History()
    history.append("lora/a", TEMPERATURE, 5)
    with_rules(history, cayenne())
    assert body(history.append("lora/a", TEMPERATURE, 5))["payload"] == {"temperature_3": 27.2}


def test_a_retained_message_that_the_broker_no_longer_keeps_is_let_go() -> None:
    history = History()
    history.retained_as_published = True
    with_rules(history, cayenne())
    first = history.append("lora/a", TEMPERATURE, 5, retained=True, repeat=1)
    assert history.append("lora/a", TEMPERATURE, 6, retained=True, repeat=2) is None  # by the bytes that came
    history.append("lora/a", TEMPERATURE, 7, retained=True)
    assert first is not None
    assert "retained" not in body(first)
    assert first.payload == TEMPERATURE
    assert first.value() == {"temperature_3": 27.2}


@pytest.mark.parametrize("properties", [None, {"content_type": "x"}])
def test_both_forms_are_charged_and_given_back(properties: Any) -> None:
    history = History(max_messages=1)
    with_rules(history, make_rule(["#"], ["cbor"]))
    payload = cbor2.dumps({"x": b"\xff" * 1_000})
    before = costs = 0
    for time in range(1, 9):
        history.append("a", payload, time, properties=properties)
        topic = history.topic("a")
        assert topic is not None
        assert topic.last is not None
        costs = len(topic.last.frame) + len(payload) + MESSAGE_COST + DECODED_COST
        costs += 0 if properties is None else _properties_cost(properties)
        if time == 1:
            before = history.bytes - costs
        assert history.bytes == before + costs + EVICTED_COST * (time - 1)
    assert costs > 2_300


def _drain(hub: Hub, loop: FakeLoop, shape: Shape | None = None, **more: Any) -> FakeSocket:
    socket = FakeSocket(hub, shape=shape, **more)
    hub.subscribe(socket.subscriber, ["lora/#"], SINCE_NOW)
    loop.run(1)
    return socket


def test_fields_conditions_and_aggregates_see_what_was_decoded() -> None:
    loop = FakeLoop()
    hub = make_hub(loop)
    with_rules(hub.history, cayenne())
    plain = _drain(hub, loop)
    chosen = _drain(hub, loop, Shape(where="payload.temperature_3 > 20.0", fields=("temperature_3",)))
    mean = _drain(hub, loop, Shape(max_hz=1, mode=Mode.MEAN))
    hub.publish("lora/a", TEMPERATURE)
    hub.publish("lora/a", bytes.fromhex("03670000"))
    loop.run(3)
    assert [m["payload"] for m in plain.messages] == [{"temperature_3": 27.2}, {"temperature_3": 0.0}]
    assert [m["payload"] for m in chosen.messages] == [{"temperature_3": 27.2}]
    assert sum(m["payload"]["temperature_3"] for m in mean.messages) in (13.6, 27.2)


def test_raw_events_are_the_bytes_as_text_or_base64() -> None:
    from gateway.core.shaper import Shaper

    history = History()
    with_rules(history, make_rule(["line/#"], ["line"]), cayenne())
    shaper = Shaper(Shape(format=Format.RAW, framing=Framing.SSE), "e")
    for topic, payload in (("line/a", b"w t=1"), ("lora/a", COLD)):
        message = history.append(topic, payload, 5)
        assert message is not None
        shaper.offer(message)
    assert shaper.take() == [b"id: e:1\ndata: w t=1\n\n", b"id: e:2\ndata: A2f/1w==\n\n"]


# the file


def _made(seq: int, topic: str, payload: bytes, decoded: bytes | None, **more: Any) -> Message:
    if decoded is None:
        return Message.arrived(seq, topic, payload, 1_000 + seq, **more)
    came = more.get("qos", 0), more.get("retained", False), more.get("properties")
    return DecodedMessage.made(seq, topic, payload, 1_000 + seq, *came, encode_topic(topic), decoded)


def test_frames_made_again_from_a_block_are_those_that_subscribers_got() -> None:
    messages = [
        _made(1, "a", b"\x01", b'{"t":1}'),
        _made(2, "b", b"text", None, qos=1),
        _made(3, "a", b"\xff", b"", retained=True),
        _made(4, "a", b"\x02", b"2", qos=2, properties={"content_type": "x"}),
    ]
    batch = Batch(1)
    for message in messages:
        batch.add(message, message.payload)
    assert batch.shown == [b'{"t":1}', b"text", b"", b"2"]
    topics, data = encode_batch(batch, {"a": 1, "b": 2}.__getitem__)
    assert data[0] == DECODED
    block = Block(1, topics, data)
    again = [block.message_at(at, message.topic) for at, message in enumerate(messages)]
    assert [m.frame for m in again] == [m.frame for m in messages]
    assert [m.payload for m in again] == [m.payload for m in messages]
    assert [(m.decoded, type(m)) for m in again] == [(m.decoded, type(m)) for m in messages]
    assert [one.shown for one in block.arrivals(["a", "b"], 0, 4)] == batch.shown
    # and those of one that was thinned
    thinned = Block(1, *repack([(block, [0, 2, 3])], 1, 4)[:2])
    again = [thinned.message_at(at, "a") for at in range(3)]
    assert [m.frame for m in again] == [m.frame for m in messages if m.topic == "a"]
    assert [m.payload for m in again] == [b"\x01", b"\xff", b"\x02"]
    # without what was decoded it has the form of before
    assert repack([(block, [1])], 2, 2)[1][0] == FORM


def test_a_block_without_decoded_payloads_is_one_that_older_gateways_read() -> None:
    batch = Batch(1)
    batch.add(_made(1, "a", b"1", None), b"1")
    assert encode_batch(batch, lambda _: 1)[1][0] == FORM


def test_a_log_that_is_restored_has_what_was_decoded_then() -> None:
    history = History()
    with_rules(history, cayenne())
    history.append("lora/a", TEMPERATURE, 5)
    history.append("lora/b", b"\x03", 6, qos=1, properties={"content_type": "x"})
    [states] = [part for part in topic_states(history) if part]
    again = History()
    for state in states:
        take_back(again, state.last)
    restore_counts(again, states)
    for name in ("lora/a", "lora/b"):
        before, after = history.topic(name), again.topic(name)
        assert before is not None
        assert after is not None
        assert before.last is not None
        assert after.last is not None
        assert after.last.frame == before.last.frame
        assert arrived(after.last) == arrived(before.last)
    assert again.bytes == history.bytes
    # the rules of now are for what comes now
    with_rules(again, make_rule(["lora/#"], ["cbor"]))
    assert body(again.append("lora/a", cbor2.dumps(1), 7))["payload"] == 1


def test_an_archive_brings_frames_back_and_rolls_decoded_numbers_up(tmp_path: Path) -> None:
    loop = FakeLoop()
    history = KeptHistory(max_messages=10)
    archive = Archive(tmp_path / "a.db", history, now_ms=loop.wall_clock_ms())
    archive.start(
        flush_seconds=0.05,
        max_bytes=2**20,
        call_soon_threadsafe=lambda function, *arguments: function(*arguments),
        call_later=loop.call_later,
        clock=loop.clock,
        on_trouble=lambda _trouble: None,
    )
    with_rules(history, cayenne())
    frames = []
    for number in range(30):
        payload = TEMPERATURE if number % 3 else b"\x03"
        message = history.append("lora/a", payload, loop.wall_clock_ms() + number * 1_000)
        assert message is not None
        frames.append(message.frame)
    archive.close()
    archive.wait_closed()
    again = KeptHistory(max_messages=100)
    archive = Archive(tmp_path / "a.db", again, now_ms=loop.wall_clock_ms())
    try:
        found = again.read(FilterSet(["#"]), 0, again.seq, max_bytes=10**9).messages
        assert [message.frame for message in found] == frames
        fields = [row[0] for row in archive._file.rows()._connection.execute("SELECT field FROM series")]
        assert fields == ["temperature_3"]
    finally:
        archive.close()
        archive.wait_closed()


# sparkplug


def spark(*metrics: dict[str, Any], timestamp: int = 5, seq: int = 0) -> bytes:
    payload = payload_class()(timestamp=timestamp, seq=seq)
    for metric in metrics:
        payload.metrics.add(**metric)
    return payload.SerializeToString()  # type: ignore[no-any-return]


TEMP = {"name": "Temp", "alias": 1, "datatype": 9, "float_value": 21.1}
LEVEL = {"name": "Level", "alias": 2, "datatype": 1, "int_value": 2**32 - 4}


@pytest.fixture
def plant() -> History:
    history = History()
    with_rules(history, make_rule(["spBv1.0/#"], ["sparkplug"]))
    return history


def said(history: History, topic: str, *metrics: dict[str, Any], **more: Any) -> Any:
    return body(history.append(topic, spark(*metrics, **more), 5))["payload"]


def test_a_birth_is_listed_as_tahu_does_and_names_what_comes_after_it(plant: History) -> None:
    assert said(plant, NODE.format("NBIRTH"), TEMP, LEVEL) == {
        "timestamp": 5,
        "seq": 0,
        "values": {"Temp": 21.1, "Level": -4},
        "metrics": [
            {"name": "Temp", "alias": 1, "dataType": "Float", "value": 21.1},
            {"name": "Level", "alias": 2, "dataType": "Int8", "value": -4},
        ],
    }
    # neither name nor type: both are the BIRTH's
    assert said(plant, NODE.format("NDATA"), {"alias": 2, "int_value": 2**32 - 1}, seq=1) == {
        "timestamp": 5, "seq": 1, "values": {"Level": -1},
    }  # fmt: skip
    assert said(plant, NODE.format("NDEATH"), {"name": "bdSeq", "datatype": 8, "long_value": 3})["values"] == {
        "bdSeq": 3
    }


def test_an_alias_that_nobody_explained_is_told_and_counted() -> None:
    history = History()
    decoding = with_rules(history, make_rule(["spBv1.0/#"], ["sparkplug"]))
    found = said(history, NODE.format("NDATA"), {"alias": 7, "datatype": 3, "int_value": 5}, TEMP)
    assert found["unknown"] == {"7": 5}
    assert found["values"] == {"Temp": 21.1}
    assert decoding.unknown_aliases == 1


def test_a_device_has_aliases_of_its_own_which_end_with_the_birth_of_its_node(plant: History) -> None:
    said(plant, NODE.format("NBIRTH"), TEMP)
    said(plant, DEVICE.format("DBIRTH"), {**LEVEL, "alias": 1})
    assert said(plant, DEVICE.format("DDATA"), {"alias": 1, "int_value": 3})["values"] == {"Level": 3}
    assert said(plant, NODE.format("NDATA"), {"alias": 1, "float_value": 3})["values"] == {"Temp": 3.0}
    said(plant, NODE.format("NBIRTH"), TEMP)
    assert said(plant, DEVICE.format("DDATA"), {"alias": 1, "int_value": 3})["unknown"] == {"1": 3}
    said(plant, DEVICE.format("DBIRTH"), LEVEL)
    assert said(plant, DEVICE.format("DDATA"), {"alias": 2, "int_value": 3})["values"] == {"Level": 3}


@pytest.mark.parametrize("birth", [b"\xff\xff", b"\x12\x00" * 200_000, b"\x12\x00" * 10_001])
def test_a_birth_that_cannot_be_read_ends_what_was_known(plant: History, birth: bytes) -> None:
    said(plant, NODE.format("NBIRTH"), TEMP)
    assert body(plant.append(NODE.format("NBIRTH"), birth, 5))["decode"] == "failed"
    assert said(plant, NODE.format("NDATA"), {"alias": 1, "float_value": 3})["unknown"] == {"1": 3.0}


def test_a_birth_of_more_than_is_shown_names_its_metrics_all_the_same(plant: History) -> None:
    many = [{"name": f"m{number}", "alias": number, "datatype": 1, "int_value": 1} for number in range(4_000)]
    message = plant.append(NODE.format("NBIRTH"), spark(*many), 5)
    assert body(message)["decode"] == "failed"
    assert said(plant, NODE.format("NDATA"), {"alias": 3_999, "int_value": 2**32 - 1})["values"] == {"m3999": -1}
    with_rules(plant, make_rule(["spBv1.0/#"], ["sparkplug"]))  # as after a restart
    assert said(plant, NODE.format("NDATA"), {"alias": 3_999, "int_value": 2**32 - 1})["values"] == {"m3999": -1}


def test_a_start_finds_births_in_the_log(plant: History) -> None:
    said(plant, NODE.format("NBIRTH"), TEMP)
    said(plant, DEVICE.format("DBIRTH"), LEVEL)
    with_rules(plant, make_rule(["spBv1.0/#"], ["sparkplug"]))  # as after a restart
    assert said(plant, DEVICE.format("DDATA"), {"alias": 2, "int_value": 3})["values"] == {"Level": 3}
    assert said(plant, NODE.format("NDATA"), {"alias": 1, "float_value": 3})["values"] == {"Temp": 3.0}


def test_a_start_finds_no_birth_of_a_device_from_before_that_of_its_node(plant: History) -> None:
    said(plant, DEVICE.format("DBIRTH"), LEVEL)
    said(plant, NODE.format("NBIRTH"), TEMP)
    with_rules(plant, make_rule(["spBv1.0/#"], ["sparkplug"]))
    assert said(plant, DEVICE.format("DDATA"), {"alias": 2, "int_value": 3})["unknown"] == {"2": 3}


def test_values_of_all_kinds_have_a_form(plant: History) -> None:
    payload = payload_class()(timestamp=5)
    add = payload.metrics.add
    add(name="i64", datatype=4, long_value=2**64 - 1)
    add(name="u64", datatype=8, long_value=2**64 - 1)
    add(name="nan", datatype=10, double_value=float("nan"))
    add(name="null", datatype=3, is_null=True, int_value=1)
    add(name="bytes", datatype=17, bytes_value=b"\xff")
    add(name="shorts", datatype=23, bytes_value=b"\xff\xff\x02\x00")
    add(name="flags", datatype=32, bytes_value=b"\x0c\x00\x00\x00\x34\xd0")
    add(name="words", datatype=33, bytes_value=b"a\0bc\0")
    table = add(name="table", datatype=16).dataset_value
    table.columns.extend(["a", "b"])
    table.types.extend([1, 12])
    row = table.rows.add()
    row.elements.add(int_value=2**32 - 1)
    row.elements.add(string_value="x")
    template = add(name="motor", datatype=19).template_value
    template.template_ref, template.version = "Motor", "1"
    template.metrics.add(name="rpm", datatype=3, int_value=5)
    template.parameters.add(name="p", type=9, float_value=0.1)
    good = add(name="good", datatype=3, int_value=1, is_transient=True, timestamp=4)
    good.properties.keys.append("Quality")
    good.properties.values.add(type=3, int_value=192)
    good.metadata.description = "a thing"
    found = body(plant.append(NODE.format("NDATA"), payload.SerializeToString(), 5))["payload"]
    flags = [False, False, True, True, False, True, False, False, True, True, False, True]
    assert found["values"] == {
        "i64": -1, "u64": 2**64 - 1, "nan": None, "null": None, "bytes": "/w==", "shorts": [-1, 2], "flags": flags,
        "words": ["a", "bc"], "table": {"columns": ["a", "b"], "types": ["Int8", "String"], "rows": [[-1, "x"]]},
        "motor": {"templateRef": "Motor", "version": "1", "values": {"rpm": 5}, "parameters": {"p": 0.1}}, "good": 1,
    }  # fmt: skip
    assert found["details"] == {
        "good": {
            "timestamp": 4, "isTransient": True, "metaData": {"description": "a thing"}, "properties": {"Quality": 192},
        }
    }  # fmt: skip


def test_no_value_of_a_payload_is_left_out(plant: History) -> None:
    found = said(
        plant,
        NODE.format("NDATA"),
        {"name": "t", "datatype": 3, "int_value": 1, "timestamp": 1},
        {"name": "t", "datatype": 3, "int_value": 2, "timestamp": 2},
        {"name": "t", "datatype": 3, "int_value": 0, "timestamp": 0, "is_historical": True},
    )
    assert found["values"] == {"t": 2}
    assert found["details"] == {"t": {"timestamp": 2}}
    assert found["earlier"] == [
        {"name": "t", "value": 1, "timestamp": 1},
        {"name": "t", "value": 0, "timestamp": 0, "isHistorical": True},
    ]


def test_what_is_remembered_of_nodes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.decoders import sparkplug

    monkeypatch.setattr(sparkplug, "MAX_NAMES", 10)
    monkeypatch.setattr(sparkplug, "MAX_SENDERS", 4)
    history = History()
    decoding = with_rules(history, make_rule(["spBv1.0/#"], ["sparkplug"]))
    decoder = decoding.rules[0].sparkplug
    assert decoder is not None
    for number in range(20):
        metrics = [{"name": f"m{n}", "alias": n, "datatype": 3, "int_value": n} for n in range(4)]
        said(history, f"spBv1.0/g/NBIRTH/n{number}", *metrics)
        births = decoder._births
        known = [birth for node in births._nodes.values() for birth in node.values() if birth is not None]
        assert births._names == sum(len(birth.types) for birth in known) <= 10
        assert births._senders == sum(map(len, births._nodes.values())) <= 4
    assert said(history, "spBv1.0/g/NDATA/n19", {"alias": 1, "int_value": 3})["values"] == {"m1": 3}
    # forgotten to make room, and not read again for each message
    assert said(history, "spBv1.0/g/NDATA/n17", {"alias": 1, "int_value": 3})["unknown"] == {"1": 3}


@pytest.mark.parametrize("algorithm", ["GZIP", "DEFLATE", None])
def test_a_compressed_payload_is_read(plant: History, algorithm: str | None) -> None:
    import gzip
    import zlib

    inner = spark(TEMP)
    body_bytes = gzip.compress(inner) if algorithm == "GZIP" else zlib.compress(inner)
    outer = payload_class()(timestamp=5, uuid="SPBV1.0_COMPRESSED", body=body_bytes)
    if algorithm:
        outer.metrics.add(name="algorithm", datatype=12, string_value=algorithm)
    message = plant.append(NODE.format("NDATA"), outer.SerializeToString(), 5)
    assert body(message)["payload"]["values"] == {"Temp": 21.1}


# for those who watch


def explained(history: History, decoding: Decoding, topic: str) -> Any:
    work = explain_topic(
        topic,
        Owner(ANYONE, "127.0.0.1"),
        upstream=UpstreamState("mqtt://broker"),
        upstream_reason=None,
        hub=make_hub(FakeLoop(), history=history),
        now_ms=5,
        started_ms=0,
        decoding=decoding,
    )
    return next(
        ((step.ok, step.text) for step in finished(work).steps if step.name == "decode"),
        None,
    )


def test_an_explanation_names_the_rule_and_what_it_made_of_the_newest_message() -> None:
    history = History()
    decoding = with_rules(history, cayenne(), make_rule(["spBv1.0/#"], ["sparkplug"]))
    history.append("other", b"1", 1)
    assert explained(history, decoding, "other") is None
    history.append("lora/a", TEMPERATURE, 1)
    assert explained(history, decoding, "lora/a") == (True, "of 'lora/a' 'cayenne' is decoded, the newest message, too")
    history.append("lora/a", b"\x03", 2)
    is_well, text = explained(history, decoding, "lora/#")
    assert is_well is False
    assert "could not be: cayenne: the type at byte 1 is cut short; it comes as base64" in text
    history.append("lora/a", b"", 3)
    assert explained(history, decoding, "lora/a")[0] is True
    said(history, NODE.format("NDATA"), {"alias": 7, "int_value": 3})
    assert "no BIRTH explained 1 aliases (7)" in explained(history, decoding, NODE.format("NDATA"))[1]
    # what failed before this start has no reason any more
    again = Decoding([cayenne()])
    history.append("lora/b", b"\x03", 4)
    assert "before this start" in explained(history, again, "lora/b")[1]


def test_reasons_are_kept_of_so_many_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.decoders.decoding.MAX_FAILURES", 3)
    rule = cayenne()
    for number in range(9):
        rule.decode(f"lora/{number}", b"\x03")
    assert [rule.failure(f"lora/{number}") is not None for number in range(9)] == [False] * 6 + [True] * 3


class _Panic(BaseException):
    """As the panic of a library in Rust comes."""


def test_whatever_a_library_raises_is_a_payload_that_cannot_be_read() -> None:
    class Broken:
        max_bytes = 100
        is_plain = True

        def __init__(self, error: BaseException) -> None:
            self.error = error

        def decode(self, _topic: str, _data: bytes) -> Any:
            raise self.error

    for error in (_Panic("index out of bounds"), MemoryError(), RecursionError(), KeyError("a")):
        rule = Rule(["#"], ("cbor",), [Broken(error)])
        assert rule.decode("a", b"1") == b""
        assert str(rule.failure("a")).startswith("cbor: ")
    with pytest.raises(KeyboardInterrupt):
        Rule(["#"], ("cbor",), [Broken(KeyboardInterrupt())]).decode("a", b"1")
