"""The members and numbers of a JSON payload, by path.

A value is one of five things, wherever in a payload it stands:

- a *number*: of JSON, or a text that is one (`"19.2"`), perhaps with a unit that is known (`"21.5 °C"`; any unit where
  the text is the whole payload);
- a *state*: true or false, or a text such as ON, off, open, closed, online; 1 or 0 where a number is drawn;
- a *clock*: a text that is a date and a time;
- a *text*: any other;
- nothing: null.

`web/dashboard/src/core/values.ts` is the same for pages; both read `tests/paths.json`.

Invariant: one idea of what a number is and where a path leads, for all that look into payloads; what one payload costs
is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from gateway.core.paths import MAX_DEPTH, MAX_PATH_LENGTH, Path, PathError, parse_path, path_text

__all__ = [
    "BOOKKEEPING",
    "BOOKKEEPING_NAMES",
    "KNOWN_UNITS",
    "MAX_DEPTH",
    "MAX_TEXT",
    "MAX_VALUES",
    "POSITION_NAMES",
    "Contents",
    "Field",
    "Path",
    "contents_of",
    "first_shown",
    "is_clock",
    "is_number",
    "look_up",
    "nest",
    "number_and_unit",
    "number_of",
    "numbers_of",
    "project",
    "rank_of",
    "reading_of",
    "state_of",
    "text_of",
    "texts_of",
]


BOOKKEEPING = frozenset({"ts", "seq", "boot"})
"""Members of a sensor's state that number or date it: no measurements, so deadband and aggregates pass them over."""

MAX_VALUES = 1_000
"""Values of one payload, objects and arrays among them, that are looked at for numbers; with more it counts as one
without any."""

LARGEST = 1e300
"""Beyond it one can't calculate; JSON has numbers that no float can hold."""

