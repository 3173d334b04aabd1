"""Decoders: what each format becomes, and that no payload makes more of it than its bounds."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import fastavro
import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.messages import Message
from gateway.decoders.decoding import Rule, make_rule
from gateway.decoders.failures import DecodeError, RuleFaultError
from gateway.decoders.formats import FORMATS
from gateway.decoders.values import MAX_DEPTH, MAX_ITEMS, MAX_JSON_BYTES, shortest, to_json
from tests.support.yardsticks import YARDSTICK_SECONDS, in_yardsticks

NBIRTH, NDATA, NDEATH = "spBv1.0/plant/NBIRTH/press", "spBv1.0/plant/NDATA/press", "spBv1.0/plant/NDEATH/press"
DBIRTH, DDATA = "spBv1.0/plant/DBIRTH/press/oil", "spBv1.0/plant/DDATA/press/oil"


def rule(*names: str, **more: Any) -> Rule:
    return make_rule(["#"], names, **more)


def read(names: str, payload: bytes, topic: str = "a", **more: Any) -> Any:
    """What a rule makes of a payload, by a strict reader of JSON."""
    found = rule(*names.split("+"), **more).read(topic, payload)
    return None if found is None else json.loads(found, parse_constant=pytest.fail)


def reason(names: str, payload: bytes, **more: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        rule(*names.split("+"), **more).read("a", payload)
    return str(caught.value)


# values


def test_what_json_has_no_word_for_has_a_form() -> None:
    value = {
        "nan": float("nan"),
        "inf": float("-inf"),
        "u64": 2**64 - 1,
        "i64": -(2**63),
        "long": 2**70,
        "bytes": b"\xff\0",
    }
    assert json.loads(to_json(value)) == {
        "nan": None, "inf": None, "u64": 2**64 - 1, "i64": -(2**63), "long": str(2**70), "bytes": "/wA=",
    }  # fmt: skip
    assert b"18446744073709551615" in to_json(value)
    keys = {2: "a", None: "b", True: "c", 1.5: "d", b"\xff": "e", (1, "x"): "f"}
    assert json.loads(to_json(keys)).keys() == {"2", "null", "true", "1.5", "/w==", '[1,"x"]'}


@pytest.mark.parametrize("is_plain", [True, False])
def test_a_value_beyond_the_bounds_is_none(is_plain: bool) -> None:
    with pytest.raises(DecodeError, match=f"more than {MAX_JSON_BYTES} bytes"):
        to_json("x" * (MAX_JSON_BYTES + 1), is_plain=is_plain)
    with pytest.raises(DecodeError, match="no form in JSON"):
        to_json("\ud800", is_plain=is_plain)


def test_a_value_of_too_many_items_or_levels_is_none() -> None:
    assert to_json([0] * (MAX_ITEMS - 1))
    with pytest.raises(DecodeError, match=f"more than {MAX_ITEMS} values"):
        to_json([0] * MAX_ITEMS)
    deep: Any = 0
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert to_json(deep)
    with pytest.raises(DecodeError, match=f"deeper than {MAX_DEPTH} levels"):
        to_json([deep])
    shared: Any = ["x" * 100]
    for _ in range(30):
        shared = [shared, shared]  # small in memory, a gigabyte as JSON
    with pytest.raises(DecodeError):
        to_json(shared)
    with pytest.raises(DecodeError, match="whole number of more than"):
        to_json(1 << 5_000)


@given(st.floats(width=32))
def test_the_shortest_number_is_the_same_in_single_precision(number: float) -> None:
    assert struct.pack("<f", shortest(number)) == struct.pack("<f", number) or number != number


def test_a_number_of_single_precision_has_the_digits_that_were_meant() -> None:
    for number in (21.1, -0.1, 1e-7, 16777216.0, 0.0):
        assert shortest(struct.unpack("<f", struct.pack("<f", number))[0]) == pytest.approx(number, rel=1e-9)
    assert shortest(struct.unpack("<f", struct.pack("<f", 21.1))[0]) == 21.1


# compression


def test_compressed_json_is_the_json_within() -> None:
    assert read("gzip", gzip.compress(b'{"t": 21.5}')) == {"t": 21.5}
    assert read("zlib", zlib.compress(b"21.5 C")) == "21.5 C"
    assert read("gzip+zlib+cbor", gzip.compress(zlib.compress(cbor2.dumps({"t": 21.5})))) == {"t": 21.5}


def test_what_is_inflated_is_bounded_and_whole() -> None:
    assert "more than 131072 bytes" in reason("gzip", gzip.compress(bytes(50_000_000)))
    assert "cut short" in reason("gzip", gzip.compress(b"abc" * 100)[:-3])
    assert "behind" in reason("gzip", gzip.compress(b"1") * 2)
    assert "no text" in reason("gzip", gzip.compress(b"\xff\xfe"))
    assert "gzip" in reason("gzip", b'{"t":1}')
    assert "more than the 32768" in reason("gzip+cbor", gzip.compress(b"\x40" * 40_000))


# cbor


def test_cbor_becomes_json() -> None:
    value = {"t": 21.5, "ok": True, "n": None, "list": [1, -2, {"x": b"\x01"}], 5: "five"}
    assert read("cbor", cbor2.dumps(value)) == {
        "t": 21.5, "ok": True, "n": None, "list": [1, -2, {"x": "AQ=="}], "5": "five",
    }  # fmt: skip
    assert read("cbor", bytes.fromhex("83f7e0f97e00")) == [None, None, None]  # undefined, a simple value, NaN
    assert read("cbor", b"\xc2\x49\x01" + bytes(8)) == str(2**64)
    assert read("cbor", b"\xc3\x41\x00") == -1


def test_tags_of_cbor_are_passed_over() -> None:
    assert read("cbor", b"\xc0" + cbor2.dumps("2026-11-27T07:00:00Z")) == "2026-11-27T07:00:00Z"
    assert read("cbor", b"\xd8\x23" + cbor2.dumps("(a+)+$")) == "(a+)+$"
    assert read("cbor", b"\xd8\x24" + cbor2.dumps("From: a")) == "From: a"
    assert read("cbor", b"\xd9\xd9\xf7\x81\x01") == [1]
    assert read("cbor", b"\xc5\x82\x1b\x00\x00\x00\xff\xff\xff\xff\xff\x01") == [2**40 - 1, 1]
    assert read("cbor", b"\xd9\x02\x58\x41\x01") == "AQ=="
    assert "not followed" in reason("cbor", bytes.fromhex("82d81c8101d81d00"))
    assert "not followed" in reason("cbor", bytes.fromhex("d9010082656161616161d81900"))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"\x81",
        b"\x9b" + b"\xff" * 8,
        b"\x7b" + b"\xff" * 8,
        b"\x01\x02",
        b"\x81" * 30_000,
        b"\x62\xff\xfe",
    ],
)
def test_what_is_no_cbor_fails(payload: bytes) -> None:
    assert reason("cbor", payload).startswith("cbor: ")


# msgpack


def test_msgpack_becomes_json() -> None:
    assert read("msgpack", bytes.fromhex("82a174cb4035800000000000a178c403ff0001")) == {"t": 21.5, "x": "/wAB"}
    assert read("msgpack", b"\xd6\xff\x00\x00\x00\x01") == "1970-01-01T00:00:01+00:00"
    assert read("msgpack", b"\x93\xcf" + b"\xff" * 8 + b"\xd4\x05\x01" + b"\xca\x7f\xc0\0\0") == [
        2**64 - 1,
        "AQ==",
        None,
    ]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x01\x02", b"\x91" * 30_000, b"\xdd\xff\xff\xff\xff", b"\xa1\xff"])
def test_what_is_no_msgpack_fails(payload: bytes) -> None:
    assert reason("msgpack", payload).startswith("msgpack: ")


# line


def test_a_line_becomes_an_object_and_several_an_array() -> None:
    line = b'weather\\ data,city=New\\ York,of=a\\=b temp=21.5,n=-3i,u=7u,ok=t,s="a \\"b\\", c=1",e=1e3 179'
    assert read("line", line) == {
        "measurement": "weather data",
        "tags": {"city": "New York", "of": "a=b"},
        "fields": {"temp": 21.5, "n": -3, "u": 7, "ok": True, "s": 'a "b", c=1', "e": 1000.0},
        "timestamp": 179,
    }
    assert read("line", b"# of today\n\nw t=1\r\nw t=2 5\n") == [
        {"measurement": "w", "fields": {"t": 1.0}},
        {"measurement": "w", "fields": {"t": 2.0}, "timestamp": 5},
    ]
    assert read("line", 'w s="two\nlines",ü="ä"'.encode())["fields"] == {"s": "two\nlines", "ü": "ä"}
    assert read("line", b"w t=1e999")["fields"] == {"t": None}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"w", "a space before the fields"),
        (b"w t", "character 3: expected a field"),
        (b"w t=", "a field"),
        (b"w t=x", "character 5: expected a number"),
        (b"w t=1,", "a field"),
        (b"w t=0x1", "a number"),
        (b"w t=99999999999999999999i", "a number"),
        (b"w,a t=1", "a tag"),
        (b"w t=1 now", "a timestamp"),
        (b"w t=1\nw u", "line 2, character 3"),
        (b"", "no line"),
        (b"\xff", "UTF-8"),
        (b",a=b t=1", "not empty"),
    ],
)
def test_what_is_no_line_says_where(payload: bytes, expected: str) -> None:
    assert expected in reason("line", payload)


# senml


def test_senml_is_resolved_by_name() -> None:
    pack = [
        {"bn": "urn:dev:ow:10:", "bt": 1.276020076e09, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
        {"n": "current", "t": -1, "v": 1.2},
        {"n": "current", "v": 1.7},
        {"n": "door", "vb": True},
        {"n": "name", "vs": "x"},
        {"n": "energy", "u": "J", "s": 5},
    ]  # fmt: skip
    assert read("senml", json.dumps(pack).encode()) == {
        "base": "urn:dev:ow:10:",
        "values": {"voltage": 120.1, "current": 1.7, "door": True, "name": "x", "energy": None},
        "units": {"voltage": "V", "current": "A", "door": "A", "name": "A", "energy": "J"},
        "times": dict.fromkeys(("voltage", "current", "door", "name", "energy"), 1276020076.0),
        "sums": {"energy": 5},
        "earlier": [{"unit": "A", "time": 1276020075.0, "value": 1.2, "name": "current"}],
    }
    assert read("senml", b'[{"n":"urn:dev:t","u":"Cel","v":23.1}]') == {
        "values": {"urn:dev:t": 23.1}, "units": {"urn:dev:t": "Cel"},
    }  # fmt: skip
    # names of different bases stay whole; base values add up
    assert read("senml", b'[{"bn":"a/","bv":20,"n":"t","v":1},{"bn":"b/","n":"t"}]') == {
        "values": {"a/t": 21, "b/t": 20}
    }


def test_senml_of_cbor_has_numbers_for_labels() -> None:
    assert read("cbor+senml", cbor2.dumps([{-2: "dev/", 0: "t", 1: "Cel", 2: 23.1}])) == {
        "base": "dev/", "values": {"t": 23.1}, "units": {"t": "Cel"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pack", "expected"),
    [
        (b"{", "not valid JSON"),
        (b"{}", "array of records"),
        (b"[]", "array of records"),
        (b"[1]", "record 1 is no object"),
        (b'[{"v":1}]', "no name"),
        (b'[{"n":"a","v":1,"vb":true}]', "2 values"),
        (b'[{"n":"a","v":"1"}]', "v is no number"),
        (b'[{"n":"a","v":1,"x_":1}]', "has to be understood"),
        (b'[{"n":"a","v":1,"bver":99}]', "version 99"),
    ],
)
def test_what_is_no_senml_fails(pack: bytes, expected: str) -> None:
    assert expected in reason("senml", pack)


# cayenne


def test_cayenne_is_named_by_type_and_channel() -> None:
    assert read("cayenne", bytes.fromhex("03670110056700FF")) == {"temperature_3": 27.2, "temperature_5": 25.5}
    assert read("cayenne", bytes.fromhex("0167FFD7")) == {"temperature_1": -4.1}
    assert read("cayenne", bytes.fromhex("067104D2FB2E0000")) == {
        "accelerometer_6": {"x": 1.234, "y": -1.234, "z": 0.0}
    }
    assert read("cayenne", bytes.fromhex("018806765FF2960A0003E8")) == {
        "gps_1": {"latitude": 42.3519, "longitude": -87.9094, "altitude": 10.0}
    }
    assert read("cayenne", bytes.fromhex("026864 0A0201F4 0500FF 07FF01".replace("07FF01", "078E01"))) == {
        "relative_humidity_2": 50.0, "analog_in_10": 5.0, "digital_in_5": 255, "switch_7": 1,
    }  # fmt: skip
    assert "cut short" in reason("cayenne", bytes.fromhex("0367"))
    assert "type 250" in reason("cayenne", bytes.fromhex("03fa00"))
    assert "cut short" in reason("cayenne", bytes.fromhex("03"))


# avro


@pytest.fixture
def avro(tmp_path: Path) -> Callable[[Any], Path]:
    def write(schema: Any) -> Path:
        file = tmp_path / "reading.avsc"
        file.write_text(schema if isinstance(schema, str) else json.dumps(schema), encoding="utf-8")
        return file

    return write


READING = {
    "type": "record",
    "name": "Reading",
    "namespace": "farm",
    "fields": [
        {"name": "t", "type": "float"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "tag", "type": ["null", "string"]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "more", "type": {"type": "array", "items": {"type": "record", "name": "P", "fields": [
            {"name": "kind", "type": "Kind"}, {"name": "id", "type": {"type": "fixed", "name": "F", "size": 2}}]}}},
    ],
}  # fmt: skip


def avro_bytes(schema: Any, value: Any) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, schema, value)
    return file.getvalue()


def test_avro_is_read_by_its_schema(avro: Callable[[Any], Path]) -> None:
    value = {"t": 21.1, "at": 1790000000123, "tag": None, "kind": "B", "more": [{"kind": "A", "id": b"\x01\x02"}]}
    payload = avro_bytes(READING, value)
    assert read("avro", payload, schema_file=avro(READING)) == {
        "t": 21.1, "at": "2026-09-21T14:13:20.123000+00:00", "tag": None, "kind": "B",
        "more": [{"kind": "A", "id": "AQI="}],
    }  # fmt: skip
    assert "ends at byte" in reason("avro", payload + b"\0", schema_file=avro(READING))
    assert reason("avro", payload[:-1], schema_file=avro(READING))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "array", "items": "null"}, "takes no byte"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, "takes no byte"),
        (
            {"type": "map", "values": {"type": "array", "items": {"type": "record", "name": "R", "fields": []}}},
            "no byte",
        ),
        (
            {"type": "record", "name": "R", "namespace": "n", "fields": [{"name": "next", "type": ["null", "R"]}]},
            "contains itself",
        ),
        ("{", "is no Avro schema"),
        ({"type": "wrong"}, "is no Avro schema"),
    ],
)
def test_a_schema_of_which_a_payload_could_make_too_much_is_refused(
    avro: Callable[[Any], Path], schema: Any, expected: str
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        rule("avro", schema_file=avro(schema))
    assert expected in str(caught.value.exceptions[0])


# protobuf


@pytest.fixture
def descriptors(tmp_path: Path) -> Path:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="farm.proto", package="farm.v1", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    file.dependency.append("google/protobuf/struct.proto")
    state = file.enum_type.add(name="State")
    state.value.add(name="OFF", number=0)
    state.value.add(name="ON", number=1)
    reading = file.message_type.add(name="Reading")
    entry = reading.nested_type.add(name="ByIdEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_INT32, label=1)
    entry.field.add(name="value", number=2, type=kinds.TYPE_DOUBLE, label=1)

    def add(name: str, number: int, kind: int, label: int = 1, of: str = "") -> None:
        reading.field.add(name=name, number=number, type=kind, label=label, type_name=of or None)

    add("temp", 1, kinds.TYPE_FLOAT)
    add("count", 2, kinds.TYPE_UINT64)
    add("state", 3, kinds.TYPE_ENUM, of=".farm.v1.State")
    add("raw", 4, kinds.TYPE_BYTES)
    add("list", 5, kinds.TYPE_SINT32, 3)
    add("inner", 6, kinds.TYPE_MESSAGE, of=".farm.v1.Reading")
    add("by_id", 7, kinds.TYPE_MESSAGE, 3, ".farm.v1.Reading.ByIdEntry")
    add("at", 8, kinds.TYPE_MESSAGE, of=".google.protobuf.Timestamp")
    add("any", 9, kinds.TYPE_MESSAGE, of=".google.protobuf.Struct")
    from google.protobuf import struct_pb2, timestamp_pb2

    whole = descriptor_pb2.FileDescriptorSet()
    for module in (timestamp_pb2, struct_pb2):
        module.DESCRIPTOR.CopyToProto(whole.file.add())
    whole.file.append(file)
    path = tmp_path / "farm.desc"
    path.write_bytes(whole.SerializeToString())
    return path


def test_protobuf_is_read_by_its_descriptor_set(descriptors: Path) -> None:
    payload = bytes.fromhex("0dcdcca841") + b"\x10" + b"\xff" * 9 + b"\x01" + bytes.fromhex("1801220201ff2a020304")
    payload += bytes.fromhex("3a0b0805110000000000003540") + b"\x42\x02\x08\x01" + b"\x32\x02\x18\x07"
    payload += b"\x4a\x09\x0a\x07\x0a\x01x\x12\x02\x20\x01"
    assert read("protobuf", payload, schema_file=descriptors, message="farm.v1.Reading") == {
        "temp": 21.1, "count": 2**64 - 1, "state": "ON", "raw": "Af8=", "list": [-2, 2],
        "by_id": {"5": 21.0}, "at": "1970-01-01T00:00:01Z", "any": {"x": True},
        "inner": {"temp": 0.0, "count": 0, "state": 7, "raw": ""},
    }  # fmt: skip
    # zero degrees are a reading
    assert read("protobuf", b"", schema_file=descriptors, message="farm.v1.Reading")["temp"] == 0.0


def test_protobuf_that_is_none_or_too_deep_fails(descriptors: Path) -> None:
    more = {"schema_file": descriptors, "message": "farm.v1.Reading"}
    assert "is no farm.v1.Reading" in reason("protobuf", b"\xff", **more)
    payload = b""
    for _ in range(MAX_DEPTH + 1):
        size = len(payload)
        payload = b"\x32" + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + payload
    assert "deeper" in reason("protobuf", payload, **more)
    assert "more than 10000 values" in reason("protobuf", b"\x28\x01" * 10_001, **more)
    payload = b"\x0a\x00" * 10_001  # empty values of a list in an object of google.protobuf.Struct
    for head in (b"\x32", b"\x0a\x01x\x12", b"\x0a", b"\x4a"):
        size = len(payload)
        payload = head + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + payload
    assert "more than 10000 values" in reason("protobuf", payload, **more)


# rules


def faults(*names: str, **more: Any) -> list[RuleFaultError]:
    with pytest.raises(ExceptionGroup) as caught:
        rule(*names, **more)
    return [fault for fault in caught.value.exceptions if isinstance(fault, RuleFaultError)]


def test_what_is_wrong_with_a_rule_is_told_with_what_was_meant(descriptors: Path, tmp_path: Path) -> None:
    assert [fault.way_out for fault in faults("cbro", "gzpi")] == ["did you mean cbor?", "did you mean gzip?"]
    assert faults("influxdb")[0].way_out == "did you mean line?"
    assert "there are sparkplug, protobuf" in faults("xyzzy")[0].way_out
    assert "can't read what 'cbor' makes" in str(faults("cbor", "gzip")[0])
    assert "one to 4" in str(faults()[0])
    assert {fault.key for fault in faults("protobuf")} == {"schema_file", "message"}
    assert "means nothing" in str(faults("cbor", message="x")[0])
    assert faults("gzip", "sparkplug")[0].way_out == 'write as = "sparkplug", which reads it'
    wrong = faults("protobuf", schema_file=descriptors, message="Reading")[0]
    assert wrong.way_out == "did you mean farm.v1.Reading?"
    assert "can't be read" in str(faults("avro", schema_file=tmp_path / "none")[0])
    (tmp_path / "x").write_bytes(b"\xff\xff")
    assert "no descriptor set" in str(faults("protobuf", schema_file=tmp_path / "x", message="x")[0])


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.extra])
def test_a_missing_library_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch, descriptors: Path) -> None:
    for module in ("cbor2", "fastavro", "google.protobuf"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    needs = {"schema_file": descriptors, "message": "farm.v1.Reading"}
    more = {key: needs[key] for key in FORMATS[name].needs}
    [fault] = faults(name, **more)
    assert fault.way_out == f"pip install 'mqtt-browser-gateway[{name}]'"


# hostile payloads

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "80"))


def _samples() -> dict[str, bytes]:
    from gateway.decoders.sparkplug_form import payload_class

    payload = payload_class()(timestamp=5, seq=1)
    metric = payload.metrics.add(name="a", alias=1, datatype=3, int_value=7)
    metric.properties.keys.append("q")
    metric.properties.values.add(type=3, int_value=192)
    table = payload.metrics.add(name="d", datatype=16).dataset_value
    table.columns.append("x")
    table.types.append(9)
    table.rows.add().elements.add(float_value=1.5)
    payload.metrics.add(name="t", datatype=19).template_value.metrics.add(name="m", double_value=1)
    payload.metrics.add(name="s", datatype=33, bytes_value=b"a\0b\0")
    return {
        "sparkplug": payload.SerializeToString(),
        "cbor": cbor2.dumps({"a": [1, 2.5, b"x", {"b": None}], 3: "c"}),
        "msgpack": bytes.fromhex("82a174cb4035800000000000a178c403ff0001"),
        "line": b'w,a=b t=1,s="x" 5\nw t=2i',
        "senml": b'[{"bn":"a/","bt":5,"n":"t","u":"Cel","v":1},{"n":"t","t":-1,"vs":"x","s":2}]',
        "cayenne": bytes.fromhex("03670110056700FF018806765FF2960A0003E8"),
        "gzip": gzip.compress(b'{"t":1}'),
        "zlib": zlib.compress(b'{"t":1}'),
        "avro": avro_bytes(READING, {"t": 1.0, "at": 5, "tag": "x", "kind": "A", "more": [{"kind": "B", "id": b"ab"}]}),
        "protobuf": bytes.fromhex("0dcdcca8411801220201ff2a0203043a0b0805110000000000003540") + b"\x42\x02\x08\x01",
        "cbor+senml": cbor2.dumps([{-2: "dev/", 0: "t", 1: "Cel", 2: 23.1}]),
        "zlib+line": zlib.compress(b"w t=1"),
    }


def _hostile(sample: bytes) -> st.SearchStrategy[bytes]:
    """Anything, and what is nearly right: pieces of a sample, bytes of it changed, repeated."""
    place = st.integers(0, max(len(sample) - 1, 0))
    changed = st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4).map(
        lambda changes: _changed(sample, changes)
    )
    piece = st.tuples(place, place).map(lambda ends: sample[min(ends) : max(ends)])
    return st.binary(max_size=300) | changed | piece | st.tuples(changed, piece).map(b"".join)


def _changed(sample: bytes, changes: list[tuple[int, int]]) -> bytes:
    found = bytearray(sample)
    for at, byte in changes:
        found[at] = byte
    return bytes(found)


@pytest.mark.parametrize("names", sorted([*FORMATS, "cbor+senml", "zlib+line"]))
def test_no_payload_makes_more_than_valid_json_within_the_bounds(
    names: str, descriptors: Path, avro: Callable[[Any], Path]
) -> None:
    needs: dict[str, dict[str, Any]] = {
        "protobuf": {"schema_file": descriptors, "message": "farm.v1.Reading"},
        "avro": {"schema_file": avro(READING)},
    }
    sample = _samples()[names]
    found = rule(*names.split("+"), **needs.get(names, {}))
    assert found.decode(NDATA, sample)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(payload=_hostile(sample), topic=st.sampled_from([NBIRTH, NDATA, DBIRTH, DDATA, NDEATH]))
    def run(payload: bytes, topic: str) -> None:
        token = found.decode(topic, payload)
        assert token is not None
        assert len(token) <= MAX_JSON_BYTES
        if token:
            json.loads(token, parse_constant=pytest.fail)
            assert Message.arrived(1, "a", token, 0).token == token

    run()
    assert found.failed


MAX_MS = 20
"""What a decode may hold the loop for, on the machine of the yardstick."""


def _worst() -> dict[str, list[tuple[str, bytes]]]:
    """Payloads of the greatest length that cost the most, as was found by trying."""
    from gateway.decoders.sparkplug_form import payload_class

    def birth(count: int) -> bytes:
        payload = payload_class()(timestamp=1, seq=0)
        for number in range(count):
            payload.metrics.add(
                name=f"Area/Sensor {number}/Temperature", alias=number, datatype=9, float_value=number / 7, timestamp=2
            )
        return payload.SerializeToString()  # type: ignore[no-any-return]

    return {
        "sparkplug": [
            (NBIRTH, birth(2_490)),
            (NDATA, birth(2_490)),
            (NBIRTH, birth(6_800)),
            (NBIRTH, b"\x12\x00" * (192 * 1024)),
        ],
        "cbor": [("a", b"\x99\x7f\xfd" + b"\xa0" * 32_765), ("a", b"\x99\x26\xac" + b"\xa0" * 9_900)],
        "msgpack": [("a", b"\xdc\xff\xfd" + b"\x80" * 65_533)],
        "line": [
            ("a", b"w " + b",".join(b"f%04d=1" % number for number in range(3_900))),
            ("a", b"\n".join(b"w f=1.25" for _ in range(1_950))),
            ("a", b"w" + b"\\," * 16_000 + b" f=1"),
            ("a", b'w f="' + b'\\"' * 16_000 + b'"'),
            ("a", b"\n" * 32_767),
            ("a", b"#\n" * 16_383),
            ("a", b"w" + b" " * 32_766),
            ("a", b"w f=1" + b" " * 32_762),
            ("a", b"w f=1" + b" " * 32_762 + b"x"),
            ("a", b"w f=1 5" + b" " * 32_760 + b"x"),
            ("a", b"w f=" + b"1" * 32_763 + b"x"),
            ("a", b"w f=1." + b"1" * 32_761 + b"x"),
            ("a", b"w f=1e" + b"1" * 32_761 + b"x"),
        ],
        "senml": [
            ("a", json.dumps([{"n": "n", "v": n, "t": n} for n in range(1_600)], separators=(",", ":")).encode())
        ],
        "cayenne": [("a", b"".join(bytes([n & 255, 102, 1]) for n in range(1_365)))],
        "gzip": [("a", gzip.compress(b"[" + b"1," * 65_000 + b"1]")), ("a", gzip.compress(bytes(50_000_000)))],
        "zlib": [("a", zlib.compress("ä".encode() * 65_000))],
        "avro": [("a", b"\xfc\x9a\x7f"[:0] + b"".join((b"\xc0\xbb\x01" + b"\xcd\xcc\xa8A" * 6_000, b"\0")))],
        "protobuf": [("a", b"\x28\x01" * 32_000), ("a", b"\x32\x00" * 9_000)],
    }


@pytest.mark.timing
@pytest.mark.parametrize("name", FORMATS)
def test_no_payload_holds_the_loop_for_longer_than_is_promised(
    name: str, descriptors: Path, avro: Callable[[Any], Path]
) -> None:
    floats = {"type": "array", "items": {"type": "record", "name": "r", "fields": [{"name": "x", "type": "float"}]}}
    needs: dict[str, dict[str, Any]] = {
        "protobuf": {"schema_file": descriptors, "message": "farm.v1.Reading"},
        "avro": {"schema_file": avro(floats)},
    }
    for topic, payload in _worst()[name]:
        found = rule(name, **needs.get(name, {}))
        assert len(payload) <= found.max_bytes

        def once(found: Rule = found, topic: str = topic, payload: bytes = payload) -> float:
            began = time.thread_time()
            found.decode(topic, payload)
            return time.thread_time() - began

        assert in_yardsticks(once) * YARDSTICK_SECONDS * 1000 < MAX_MS, payload[:40]
