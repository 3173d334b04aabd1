"""Rules: which payloads are decoded, by whom; decided once for each topic.

Invariant: the first rule that matches a topic decides. Nothing that a payload has makes `Rule.decode` raise.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from gateway.core.filters import FilterSet
from gateway.core.history import Decode, History
from gateway.core.messages import Message
from gateway.decoders.failures import DecodeError, NotMeantError, RuleFaultError
from gateway.decoders.formats import FORMATS, Decoder
from gateway.decoders.sparkplug import Sparkplug, TooManyError
from gateway.decoders.values import to_json

__all__ = ["Decoding", "Rule", "make_rule"]

MAX_FAILURES = 1_000
"""Topics of which is remembered why the newest payload that could not be decoded couldn't."""

MAX_STEPS = 4


class Rule:
    """One rule.

    Attributes:
        name: its formats, as they are counted: `gzip+cbor`.
        filters: the topics that it is for.
        decoded: how many payloads it made JSON of.
        failed: how many it could not read.
        sparkplug: its decoder, where that is for Sparkplug.
    """

    def __init__(self, topics: Iterable[str], names: Sequence[str], decoders: Sequence[Decoder]) -> None:
        self.name = "+".join(names)
        self.filters = FilterSet(topics)
        self.decoded = 0
        self.failed = 0
        self.sparkplug = next((one for one in decoders if isinstance(one, Sparkplug)), None)
        self._names = names
        self._decoders = decoders
        self._failures: OrderedDict[str, str] = OrderedDict()

    @property
    def max_bytes(self) -> int:
        """The longest payload that is read."""
        return self._decoders[0].max_bytes

    def decode(self, topic: str, payload: bytes) -> bytes | None:
        """See `core.history.Decode`; counts."""
        try:
            found = self.read(topic, payload)
        except DecodeError as error:
            self.failed += 1
            self._failures[topic] = str(error)
            self._failures.move_to_end(topic)
            if len(self._failures) > MAX_FAILURES:
                self._failures.popitem(last=False)
            return b""
        if found is not None:
            self.decoded += 1
            if self._failures:
                self._failures.pop(topic, None)
        return found

    def read(self, topic: str, payload: bytes) -> bytes | None:
        """The JSON of a payload; None for one that the rule doesn't mean.

        Raises:
            DecodeError: it can't be read; the text says why.
        """
        try:
            return self._read(topic, payload)
        except NotMeantError:
            return None
        except TooManyError:
            raise
        except DecodeError:
            if self.sparkplug is not None:
                self.sparkplug.missed(topic)
            raise

    def _read(self, topic: str, payload: bytes) -> bytes:
        value: object = payload
        for name, decoder in zip(self._names, self._decoders, strict=True):
            if isinstance(value, bytes) and len(value) > decoder.max_bytes:
                raise DecodeError(f"{name}: {len(value)} bytes are more than the {decoder.max_bytes} that are read")
            try:
                value = decoder.decode(topic, value)
            except (NotMeantError, TooManyError, KeyboardInterrupt, SystemExit):
                raise
            except DecodeError as error:
                raise DecodeError(f"{name}: {error}") from None
            except BaseException as error:  # noqa: BLE001 - libraries raise what they meet; one in Rust, its panics
                reason = str(error.__cause__ or error) or type(error).__name__
                raise DecodeError(f"{name}: {reason[:200]}") from None
        if isinstance(value, bytes) and FORMATS[self._names[-1]].is_wrapping:
            inner = Message.arrived(0, "-", value, 0)
            if not inner.is_text:
                raise DecodeError(f"{self._names[-1]}: what is within is no text; name its format behind it")
            return inner.token
        return to_json(value, is_plain=self._decoders[-1].is_plain)

    def failure(self, topic: str) -> str | None:
        """Why the newest payload of a topic could not be read, if it couldn't."""
        return self._failures.get(topic)