_SPACE = r"[ \t\r\n\u00a0]*"
_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_CLEAR_UNITS = (
    "°C °F ° % ‰ mV kV mA kA mW kW MW GW Wh kWh MWh mWh VA kVA var kvar varh kvarh Ah mAh Hz kHz MHz GHz "
    "Pa hPa kPa MPa mbar bar psi mmHg inHg lx lux lm ppm ppb pH µg/m³ μg/m³ ug/m3 mg/m³ mg/m3 mm cm km m² "
    "m³ m3 ft mi ml mL L/min l/min L/h l/h m³/h m3/h m/s km/h mph kn ms µs min dBm mg kg kJ MJ Nm rad rpm "
    "Ω kΩ MΩ S/m µS/cm μS/cm W/m² W/m2 lbs"
)
_SPACED_UNITS = "V A W K J L l m s h d g t dB dBA"
_CLEAR = frozenset(_CLEAR_UNITS.split())
KNOWN_UNITS = _CLEAR.union(_SPACED_UNITS.split())
"""Units that may follow a number within JSON. Before some is a space: `5A` and `12dB` may be hexadecimal."""
_LONGEST_UNIT = max(map(len, KNOWN_UNITS))
# The number is never tried again shorter, and what follows it is looked up: dates and identifiers fail at once.
_NUMBER_TEXT = re.compile(rf"(?>({_NUMBER}))(?:([ \u00a0]?)([^0-9 \u00a0][^ \u00a0]{{0,{_LONGEST_UNIT - 1}}}))?")
_UNIT = r"[^0-9 \t\r\n\u00a0.,:;/-][^0-9 \t\r\n\u00a0]{0,8}"
_NUMBER_WITH_UNIT = re.compile(rf"{_SPACE}({_NUMBER}){_SPACE}({_UNIT})?{_SPACE}")
_MAX_NUMBER_TEXT = 40
_DAY, _HOUR, _ZONE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}", r"[0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?", r"Z|[-+][0-9:]{2,6}"
_CLOCK_TEXT = re.compile(rf"{_DAY}[T ]{_HOUR}( ?({_ZONE}))?")
_MAX_CLOCK_TEXT = 40
_STATES = {"on": 1.0, "off": 0.0, "true": 1.0, "false": 0.0, "open": 1.0, "closed": 0.0, "online": 1.0, "offline": 0.0}
_MAX_STATE_TEXT = 16
MAX_TEXT = 40
"""Longer texts are messages: nothing that a device is or does."""


class Field(NamedTuple):
    """A member of a JSON payload, as it is asked for.

    Attributes:
        text: as it was written.
        path: the same, taken apart.
        whole: the text as the one name of a member that it may have been meant for; None where it is one already.
    """

    text: str
    path: Path
    whole: str | None

    @classmethod
    def at(cls, text: str) -> Field:
        """The field at a written path; long work for a long text, so to be done once and not for each message.

        Raises:
            PathError: it is no path, is too long or too deep, or a name in it is empty.
        """
        if len(text) > MAX_PATH_LENGTH:
            raise PathError(f"has {len(text)} characters, at most {MAX_PATH_LENGTH} are allowed")
        path = parse_path(text)
        if len(path) > MAX_DEPTH:
            raise PathError(f"has {len(path)} levels, at most {MAX_DEPTH} are allowed")
        if not all(step != "" for step in path):
            raise PathError("must be a name or a path such as outdoor.temperature")
        whole = _unescaped(text)
        return cls(text, path, None if path == (whole,) else whole)

    @property
    def label(self) -> str:
        """As it is shown to people: without backslashes."""
        return _unescaped(self.text)

    @property
    def name(self) -> str:
        """The last name in it; "payload" where there is none."""
        return next((step for step in reversed(self.path) if isinstance(step, str)), "payload")


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _follow(value: Any, path: Path) -> Any:
    """What is at a path; None where it leads nowhere."""
    for step in path:
        if value.__class__ is dict:
            value = value.get(step)
        elif value.__class__ is list and step.__class__ is int and step < len(value):
            value = value[step]
        else:
            return None
    return value


def look_up(value: Any, field: Field) -> Any:
    """What is at a path in a payload; else the member that has the whole text as its name; else None."""
    found = _follow(value, field.path)
    if found is None and field.whole is not None and value.__class__ is dict:
        return value.get(field.whole)
    return found


def project(value: Any, fields: tuple[Field, ...]) -> dict[str, Any] | list[Any] | None:
    """Only these fields of an object or array, nested as they were; None when none of them is there.

    An item keeps its number: null stands for those before it that were not asked for.
    """
    kind = value.__class__
    if kind is not dict and kind is not list:
        return None
    kept: Any = kind()
    for field in fields:
        found = _follow(value, field.path)
        if found is not None:
            if kind is dict and len(field.path) == 1:
                kept[field.path[0]] = found
            else:
                _put(kept, field.path, found)
        elif field.whole is not None and kind is dict and (found := value.get(field.whole)) is not None:
            kept[field.whole] = found
    return kept or None


def _put(tree: Any, path: Path, leaf: Any) -> None:
    """Puts something into a tree of objects and arrays; not where something else is in its way."""
    last = len(path) - 1
    for at, step in enumerate(path):
        if step.__class__ is int:
            if tree.__class__ is not list:
                return
            tree += [None] * (step + 1 - len(tree))
            child = tree[step]
        elif tree.__class__ is dict:
            child = tree.get(step)
        else:
            return
        if at == last:
            tree[step] = leaf
        elif child is None:
            child = tree[step] = [] if path[at + 1].__class__ is int else {}
        tree = child


def nest(results: Mapping[Path, Any]) -> Any:
    """The reverse of `numbers_of`. Where a member was once a number and once an object, the number stands."""
    if () in results:
        return results[()]
    tree: Any = [] if results and next(iter(results))[0].__class__ is int else {}
    for path, result in results.items():
        if len(path) == 1 and tree.__class__ is dict and path[0].__class__ is str:
            tree[path[0]] = result
        elif not any(path[:length] in results for length in range(1, len(path))):
            _put(tree, path, result)
    return tree


def is_number(value: Any) -> bool:
    """Whether one can calculate with it: JSON has integers that no float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def state_of(value: Any) -> float | None:
    """A state as 1 or 0; None for what is none."""
    if value.__class__ is bool:
        return 1.0 if value else 0.0
    if value.__class__ is str and len(value) <= _MAX_STATE_TEXT:
        return _STATES.get(value.strip(" \t\r\n").lower())
    return None


def number_of(value: Any) -> float | None:
    """A number, or a text that is one, perhaps with a known unit; None for what is none.

    "4f" is an identifier, not four of something.
    """
    if is_number(value):
        number: float = value
        return number
    measured = _measured(value) if value.__class__ is str else None
    return None if measured is None else measured[0]


def _measured(text: str) -> tuple[float, str] | None:
    """The number that a text within JSON is, and its unit."""
    if len(text) > _MAX_NUMBER_TEXT or (match := _NUMBER_TEXT.fullmatch(text)) is None:
        return None
    digits, space, unit = match.groups()
    if unit is not None and unit not in (KNOWN_UNITS if space else _CLEAR):
        return None
    number = float(digits)
    return (number, unit or "") if -LARGEST < number < LARGEST else None


def number_and_unit(value: Any) -> tuple[float, str] | None:
    """What a payload is that is no object or array: a number, or a text of a number with at most a unit behind it."""
    if value.__class__ is not str:
        return (value, "") if is_number(value) else None
    if len(value) > _MAX_NUMBER_TEXT or (match := _NUMBER_WITH_UNIT.fullmatch(value)) is None:
        return None
    number = float(match[1])
    return (number, match[2] or "") if -LARGEST < number < LARGEST else None


def reading_of(value: Any, field: Field) -> float | None:
    """The number that is at a path, or the state as 1 or 0; None where neither is."""
    found = look_up(value, field)
    number = number_of(found)
    if number is None and not field.path and (whole := number_and_unit(found)) is not None:
        number = whole[0]
    return state_of(found) if number is None else number


def is_clock(value: str) -> bool:
    """Whether a text is a date and a time (ISO 8601)."""
    return len(value) <= _MAX_CLOCK_TEXT and value[:2].isdecimal() and _CLOCK_TEXT.fullmatch(value) is not None


def _leaves(value: Any, path: Path, found: list[tuple[Path, Any]], passed_over: frozenset[str]) -> bool:
    """Collects what is in an object or array, with its path and in its order; for objects and arrays their class.

    Returns:
        Whether that is all: what is deeper than `MAX_DEPTH` is left out; after `MAX_VALUES` comes one more at most.
    """
    if len(path) == MAX_DEPTH:
        return False
    is_all = True
    items: Any = value.items() if value.__class__ is dict else enumerate(value)
    for step, inner in items:
        if len(found) > MAX_VALUES:
            return False
        if not path and step in passed_over:
            continue
        kind = inner.__class__
        if kind is dict or kind is list:
            inside = (*path, step)
            found.append((inside, kind))
            is_all = _leaves(inner, inside, found, passed_over) and is_all
        else:
            found.append(((*path, step), inner))
    return is_all


def numbers_of(value: Any, *, with_states: bool = False) -> Iterator[tuple[Path, float]]:
    """The numbers of a payload by path, in its order; what is a number itself has the empty one.

    A payload with more than `MAX_VALUES` has none to calculate with; the first of them can be drawn.

    Args:
        value: a payload.
        with_states: all that can be drawn: states as well, as 1 and 0, and what numbers and dates a message.
    """
    if value.__class__ is dict or value.__class__ is list:
        leaves: list[tuple[Path, Any]] = []
        _leaves(value, (), leaves, frozenset() if with_states else BOOKKEEPING)
        if len(leaves) > MAX_VALUES and not with_states:
            return
        for path, leaf in leaves:
            kind = leaf.__class__
            if kind is float or kind is int:
                if -LARGEST < leaf < LARGEST:
                    yield path, leaf
            elif kind is str or kind is bool:
                number = number_of(leaf)
                if number is None and with_states:
                    number = state_of(leaf)
                if number is not None:
                    yield path, number
    elif (whole := number_and_unit(value)) is not None:
        yield (), whole[0]
    elif with_states and (number := state_of(value)) is not None:
        yield (), number


def text_of(value: Any) -> str | None:
    """A short text, or true and false as texts; None for what is none: numbers, dates and times, long texts."""
    kind = value.__class__
    if kind is bool:
        return "true" if value else "false"
    if kind is not str or not value or len(value) > MAX_TEXT or number_and_unit(value) is not None or is_clock(value):
        return None
    text: str = value
    return text


def texts_of(value: Any) -> Iterator[tuple[Path, str]]:
    """The short texts of a payload by path, in its order, true and false among them; see `numbers_of`."""
    if value.__class__ is dict or value.__class__ is list:
        leaves: list[tuple[Path, Any]] = []
        _leaves(value, (), leaves, BOOKKEEPING)
        for path, leaf in leaves:
            text = text_of(leaf)
            if text is not None:
                yield path, text
    elif (text := text_of(value)) is not None:
        yield (), text


class Contents(NamedTuple):
    """What a payload says, to be compared with what another one says.

    Attributes:
        numbers: its numbers by path.
        others: a hash of all else: states, texts, what is missing; its clocks left out.
    """

    numbers: dict[Path, float]
    others: int


def contents_of(value: Any, token: bytes) -> Contents:
    """What a payload says.

    Args:
        value: the payload; None where it can't be read.
        token: its bytes, which are compared as they are where it has more than can be looked at.
    """
    numbers: dict[Path, float] = {}
    others: list[Hashable] = []
    if value.__class__ is dict or value.__class__ is list:
        leaves: list[tuple[Path, Any]] = []
        is_all = _leaves(value, (), leaves, BOOKKEEPING)
        if len(leaves) > MAX_VALUES:
            return Contents({}, hash(token))
        if not is_all:
            others.append(token)
        for path, leaf in leaves:
            kind = leaf.__class__
            if (kind is float or kind is int) and -LARGEST < leaf < LARGEST:
                numbers[path] = leaf
            elif kind is str:
                if (measured := _measured(leaf)) is not None:
                    numbers[path], unit = measured
                    if unit:
                        others.append((path, unit))
                elif not is_clock(leaf):
                    others.append((path, leaf))
            else:
                others.append((path, leaf))
    elif (whole := number_and_unit(value)) is not None:
        numbers[()], unit = whole
        others.append(unit)
    elif value.__class__ is not str or not is_clock(value):
        others.append(token)
    # the order of members says nothing
    return Contents(numbers, hash(frozenset(others)) if others else 0)


BOOKKEEPING_RANK, BATTERY_RANK, PLAIN_RANK, FIRST_RANK = 1_000, 500, 100, 10
BOOKKEEPING_NAMES = frozenset(
    {"ts", "tst", "time", "timestamp", "seq", "boot", "uptime", "uptimesec", "id", "counter", "millis", "schema"}
    | {"interval", "rssi", "linkquality", "version", "_type", "_id", "tid", "created_at"}
)
"""Names, in small letters, of what numbers, dates or names a message or its sender: nothing to draw unasked."""
POSITION_NAMES = frozenset(
    {"latitude", "longitude", "lat", "lon", "lng", "coordinates", "acc", "vac", "accuracy", "gps_accuracy"}
)
"""Parts of a position: a track shows where it is, no chart of them does."""
_WANTED = ("temperature", "temp", "value", "humidity", "co2", "power", "pressure", "level", "moisture", "illuminance")
_RANKS = {name: FIRST_RANK + place for place, name in enumerate((*_WANTED, "voltage", "vibration"))}


def rank_of(path: Path) -> int:
    """How much a number wants to be looked at: lower is sooner; from `BATTERY_RANK` up nobody opens a page for it."""
    names = [step.lower() for step in path if isinstance(step, str)]
    if not names:
        return 0 if not path else PLAIN_RANK
    if names[-1] in BOOKKEEPING_NAMES:
        return BOOKKEEPING_RANK
    if names[-1] in POSITION_NAMES or any(name.startswith("battery") for name in names):
        return BATTERY_RANK
    return _RANKS.get(names[-1], PLAIN_RANK)


def first_shown(value: Any) -> Field | None:
    """The number or state of a payload that a list of devices shows first; None where there is none to show."""
    paths = [path for path, _ in numbers_of(value, with_states=True) if "" not in path]
    best = min(paths, key=rank_of, default=None)
    if best is None or rank_of(best) >= BATTERY_RANK:
        return None
    return Field(path_text(best), best, None)
