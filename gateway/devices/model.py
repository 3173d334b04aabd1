"""What a device is: fields, commands, availability; and the parts of which announcements make one.

Invariant: values only, of bounded length, however long an announcement is: texts are cut, topics are valid names. What
is read from which message is for the habits (`habits`), what belongs together for `registry`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from gateway.core.messages import Message
from gateway.core.paths import Path
from gateway.core.topics import TopicError, validate_topic
from gateway.devices.templates import Template

__all__ = [
    "AnnouncementError",
    "Availability",
    "Command",
    "CommandKind",
    "Field",
    "FieldKind",
    "Known",
    "Part",
    "Presence",
    "Problem",
    "StateTopic",
    "label_of",
    "mac_key",
    "states_of",
    "text_of",
    "topic_of",
]


MAX_TEXT = 200
"""Characters of a name, a model, an id; a longer one is cut."""

MAX_TOPIC = 1_024
"""Characters of a topic of a device."""


class AnnouncementError(ValueError):
    """An announcement can't be read; the text names the member and says what is wrong."""


class FieldKind(enum.StrEnum):
    """What the values of a field are."""

    NUMBER = "number"
    STATE = "state"
    """One of two, such as ON and OFF, or true and false."""
    TEXT = "text"
    IMAGE = "image"
    """The newest payload is a picture; it is no value of JSON."""


class CommandKind(enum.StrEnum):
    """By which control a command is given."""

    SWITCH = "switch"
    """Two choices, `on` and `off`."""
    NUMBER = "number"
    SELECT = "select"
    BUTTON = "button"
    TEXT = "text"


class Presence(enum.StrEnum):
    """Whether a device is there, by its own rule."""

    ONLINE = "online"
    OFFLINE = "offline"
    SLEEPING = "sleeping"
    """Away until its next reading, which is in order."""
    UNKNOWN = "unknown"


class Field(msgspec.Struct, frozen=True, gc=False):
    """A value of a device.

    Attributes:
        id: unique within its part.
        name: for people.
        topic: where its value arrives.
        path: where in the payload it stands, the empty path for the payload itself; None where it is computed
            (`template`), found by its name (`metric`), or a picture.
        unit: as it was announced; "" where none is known.
        device_class: the quantity in Home Assistant's words, such as `temperature`; "" where it isn't known.
        kind: what its values are.
        scale, offset: the value is what stands at the path times `scale` plus `offset`.
        metric: the name of the item of the payload's `metrics` whose `value` it is.
        template: computes it of the payload.
        problem: why its value can't be had; "" where it can.
        is_diagnostic: whether it tells of the device more than of what is measured.
    """

    id: str
    name: str
    topic: str
    path: Path | None = ()
    unit: str = ""
    device_class: str = ""
    kind: FieldKind = FieldKind.NUMBER
    scale: float = 1.0
    offset: float = 0.0
    metric: str = ""
    template: Template | None = None
    problem: str = ""
    is_diagnostic: bool = False


class Command(msgspec.Struct, frozen=True, gc=False):
    """What a device can be told.

    Attributes:
        id: unique within its part.
        name: for people.
        kind: by which control.
        topic: where to publish it.
        payloads: what to publish for each choice: `on` and `off` of a switch, `press` of a button, the options of a
            select.
        before, after: of a number or a text: what stands around the value in the payload.
        is_json: whether a text stands there as a JSON string.
        least, most, step: of a number; None where nothing is said.
        unit: of a number.
        field: the id of the field that shows the outcome; "" where none does.
        retain: whether the broker is to keep it.
        problem: why it can't be given; "" where it can.
    """

    id: str
    name: str
    kind: CommandKind
    topic: str
    payloads: tuple[tuple[str, str], ...] = ()
    before: str = ""
    after: str = ""
    is_json: bool = False
    least: float | None = None
    most: float | None = None
    step: float | None = None
    unit: str = ""
    field: str = ""
    retain: bool = False
    problem: str = ""


class StateTopic(msgspec.Struct, frozen=True, gc=False):
    """A topic that says whether a device is there.

    Attributes:
        topic: its name.
        states: what a payload means; `*` is any other.
        path: where in a JSON object the word stands; a payload that is none is the word itself.
        template: makes the word of the payload.
    """

    topic: str
    states: tuple[tuple[str, Presence], ...]
    path: Path = ()
    template: Template | None = None


