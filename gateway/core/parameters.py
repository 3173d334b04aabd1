"""The parameters that an address may have, and which of them is for what: one table.

Invariant: a parameter that would have no effect is refused, wherever it stands, so that no misspelt one is a connection
that is silent for ever. What their values may be is for those who read them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.core.points import MAX_POINTS
from gateway.core.protocol import ProtocolError

__all__ = [
    "BOUNDS",
    "FORMATS",
    "ORDERS",
    "PARAMETERS",
    "THEMES",
    "Bounds",
    "Parameter",
    "check_parameters",
    "last_event_id",
    "parameters_of",
]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter.

    Attributes:
        uses: what it is for: `ws` (`/ws`), `stream` (`/ws/<stream>/`), a representation of `/topics/{filter}` (`json`,
            `ndjson`, `csv`, `sse`, `svg`, `payload`), `points` (a chart of it), `list` (`/topics`), `devices`
            (`/devices`), `changes` (of them, as events, and `/devices/{id}`), `alerts`, `explain` or `publish`.
        text: its meaning.
        default: what it is when it is absent; empty where that is nothing.
    """

    uses: frozenset[str]
    text: str
    default: str = ""


_PAGES = "json ndjson csv"
_MESSAGES = f"ws sse {_PAGES}"


def _for(uses: str, text: str, default: str = "") -> Parameter:
    return Parameter(frozenset(uses.split()), text, default)


PARAMETERS = {
    "topic": _for(f"{_MESSAGES} svg points explain", "Topic filters; repeat it for several. For explain one."),
    "since": _for(
        f"{_MESSAGES} stream svg points",
        "last, now, a time back (90s, 10m, 1h30m), an ISO 8601 time, milliseconds since 1970, or a position epoch:seq.",
        "last",
    ),
    "format": _for(
        f"{_MESSAGES} svg payload points list devices changes alerts",
        "json (envelope) or raw (payload only); with points json, columns or csv.",
        "json",
    ),
    "max_hz": _for(f"{_MESSAGES} stream", "At most so many updates a second for each topic; the latest wins."),
    "mode": _for(_MESSAGES, "latest, mean or minmax of each interval of 1/max_hz seconds.", "latest"),
    "fields": _for(
        _MESSAGES, "Only these members of a JSON payload: paths such as outdoor.t or rx[0].rssi, separated with commas."
    ),
    "deadband": _for(
        f"{_MESSAGES} stream", "Only changes of a number by at least so much, and any change of a state or text."
    ),
    "where": _for(
        f"{_MESSAGES} stream svg", "Only messages for which this expression (CEL) holds, such as temperature > 30."
    ),
    "properties": _for(f"{_MESSAGES} publish", "1: with MQTT 5 properties."),
    "token": _for(
        f"{_MESSAGES} stream svg payload points list devices changes publish alerts explain",
        "An access token, where it can't be a header or the first command.",
    ),
    "lastEventId": _for("sse", "The header Last-Event-ID, as polyfills of EventSource send it; goes before since."),
    "until": _for(
        f"{_PAGES} svg points list",
        "Up to this position (the list counts up to it); with points up to a time, as of since.",
    ),
    "points": _for("points", "A chart: at most so many points of each number, from 1 to 5000.", "1200"),
    "epoch": _for("json", "Of a further page: the log that it goes on in; in another one it is refused."),
    "order": _for(_PAGES, "asc or desc.", "asc"),
    "limit": _for(f"{_PAGES} points list devices", "At most so many messages, topics of the list, or devices."),
    "after": _for(f"{_PAGES} points list devices", "The name or id behind which last values, or the list, go on."),
    "prefix": _for("list", "Only topics that begin so."),
    "filter": _for("list", "Only topics that this filter matches; repeat it for several."),
    "field": _for(
        "svg points",
        "The path of the member that is drawn, of a chart several with commas; without it the first that a list of "
        "devices shows, of a chart all numbers.",
    ),
    "title": _for("svg", "What stands before the number."),
    "unit": _for("svg", "What stands behind it."),
    "theme": _for("svg", "dark or light.", "light"),
    "qos": _for("publish", "0, 1 or 2.", "0"),
    "retain": _for("publish", "1: the broker keeps it as the topic's retained message."),
    "confirm": _for("publish", "1: the answer waits for the message to come back, and gives its position."),
}
"""By name; a page (html) reads its own."""


FORMATS = {
    "messages": ("json", "sse", "ndjson", "csv", "html", "svg", "payload"),
    "points": ("json", "columns", "csv"),
    "list": ("json", "html"),
    "devices": ("json", "sse", "html"),
    "device": ("json", "html"),
    "alerts": ("json", "sse"),
}
"""In what an answer comes, of each address; `raw` is `sse` without envelopes."""

THEMES = ("light", "dark")
"""Of a badge."""

ORDERS = ("asc", "desc")
"""Of history."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The whole numbers that a parameter may be.

    Attributes:
        default: what it is when it is absent.
        least, most: both included.
    """

    default: int
    least: int
    most: int


_PAGE = Bounds(1_000, 1, 10_000)
_DOWNLOAD = Bounds(1_000_000_000, 1, 1_000_000_000)

BOUNDS: dict[str, dict[str, Bounds]] = {
    "limit": {
        "json": _PAGE,
        "ndjson": _DOWNLOAD,
        "csv": _DOWNLOAD,
        "points": Bounds(20, 1, 1_000),
        "list": _PAGE,
        "devices": _PAGE,
    },
    "points": {"points": Bounds(1_200, 1, MAX_POINTS)},
    "qos": {"publish": Bounds(0, 0, 2)},
}
"""Of each parameter that is a whole number, by use."""


def parameters_of(use: str) -> tuple[str, ...]:
    """The names that are for this use, in the order of the table."""
    return tuple(name for name, parameter in PARAMETERS.items() if use in parameter.uses)


def last_event_id(pairs: Iterable[tuple[str, str]]) -> str | None:
    """What polyfills of EventSource put into the address in place of the header `Last-Event-ID`; the last of several.

    Each has a spelling of its own (`lastEventId`, `last-event-id`, `Last-Event-Id`). An empty one is none.
    """
    found = None
    for name, value in pairs:
        if _canonical(name) == "lastEventId" and value:
            found = value
    return found


def _canonical(name: str) -> str:
    """The name in the table of what has many spellings."""
    return "lastEventId" if name[:20].replace("-", "").replace("_", "").lower() == "lasteventid" else name


def check_parameters(names: Iterable[str], use: str) -> None:
    """Refuses a parameter that would have no effect; one that begins with `_` is the asker's own, against caches.

    Raises:
        ProtocolError: it is not known for this use (`bad_request`).
    """
    for name in names:
        found = PARAMETERS.get(_canonical(name))
        if (found is None or use not in found.uses) and not name.startswith("_"):
            known = ", ".join(parameters_of(use))
            raise ProtocolError("bad_request", f"query parameter {name[:40]!r}: is not known; known are {known}")
