"""Protocol Buffers, by a descriptor set and the name of a message in it.

`protoc --include_imports --descriptor_set_out=readings.desc readings.proto` makes the file.

A message is an object under the names that its .proto has. A field that can't tell "0" from "not there" (proto3 without
`optional`) is always in it: zero degrees are a reading. An enum is its name, a timestamp ISO 8601, a duration seconds;
an `Any` is its type and its bytes.

Invariant: no more than `values.MAX_ITEMS` values are looked at.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.decoders.failures import DecodeError, RuleFaultError
from gateway.decoders.values import MAX_DEPTH, MAX_ITEMS, shortest

__all__ = ["Protobuf"]

MAX_BYTES = 64 * 1024
"""With as many numbers as are taken it takes 12 ms."""

_WAY_OUT = "make it with protoc --include_imports --descriptor_set_out=FILE"


class Protobuf:
    """One message."""

    max_bytes = MAX_BYTES
    is_plain = True

    def __init__(self, schema_file: Path, message: str) -> None:
        """Reads the descriptor set.

        Raises:
            RuleFaultError: it can't be used, or has no such message.
        """
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        from google.protobuf.message import DecodeError as WireError

        try:
            files = descriptor_pb2.FileDescriptorSet.FromString(schema_file.read_bytes())
        except OSError as error:
            raise RuleFaultError("schema_file", f"can't be read: {error.strerror}", "give the path of a file") from None
        except WireError:
            raise RuleFaultError("schema_file", "is no descriptor set", _WAY_OUT) from None
        pool = descriptor_pool.DescriptorPool()
        try:
            for file in files.file:
                pool.Add(file)  # type: ignore[no-untyped-call,unused-ignore]
            self._descriptor = pool.FindMessageTypeByName(message)
        except KeyError:
            names = [name for file in files.file for name in _names(file.package, file.message_type)]
            near = difflib.get_close_matches(message, names, 1, 0.5)
            short = next((name for name in names if name.rpartition(".")[2] == message), None)
            way_out = (
                f"did you mean {short or near[0]}?" if short or near else f"it has {', '.join(names[:8]) or 'none'}"
            )
            raise RuleFaultError("message", f"there is no message {message!r} in {schema_file}", way_out) from None
        except Exception as error:  # noqa: BLE001 - what is not complete raises what it meets
            raise RuleFaultError("schema_file", f"can't be used: {error}"[:300], _WAY_OUT) from None
        self._type = message_factory.GetMessageClass(self._descriptor)
        self._error = WireError

    def decode(self, _topic: str, data: bytes) -> Any:
        """The message as an object."""
        try:
            message = self._type.FromString(data)
        except self._error as error:
            raise DecodeError(f"it is no {self._descriptor.full_name}: {error}") from None
        return _Walk().message(message, MAX_DEPTH)


def _names(prefix: str, messages: Any) -> list[str]:
    found: list[str] = []
    for message in messages:
        name = f"{prefix}.{message.name}" if prefix else message.name
        if not message.options.map_entry:
            found += [name, *_names(name, message.nested_type)]
    return found


class _Walk:
    """Goes through one message."""

    def __init__(self) -> None:
        self._left = MAX_ITEMS

    def message(self, message: Any, depth: int) -> Any:
        if depth == 0:
            raise DecodeError(f"it is nested deeper than {MAX_DEPTH} levels")
        descriptor = message.DESCRIPTOR
        if (known := _WELL_KNOWN.get(descriptor.full_name)) is not None:
            return known(self, message, depth)
        found: dict[str, Any] = {
            field.name: self._value(field, getattr(message, field.name), depth)
            for field in descriptor.fields
            if not field.has_presence and not field.is_repeated
        }
        for field, value in message.ListFields():
            if not field.is_repeated:
                found[field.name] = self._value(field, value, depth)
            elif field.message_type is not None and field.message_type.GetOptions().map_entry:
                of = field.message_type.fields_by_name["value"]
                found[field.name] = {_key(key): self._value(of, value[key], depth) for key in value}
            else:
                found[field.name] = [self._value(field, item, depth) for item in value]
        return found

    def _value(self, field: Any, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise DecodeError(f"it has more than {MAX_ITEMS} values")
        if field.message_type is not None:
            return self.message(value, depth - 1)
        if field.enum_type is not None:
            named = field.enum_type.values_by_number.get(value)
            return value if named is None else named.name
        return shortest(value) if field.type == field.TYPE_FLOAT else value


def _key(key: Any) -> Any:
    return str(key).lower() if isinstance(key, bool) else key


def _wrapped(walk: _Walk, message: Any, depth: int) -> Any:
    return walk._value(message.DESCRIPTOR.fields_by_name["value"], message.value, depth)


def _any(_walk: _Walk, message: Any, _depth: int) -> Any:
    return {"type": message.type_url, "value": message.value}


def _struct(walk: _Walk, message: Any, depth: int) -> Any:
    return {key: walk.message(message.fields[key], depth - 1) for key in message.fields}


def _list(walk: _Walk, message: Any, depth: int) -> Any:
    return [walk.message(item, depth - 1) for item in message.values]


def _loose(walk: _Walk, message: Any, depth: int) -> Any:
    walk._left -= 1
    if walk._left < 0:
        raise DecodeError(f"it has more than {MAX_ITEMS} values")
    kind = message.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    inner = getattr(message, kind)
    return walk.message(inner, depth - 1) if kind in ("struct_value", "list_value") else inner


_KINDS = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
_WELL_KNOWN: dict[str, Callable[[_Walk, Any, int], Any]] = {
    "google.protobuf.Timestamp": lambda _walk, message, _depth: message.ToJsonString(),
    "google.protobuf.Duration": lambda _walk, message, _depth: message.seconds + message.nanos / 1e9,
    "google.protobuf.Any": _any,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
    "google.protobuf.Value": _loose,
    **{f"google.protobuf.{kind}Value": _wrapped for kind in _KINDS},
}
