"""Learns a fleet file from live devices.

Everything is judged by what was heard in a limited time, so it errs on the plain side: a field that never changed is a
constant, a topic heard once has the listening time as its interval. Wills can't be heard; a retained topic that says
``online`` in one of the usual ways is taken for a status, and its opposite for the will.

It is long because every guess (cadence, range, kind, topic) looks at the same record of what was heard.
"""

import base64
import datetime
import decimal
import itertools
import json
import math
import re
import secrets
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from paho.mqtt.client import MQTTMessage

from gateway.core.durations import duration_text
from gateway.core.fields import number_and_unit, number_of
from gateway.core.paths import Path, Step, parse_path, path_text
from sensors_sim import payloads
from sensors_sim.address import BrokerAddress
from sensors_sim.checks import LARGEST
from sensors_sim.dialects.base import MARKS
from sensors_sim.links import Link, Links, LinkState

MAX_SAMPLES = 2000
"""Per topic; further ones are not needed to know it."""

MAX_TOPICS = 20_000

MAX_DEPTH = 16
"""Levels of an object or array that are learned one by one; what is in deeper ones stays what it is."""

MAX_ITEMS = 10_000
"""Members or items of an object or array that are learned."""

MAX_CHOICES = 12
"""Texts or flags that one field may change between; more are no choice."""

STATUS_PAIRS = (
    ("online", "offline"),
    ("Online", "Offline"),
    ("ONLINE", "OFFLINE"),
    ('{"state":"online"}', '{"state":"offline"}'),
    ("connected", "disconnected"),
    ("ready", "lost"),
    ("true", "false"),
    ("1", "0"),
)
"""What a device says that lives, and what the broker says for it when it doesn't."""

_PLAIN_PAIRS = {"true", "1"}
_STATUS_LEVELS = ("online", "connected", "available", "availability", "status", "lwt", "$state", "state")
_COUNTERS = ("energy", "total", "count", "counter", "uptime", "uptimesec", "pulses", "rain", "volume")


class Sample(NamedTuple):
    """One message that was heard."""

    t: float
    payload: bytes
    retained: bool


@dataclass(slots=True)
class Heard:
    """Everything of one topic."""

    samples: list[Sample] = field(default_factory=list)
    qos: int = 0

    @property
    def live(self) -> list[Sample]:
        """What was published while listening."""
        return [sample for sample in self.samples if not sample.retained]


class Learner:
    """Collects messages and makes devices of them.

    Args:
        topic_filter: What is listened to; its first wildcard is where a device's name stands.

    Raises:
        ValueError: The filter is none.
    """

    def __init__(self, topic_filter: str) -> None:
        if not topic_filter or not _is_filter(topic_filter):
            raise ValueError(f"topic filter {topic_filter!r}: + is a whole level, and # the last one")
        self.topic_filter = topic_filter
        levels = topic_filter.split("/")
        wild = [number for number, level in enumerate(levels) if level in ("+", "#")]
        self._level = wild[0] if wild else len(levels) - 1
        self._topics: dict[str, Heard] = {}
        self.started: float | None = None
        self.ended: float | None = None

    @property
    def filters(self) -> list[str]:
        """What to listen to: the filter, and for the readings of native devices their status and meta as well."""
        head, _, last = self.topic_filter.rpartition("/")
        if head.startswith("sensors/") and "/" not in head.removeprefix("sensors/") and last == "state":
            return [self.topic_filter, f"{head}/status", f"{head}/meta"]
        return [self.topic_filter]

    def hear(self, topic: str, payload: bytes, t: float, *, qos: int = 0, retained: bool = False) -> None:
        """Take one message.

        Args:
            topic: Its topic.
            payload: As it came.
            t: When, in seconds since 1970.
            qos: With which it was delivered.
            retained: Whether the broker had kept it.
        """
        if not payload or topic.startswith(MARKS + "/"):  # nothing is said there any more, or by a simulator
            return
        self.started = t if self.started is None else self.started
        self.ended = t
        heard = self._topics.get(topic)
        if heard is None:
            if len(self._topics) >= MAX_TOPICS:
                return
            heard = self._topics[topic] = Heard()
        heard.qos = max(heard.qos, qos)
        if len(heard.samples) < MAX_SAMPLES:
            heard.samples.append(Sample(t, payload, retained))

    def devices(self, listened: float | None = None) -> list[dict[str, Any]]:
        """The devices as tables of a fleet file.

        Args:
            listened: For how many seconds; None: from the first message to the last.
        """
        if listened is None:
            listened = (self.ended or 0.0) - (self.started or 0.0)
        groups: dict[str, dict[str, Heard]] = {}
        for topic, heard in sorted(self._topics.items()):
            levels = topic.split("/")
            name = levels[min(self._level, len(levels) - 1)]
            groups.setdefault(name, {})[topic] = heard
        # What is only retained may describe a device whose readings are elsewhere, as Home Assistant's discovery does.
        silent = [name for name, topics in groups.items() if not any(heard.live for heard in topics.values())]
        for topic, heard in [item for name in silent for item in groups.pop(name).items()]:
            owner = next((level for level in topic.split("/") if level in groups), None)
            if owner is not None:
                groups[owner][topic] = heard
        devices = []
        taken: set[str] = set()
        for name, topics in groups.items():
            device_id = _unique(_as_id(name), taken)
            device = _device(name, device_id, topics, self._level, max(listened, 1.0))
            if device is not None:
                taken.add(device_id)
                devices.append(device)
        return devices


