"""Avro, a datum without a header, by a schema from a file; read by fastavro.

Invariant: what a payload may make of a schema is bounded by its own length. So a schema is refused in which something
may take no byte and be there any number of times, and one that contains itself: fastavro goes as deep as a payload
says.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from gateway.decoders.failures import DecodeError, RuleFaultError
from gateway.decoders.values import Singles

__all__ = ["Avro"]

MAX_BYTES = 32 * 1024
"""An array of as many booleans takes 9 ms."""

_PRIMITIVES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}
"""The fewest bytes that each takes."""

_WAY_OUT = "name the file of an Avro schema, JSON as in https://avro.apache.org/docs/ (.avsc)"


class Avro:
    """One datum."""

    max_bytes = MAX_BYTES
    is_plain = False

    def __init__(self, schema_file: Path) -> None:
        """Reads the schema.

        Raises:
            RuleFaultError: it can't be used.
        """
        import fastavro

        self._read = fastavro.schemaless_reader
        try:
            schema = json.loads(schema_file.read_text(encoding="utf-8"))
            self._schema = fastavro.parse_schema(schema)
        except OSError as error:
            raise RuleFaultError("schema_file", f"can't be read: {error.strerror}", "give the path of a file") from None
        except Exception as error:  # noqa: BLE001 - fastavro raises what it meets
            text = f"is no Avro schema: {type(error).__name__}: {error}"[:200]
            raise RuleFaultError("schema_file", text, _WAY_OUT) from None
        self._has_singles = _Walk().check(schema)

    def decode(self, _topic: str, data: bytes) -> Any:
        """The datum."""
        file = io.BytesIO(data)
        value = self._read(file, self._schema, None)
        if file.tell() != len(data):
            raise DecodeError(f"the datum ends at byte {file.tell()} of {len(data)}")
        # which of its numbers were single the datum does not say: where all of them were, all can be shown so
        return Singles(value) if self._has_singles else value


class _Walk:
    """A walk through a schema."""

    def __init__(self) -> None:
        self._least: dict[str, int] = {}
        self._inside: list[str] = []
        self._floats: set[str] = set()

    def check(self, schema: Any) -> bool:
        """Whether all of its fractions are of single precision.

        Raises:
            RuleFaultError: a payload could make more of it than is safe.
        """
        self.least(schema, "")
        return self._floats == {"float"}

    def least(self, schema: Any, space: str) -> int:
        """The fewest bytes that it takes."""
        match schema:
            case str() if schema in _PRIMITIVES:
                self._floats |= {schema} & {"float", "double"}
                return _PRIMITIVES[schema]
            case str():
                name = schema if "." in schema or not space else f"{space}.{schema}"
                name = name if name in self._least or name in self._inside else schema
                if name in self._inside:
                    raise RuleFaultError(
                        "schema_file", f"{name} contains itself", "write it so that it has a known depth"
                    )
                return self._least.get(name, 0)
            case list():
                return 1 + min((self.least(branch, space) for branch in schema), default=0)
            case dict():
                return self._least_of(schema, space)
        return 0

    def _least_of(self, schema: dict[str, Any], space: str) -> int:
        kind = schema.get("type")
        match kind:
            case "array":
                if self.least(schema.get("items"), space) == 0:
                    text = "has an array of what takes no byte: a few bytes could be a billion items"
                    raise RuleFaultError("schema_file", text, "let each item have a field that is not null")
                return 1
            case "map":
                self.least(schema.get("values"), space)
                return 1
            case "enum":
                return self._named(schema, space, 1)
            case "fixed":
                return self._named(schema, space, int(schema.get("size", 0)))
            case "record" | "error":
                name, inner = _full_name(schema, space)
                self._inside.append(name)
                least = sum(self.least(field.get("type"), inner) for field in schema.get("fields", ()))
                self._inside.pop()
                return self._named(schema, space, least)
        return self.least(kind, space)

    def _named(self, schema: dict[str, Any], space: str, least: int) -> int:
        self._least[_full_name(schema, space)[0]] = least
        return least


def _full_name(schema: dict[str, Any], space: str) -> tuple[str, str]:
    """A type's full name, and the namespace of what is in it."""
    name = str(schema.get("name", ""))
    if "." in name:
        return name, name.rpartition(".")[0]
    space = schema.get("namespace", space)
    return (f"{space}.{name}" if space else name), space
