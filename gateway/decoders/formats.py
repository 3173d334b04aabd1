"""The table of formats: what a rule may name, what each takes and gives, and which package it needs.

Invariant: a library is imported when a rule names its format, and not before; one that is missing says what to install.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["FORMATS", "Decoder", "Format"]

PACKAGE = "mqtt-browser-gateway"


class Decoder(Protocol):
    """Reads payloads of one format."""

    @property
    def max_bytes(self) -> int:
        """The longest that it reads: about what takes it 15 ms at worst."""

    @property
    def is_plain(self) -> bool:
        """Whether what it gives is bounded by itself, and of what JSON has words for, bytes besides."""

    def decode(self, topic: str, data: Any) -> Any:
        """What is in it.

        Raises:
            NotMeantError: it is none of those that the format is for.
            Exception: whatever is wrong with it.
        """


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the table.

    Attributes:
        text: what it is, for documents.
        make: makes its decoder of the rule's schema file and message.
        extra: of our package, which brings the library; None where none is needed.
        needs: keys that a rule must have for it.
        is_wrapping: whether bytes come of it, which the next one reads.
        reads_values: whether it also reads what another format made.
    """

    text: str
    make: Callable[[Path, str], Decoder]
    extra: str | None = None
    needs: tuple[str, ...] = ()
    is_wrapping: bool = False
    reads_values: bool = False

    @property
    def install(self) -> str:
        """What to do where its library is missing."""
        return f"pip install '{PACKAGE}[{self.extra}]'"


def _gzip(_schema: Path, _message: str) -> Decoder:
    from gateway.decoders.compression import GZIP, Compressed

    return Compressed(GZIP)


def _zlib(_schema: Path, _message: str) -> Decoder:
    from gateway.decoders.compression import ZLIB, Compressed

    return Compressed(ZLIB)


def _sparkplug(_schema: Path, _message: str) -> Decoder:
    from gateway.decoders.sparkplug import Sparkplug

    return Sparkplug()


def _protobuf(schema: Path, message: str) -> Decoder:
    from gateway.decoders.protobuf import Protobuf

    return Protobuf(schema, message)


def _cbor(_schema: Path, _message: str) -> Decoder:
    from gateway.decoders.cbor import Cbor

    return Cbor()


def _msgpack(_schema: Path, _message: str) -> Decoder:
    from gateway.decoders.msgpack import MessagePack

    return MessagePack()


def _avro(schema: Path, _message: str) -> Decoder:
    from gateway.decoders.avro import Avro

    return Avro(schema)


def _line(_schema: Path, _message: str) -> Decoder:
    from gateway.decoders.line import Lines

    return Lines()


def _senml(_schema: Path, _message: str) -> Decoder:
    from gateway.decoders.senml import SenML

    return SenML()


def _cayenne(_schema: Path, _message: str) -> Decoder:
    from gateway.decoders.cayenne import Cayenne

    return Cayenne()


FORMATS: dict[str, Format] = {
    "sparkplug": Format("Sparkplug B", _sparkplug, "sparkplug"),
    "protobuf": Format("Protocol Buffers", _protobuf, "protobuf", ("schema_file", "message")),
    "cbor": Format("CBOR", _cbor, "cbor"),
    "msgpack": Format("MessagePack", _msgpack),
    "avro": Format("Avro, a datum without a header", _avro, "avro", ("schema_file",)),
    "line": Format("InfluxDB line protocol", _line),
    "senml": Format("SenML", _senml, reads_values=True),
    "cayenne": Format("Cayenne LPP", _cayenne),
    "gzip": Format("gzip, before any", _gzip, is_wrapping=True),
    "zlib": Format("zlib, before any", _zlib, is_wrapping=True),
}
"""By the name that a rule has for it."""