def listen(
    address: BrokerAddress, learner: Learner, seconds: float, stopping: Callable[[], bool] = lambda: False
) -> None:
    """Subscribe to the learner's filters for ``seconds``.

    Raises:
        ValueError: The broker could not be reached in that time, or refused.
    """

    def hear(message: MQTTMessage) -> None:
        learner.hear(message.topic, bytes(message.payload), time.time(), qos=message.qos, retained=message.retain)

    links = Links(address, on_message=hear)
    link = Link(f"sensors-sim-clone-{secrets.token_hex(4)}", None, learner.filters, "clone")
    links.open(link)
    try:
        deadline = time.monotonic() + max(10.0, seconds)
        while link.state is not LinkState.UP and time.monotonic() < deadline and not stopping():
            links.turn(0.05)
        if link.state is not LinkState.UP:
            raise ValueError(f"{address}: {links.counters.last_error or 'no answer'}")
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stopping():
            links.turn(min(0.05, end - time.monotonic()))
    finally:
        links.close()


def fleet_text(learner: Learner, listened: float | None = None, count: int | None = None) -> str:
    """The fleet file.

    Args:
        learner: What was heard.
        listened: For how many seconds.
        count: How many devices to write; more than were heard gives lookalikes, None writes those that were heard.

    Raises:
        ValueError: Nothing was heard that publishes readings.
    """
    devices = learner.devices(listened)
    if not devices:
        raise ValueError(f"nothing that publishes was heard on {learner.topic_filter}")
    heard = len(devices)
    if count is not None:
        devices = _resized(devices, count)
    lines = [
        f"# Learned from {heard} device{'s' if heard > 1 else ''} on {learner.topic_filter}.",
        f"title = {_toml('Lookalikes of ' + learner.topic_filter)}",
    ]
    for device in devices:
        lines += ["", "[[device]]"]
        lines += _table_lines(device, "device")
    return "\n".join(lines) + "\n"