class Availability(msgspec.Struct, frozen=True, gc=False):
    """The rule by which a device is there or not.

    Attributes:
        topics: what says so; none where only silence does.
        mode: `all`: it is there unless one says that it isn't; `any`: it is there if one says so; `latest`: the newest
            message decides.
        silence_seconds: for how long nothing may come of a device that is there; None: for ever.
    """

    topics: tuple[StateTopic, ...] = ()
    mode: str = "all"
    silence_seconds: float | None = None


class Part(msgspec.Struct, frozen=True, gc=False):
    """What one announcement says of one device.

    Attributes:
        habit: whose announcement it is.
        source: the topic of the announcement, or that of the values where there is none.
        keys: what identifies the device, the best first. Parts that share one are of one device.
        name, model, manufacturer, area, version: for people; "" where nothing is said.
        kind: what it is, such as `light`; "" where nothing says so.
        fields, commands, availability: what it has.
        via: the key of the device behind which it is.
    """

    habit: str
    source: str
    keys: tuple[str, ...]
    name: str = ""
    model: str = ""
    manufacturer: str = ""
    area: str = ""
    version: str = ""
    kind: str = ""
    fields: tuple[Field, ...] = ()
    commands: tuple[Command, ...] = ()
    availability: Availability | None = None
    via: str = ""


class Problem(msgspec.Struct, frozen=True, gc=False):
    """What of an announcement can't be read, and why."""

    source: str
    text: str


class Known(Protocol):
    """What is known of topics now."""

    def last(self, topic: str) -> Message | None:
        """The newest message of a topic."""

    def value(self, topic: str) -> Any:
        """Its payload as a JSON value, or the text that it is; None where there is none, or an empty one."""

    def topics(self) -> Iterator[str]:
        """The topics of what is being read."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def text_of(value: Any, most: int = MAX_TEXT) -> str:
    """A text for people of what an announcement has: without control characters, cut; "" for what is no text."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    text = str(value)[: 4 * most]
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    text = text.strip()
    return text if len(text) <= most else text[: most - 1] + "…"


def topic_of(value: Any, member: str) -> str:
    """A topic name of an announcement.

    Raises:
        AnnouncementError: it is none.
    """
    if not isinstance(value, str):
        raise AnnouncementError(f"{member}: expected the name of a topic, got {type(value).__name__}")
    if len(value) > MAX_TOPIC:
        raise AnnouncementError(f"{member}: a topic of {len(value)} characters, at most {MAX_TOPIC} are allowed")
    try:
        return validate_topic(value)
    except TopicError as error:
        raise AnnouncementError(f"{member}: {error}") from None


@lru_cache(1_024)
def states_of(online: str, offline: str) -> tuple[tuple[str, Presence], ...]:
    """What the two words of a topic mean; the same for the same words, for each of a fleet has them."""
    return ((online, Presence.ONLINE), (offline, Presence.OFFLINE))


_HEX = re.compile(r"[0-9A-Fa-f]{12}")


def mac_key(text: str) -> str | None:
    """The key of a device with this hardware address, however it is written; None where it is none."""
    bare = text.replace(":", "").replace("-", "") if len(text) == 17 else text
    return f"mac:{bare.lower()}" if _HEX.fullmatch(bare) else None


_WORDS = re.compile(r"[_\s]+|(?<=[a-z])(?=[A-Z])")
_NAMES = {
    "co2": "CO₂", "eco2": "eCO₂", "pm1": "PM1", "pm10": "PM10", "pm25": "PM2.5", "pm2.5": "PM2.5", "tvoc": "TVOC",
    "voc": "VOC", "rssi": "Signal", "ph": "pH", "uv": "UV",
}  # fmt: skip


def label_of(name: str) -> str:
    """A name for people of the name of a member: `soil_moisture` is Soil moisture, `DewPoint` Dew point."""
    known = _NAMES.get(name.lower())
    if known is not None:
        return known
    words = [word if word.isupper() else word.lower() for word in _WORDS.split(name) if word]
    text = " ".join(words)
    return text_of(text[:1].upper() + text[1:])