class Decoding:
    """All rules, in their order."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)

    def rule_of(self, topic: str) -> Rule | None:
        """The rule for a topic; None where its payloads are as they should be."""
        return next((rule for rule in self.rules if rule.filters.matches(topic)), None)

    def start(self, history: History) -> None:
        """Decodes what is appended from now on.

        What is in the log already was decoded when it came, and may explain what comes: BIRTHs of Sparkplug.
        """

        def birth_of(topic: str) -> tuple[int, bytes] | None:
            state = history.topic(topic)
            return None if state is None or state.last is None else (state.last.seq, state.last.payload)

        for rule in self.rules:
            if rule.sparkplug is not None:
                rule.sparkplug.birth_of = birth_of
        if self.rules:
            history.decode_by(self._decoder_of)

    def _decoder_of(self, topic: str) -> Decode | None:
        rule = self.rule_of(topic)
        return None if rule is None else rule.decode

    @property
    def unknown_aliases(self) -> int:
        """Values that came under an alias that no BIRTH explained."""
        return sum(rule.sparkplug.unknown_aliases for rule in self.rules if rule.sparkplug is not None)

    def counts(self) -> dict[str, tuple[int, int]]:
        """By the rules' names: how many payloads were decoded, and how many could not be."""
        found: dict[str, tuple[int, int]] = {}
        for rule in self.rules:
            decoded, failed = found.get(rule.name, (0, 0))
            found[rule.name] = decoded + rule.decoded, failed + rule.failed
        return found


def make_rule(
    topics: Iterable[str], names: Sequence[str], schema_file: Path | None = None, message: str | None = None
) -> Rule:
    """A rule that can be followed.

    Args:
        topics: valid topic filters.
        names: formats, the outermost first.
        schema_file: of protobuf or avro.
        message: the name of a protobuf message.

    Raises:
        ExceptionGroup: of a `RuleFaultError` for each thing that is wrong.
    """
    faults = list(_faults(names, schema_file, message))
    decoders: list[Decoder] = []
    for name in names if not faults else ():
        try:
            decoders.append(FORMATS[name].make(schema_file or Path(), message or ""))
        except RuleFaultError as fault:
            faults.append(fault)
        except ImportError as error:
            text = f"{name!r} needs a package that is not installed ({error.name or error})"
            faults.append(RuleFaultError("as", text, FORMATS[name].install))
    if faults:
        raise ExceptionGroup("a rule can't be followed", faults)
    return Rule(topics, tuple(names), decoders)


def _faults(names: Sequence[str], schema_file: Path | None, message: str | None) -> Iterator[RuleFaultError]:
    unknown = [name for name in names if name not in FORMATS]
    for name in unknown:
        near = difflib.get_close_matches(name.lower(), (*FORMATS, *_ALIASES), 1, 0.6)
        meant = _ALIASES.get(near[0], near[0]) if near else None
        way_out = f"did you mean {meant}?" if meant else f"there are {', '.join(FORMATS)}"
        yield RuleFaultError("as", f"there is no format {name[:40]!r}", way_out)
    if unknown:
        return
    if not names or len(names) > MAX_STEPS:
        yield RuleFaultError("as", f"must be one to {MAX_STEPS} formats", f"there are {', '.join(FORMATS)}")
        return
    for before, after in pairwise(names):
        if not FORMATS[before].is_wrapping and not (FORMATS[after].reads_values and before in ("cbor", "msgpack")):
            text = f"{after!r} can't read what {before!r} makes"
            yield RuleFaultError(
                "as", text, "the outermost comes first: gzip or zlib, then one format; senml behind cbor"
            )
    if "sparkplug" in names and len(names) > 1:
        yield RuleFaultError("as", "Sparkplug has a compression of its own", 'write as = "sparkplug", which reads it')
    needed = {key for name in names for key in FORMATS[name].needs}
    for key, value in (("schema_file", schema_file), ("message", message)):
        if key in needed and value is None:
            yield RuleFaultError(key, f"is needed for {names[-1]!r}", _NEEDED[key])
        elif key not in needed and value is not None:
            yield RuleFaultError(key, f"means nothing for {'+'.join(names)}", "leave it out")


_NEEDED = {
    "schema_file": "name the descriptor set (protobuf) or the schema (avro)",
    "message": "name the message in it, with its package: farm.v1.Reading",
}
_ALIASES = {
    "messagepack": "msgpack", "proto": "protobuf", "influx": "line", "influxdb": "line", "gz": "gzip", "lpp": "cayenne",
    "deflate": "zlib", "sparkplugb": "sparkplug", "spb": "sparkplug",
}  # fmt: skip