def _resized(devices: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    resized = devices[:count]
    turn = 2
    while len(resized) < count:
        for device in devices[: count - len(resized)]:
            copy = dict(device)
            copy["id"], copy["name"], copy["vary"] = f"{device['id']}-{turn}", f"{device['name']}-{turn}", True
            resized.append(copy)
        turn += 1
    return resized


def _is_filter(text: str) -> bool:
    levels = text.split("/")
    return all(("+" not in level or level == "+") and ("#" not in level or level == "#") for level in levels) and (
        "#" not in levels[:-1]
    )


def _as_id(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-") or "device"


def _unique(device_id: str, taken: set[str]) -> str:
    candidate, number = device_id, 2
    while candidate in taken:
        candidate, number = f"{device_id}-{number}", number + 1
    return candidate


def _device(
    name: str, device_id: str, topics: Mapping[str, Heard], level: int, listened: float
) -> dict[str, Any] | None:
    placeholder = "{id}" if name == device_id else "{name}"

    def template(topic: str) -> str:
        levels = topic.split("/")
        if name in levels:
            levels[level if level < len(levels) and levels[level] == name else levels.index(name)] = placeholder
        return "/".join(levels)

    streams: list[tuple[float, dict[str, Any]]] = []
    constants = []
    status: dict[str, Any] | None = None
    units: dict[str, Any] = {}
    title: str | None = None
    for topic, heard in topics.items():
        pair = _status_pair(topic, heard)
        if pair is not None and status is None:
            status = {"topic": template(topic), "online": pair[0], "offline": pair[1]}
            if not heard.qos:
                status["qos"] = 0
            continue
        if topic == payloads.meta_topic(device_id):
            units, title = _meta(heard.samples[-1].payload)
            continue
        if topic == payloads.cmd_topic(device_id):
            continue
        live = heard.live
        if not live:
            payload = heard.samples[-1].payload
            text = _text(payload)
            constant: dict[str, Any] = {"topic": template(topic)}
            if text is None:
                constant |= {"payload": base64.b64encode(payload).decode(), "encoding": "base64"}
            else:
                constant["payload"] = _templated(text, name, placeholder)
            constants.append(constant | ({"qos": heard.qos} if heard.qos else {}))
            continue
        interval = _interval([sample.t for sample in live], listened)
        streams.append((interval, _stream(template(topic), heard, interval)))
    if not streams:
        return None
    shortest = min(interval for interval, _ in streams)
    tables = []
    for interval, stream in streams:
        every = max(1, round(interval / shortest))
        tables.append({**stream, "every": every} if every > 1 else stream)
    # Where topics hold its name, the name must stay what it is.
    shown = title if title and placeholder == "{id}" else name
    device: dict[str, Any] = {"id": device_id, "kind": "custom", "name": shown, "interval": _tidy_interval(shortest)}
    if status is not None:
        device["status"] = status
    if units:
        device["units"] = units
    if constants:
        device["constant"] = constants
    device["stream"] = tables
    return device


def _status_pair(topic: str, heard: Heard) -> tuple[str, str] | None:
    said = {(_text(sample.payload) or "").replace(" ", "").strip() for sample in heard.samples}
    last = topic.rsplit("/", 1)[-1].lower()
    for online, offline in STATUS_PAIRS:
        if said <= {online, offline, "init", "sleeping"} and said != {"init"}:
            # What says "true" or "1" under the name of a state may be any switch.
            if online in _PLAIN_PAIRS and (last == "state" or last not in _STATUS_LEVELS):
                continue
            if last in _STATUS_LEVELS or any(sample.retained for sample in heard.samples):
                return online, offline
    return None


def _interval(times: list[float], listened: float) -> float:
    """Median spacing; what came once comes once in the listening time."""
    if len(times) < 2:
        return listened
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return max(0.001, statistics.median(gaps))


def _tidy_interval(seconds: float) -> str:
    """Rounded to what somebody will have set: within 3 % of a round number, that number."""
    for unit in (3600, 60, 30, 15, 10, 5, 1, 0.5, 0.25, 0.1):
        rounded = round(seconds / unit) * unit
        if rounded and abs(rounded - seconds) <= 0.03 * seconds:
            return duration_text(rounded if rounded < 1 else round(rounded, 3))
    return f"{seconds:.3g}s"


def _meta(payload: bytes) -> tuple[dict[str, Any], str | None]:
    """What a native meta says of the fields, and the device's name."""
    try:
        meta = json.loads(payload)
    except (ValueError, RecursionError):
        return {}, None
    if not isinstance(meta, dict):
        return {}, None
    fields, title = meta.get("fields"), meta.get("name")
    units = {
        str(name): {key: value for key, value in about.items() if isinstance(value, (str, int, float))}
        for name, about in (fields.items() if isinstance(fields, dict) else ())
        if isinstance(about, dict)
    }
    return units, title if isinstance(title, str) else None


def _text(payload: bytes) -> str | None:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def _templated(text: str, name: str, placeholder: str) -> str:
    """A constant in which the device names itself, with its name replaced."""
    return re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", placeholder, text)


def _stream(topic: str, heard: Heard, interval: float) -> dict[str, Any]:
    live = heard.live
    values: dict[str, list[tuple[float, object]]] = {}
    decoded = [(sample.t, _decode(sample.payload)) for sample in live]
    kind = "json"
    if any(_text(sample.payload) is None for sample in live):
        kind = "base64"
        values["value"] = [(sample.t, base64.b64encode(sample.payload).decode()) for sample in live]
    elif any(isinstance(value, (dict, list)) for _, value in decoded):
        # Where bare values are mixed with objects, the objects are what a program reads.
        for t, value in decoded:
            for path, item in _flat(value) if isinstance(value, (dict, list)) else ():
                values.setdefault(path_text(path), []).append((t, item))
        if not values:  # nothing but empty ones
            values["value"] = [(decoded[-1][0], decoded[-1][1])]
            kind = "text"
    else:
        kind = "number" if all(type(value) in (int, decimal.Decimal) for _, value in decoded) else "text"
        values["value"] = decoded
    stream: dict[str, Any] = {"topic": topic}
    if kind != "json":
        stream["format"] = kind
    if heard.qos:
        stream["qos"] = heard.qos
    if any(sample.retained for sample in heard.samples):
        stream["retain"] = True
    is_whole = kind == "text"
    stream["field"] = [_field(path, series, interval, is_whole=is_whole) for path, series in values.items()]
    return stream


def _decode(payload: bytes) -> object:
    """JSON, or text where it is none or but a string; the quotes of one belong to its form."""
    text = _text(payload) or ""
    try:
        value: object = json.loads(text, parse_float=decimal.Decimal, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, str) else value


def _flat(value: dict[str, object] | list[object], path: Path = ()) -> list[tuple[Path, object]]:
    """Paths and values of an object or array; what is empty, nested too deep or has no name stays whole."""
    flat: list[tuple[Path, object]] = []
    steps: Iterable[tuple[Step, object]] = value.items() if isinstance(value, dict) else enumerate(value)
    for step, item in itertools.islice(steps, MAX_ITEMS):
        if isinstance(item, (dict, list)) and item and len(path) < MAX_DEPTH and step != "":
            flat += _flat(item, (*path, step))
        else:
            flat.append(((*path, step), item))
    return flat


class _Written(NamedTuple):
    """Numbers that are written as text, and what stands behind each."""

    numbers: list[float]
    suffix: str


def _written_numbers(texts: list[str], *, is_whole: bool) -> _Written | None:
    """Texts as numbers, where all are; those that are whole payloads may have a unit, the same in each."""
    numbers, suffixes = [], set()
    for text in texts:
        found = (
            number_and_unit(text) if is_whole else ((number, "") if (number := number_of(text)) is not None else None)
        )
        if found is None:
            return None
        numbers.append(found[0])
        bare = text.strip()
        suffixes.add(bare[len(bare.removesuffix(found[1]).rstrip()) :])
    return _Written(numbers, suffixes.pop()) if len(suffixes) == 1 else None


def _field(path: str, series: list[tuple[float, object]], interval: float, *, is_whole: bool = False) -> dict[str, Any]:
    values = [value for _, value in series]
    described: dict[str, Any] = {"name": path}
    last = next((step for step in reversed(parse_path(path)) if isinstance(step, str)), "").lower()
    floats = [_finite(value) for value in values]
    numbers = [(t, number) for (t, _), number in zip(series, floats, strict=True) if number is not None]
    if len(numbers) == len(values):
        decimals = max(_decimals(value) for value in values)
        return described | _number_field(last, numbers, decimals, interval)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) == len(values) and len(set(texts)) > MAX_CHOICES:
        written = _written_numbers(texts, is_whole=is_whole)
        if written is not None:
            decimals = max(len(text.partition(".")[2].partition(written.suffix or " ")[0]) for text in texts)
            dated = [(t, number) for (t, _), number in zip(series, written.numbers, strict=True)]
            described |= _number_field(last, dated, min(9, decimals), interval) | {"text": True}
            return described | ({"suffix": written.suffix} if written.suffix else {})
    if len(texts) == len(values) and _is_clock_text(series):
        return described | {"model": "iso-clock"}
    simple = [value for value in values if isinstance(value, (str, bool))]
    distinct = list(dict.fromkeys(simple))
    if len(simple) == len(values) and 1 < len(distinct) <= MAX_CHOICES:
        changes = sum(1 for a, b in itertools.pairwise(simple) if a != b)
        hold = len(simple) * interval / (changes + 1)
        return described | {"model": "choice", "choices": distinct, "hold": duration_text(round(max(0.1, hold), 1))}
    value = values[-1]
    number = _finite(value)
    if number is not None:
        value = int(number) if isinstance(value, int) else number
    if isinstance(value, (str, bool)) or number is not None:
        return described | {"model": "constant", "start": value}
    return described | {"model": "constant-json", "start": json.dumps(value, default=_finite, allow_nan=False)}


def _number_field(name: str, series: list[tuple[float, float]], decimals: int, interval: float) -> dict[str, Any]:
    values = [value for _, value in series]
    steps = [later - earlier for earlier, later in itertools.pairwise(values)]
    if name == "boot":
        return {"model": "boot"}
    counts = len(steps) >= 4 and decimals == 0 and sum(step == 1 for step in steps) >= 0.8 * len(steps)
    if name == "seq" or (counts and name not in payloads.FIELDS):
        return {"model": "seq"}
    for ticks in (1.0, 1000.0):
        if all(abs(value / ticks - t) < 86_400 for t, value in series):
            return {"model": "clock", "rate": ticks, "decimals": decimals}
    if len(set(values)) == 1:
        start = values[0]
        return {"model": "constant", "start": int(start) if decimals == 0 else start}
    if _is_counter(name, series, steps):
        rate = (values[-1] - values[0]) / max(1e-3, series[-1][0] - series[0][0])
        start = int(values[-1]) if decimals == 0 else values[-1]
        return {"model": "counter", "start": start, "rate": float(f"{rate:.4g}"), "decimals": decimals}
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    low, high = _range(name, values)
    return {
        "mean": float(f"{mean:.6g}"),
        "deviation": float(f"{deviation:.4g}"),
        "memory": duration_text(float(f"{_memory(values, interval):.3g}")),
        "low": low,
        "high": high,
        "decimals": decimals,
    }


def _is_counter(name: str, series: list[tuple[float, float]], steps: list[float]) -> bool:
    if any(step < 0 for step in steps) or len(series) < 3:
        return False
    if any(word in name for word in _COUNTERS):
        return True
    if len(series) < 8 or len({value for _, value in series}) < 5:
        return False
    # Rising by chance for eight readings happens; rising along a straight line doesn't.
    times = [t - series[0][0] for t, _ in series]
    if max(times) == 0:
        return False
    return statistics.correlation(times, [value for _, value in series]) > 0.995


def _range(name: str, values: list[float]) -> tuple[float, float]:
    """What a field of that name can be, if all values are; else the observed range, wider by half on both sides."""
    low, high = min(values), max(values)
    if name in payloads.FIELDS:
        _, _, lowest, highest, _ = payloads.FIELDS[name]
        if lowest <= low and high <= highest:
            return lowest, highest
    spread = max(high - low, 0.01 * abs(high))
    wide_low, wide_high = low - 0.5 * spread, high + 0.5 * spread
    if low >= 0:
        wide_low = max(0.0, wide_low)
    return float(f"{min(low, wide_low):.6g}"), float(f"{max(high, wide_high):.6g}")


def _memory(values: list[float], interval: float) -> float:
    """Seconds in which a deviation shrinks to 37 %, from the correlation r of neighbours: −interval / ln r."""
    if len(values) < 4:
        return 10 * interval
    try:
        r = statistics.correlation(values[:-1], values[1:])
    except statistics.StatisticsError:  # one half does not vary
        return 10 * interval
    return -interval / math.log(min(0.999, max(0.02, r)))


def _finite(value: object) -> float | None:
    """A number that a fleet file may have; None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, decimal.Decimal)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= LARGEST else None


def _decimals(value: object) -> int:
    if not isinstance(value, decimal.Decimal):
        return 0
    exponent = value.as_tuple().exponent
    return min(9, max(0, -exponent)) if isinstance(exponent, int) else 0


def _is_clock_text(series: list[tuple[float, object]]) -> bool:
    for t, text in series:
        try:
            moment = datetime.datetime.fromisoformat(str(text))
        except ValueError:
            return False
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        if abs(moment.timestamp() - t) > 90_000:
            return False
    return True


# Writing TOML: only what the tables above hold.


def _table_lines(table: Mapping[str, Any], path: str) -> list[str]:
    lines = []
    nested: list[tuple[str, Any]] = []
    for key, value in table.items():
        if key in ("status", "units", "stream", "constant"):
            nested.append((key, value))
        elif key == "field":
            lines.append("field = [")
            lines += [f"    {_toml(item)}," for item in value]
            lines.append("]")
        else:
            lines.append(f"{_key(key)} = {_toml(value)}")
    for key, value in nested:
        if isinstance(value, list):
            for item in value:
                lines += ["", f"[[{path}.{key}]]", *_table_lines(item, f"{path}.{key}")]
        else:
            lines += ["", f"[{path}.{key}]", *(f"{_key(name)} = {_toml(item)}" for name, item in value.items())]
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML basic string but for U+007F, which JSON leaves alone.
        # Half a surrogate pair, which JSON can spell, is no character.
        whole = value.encode(errors="replace").decode()
        return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    raise TypeError(f"no TOML for {value!r}")
