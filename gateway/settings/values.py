"""Values of settings as people write them: sizes, durations, lists, addresses, topic filters.

Invariant: a value that is wrong raises an error that says the rule and a way out, and no text made here contains a
secret. Which setting is of which kind is in `table`.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from gateway.access.grants import AccessError
from gateway.access.origins import listed_origin
from gateway.access.secrets import weakness
from gateway.cluster.address import Address, AddressError
from gateway.core.conditions import ShapeError, compile_condition
from gateway.core.durations import parse_duration
from gateway.core.fields import Field
from gateway.core.paths import PathError
from gateway.core.templates import Template, TemplateError
from gateway.core.topics import TopicError, has_wildcard, validate_filter, validate_topic
from gateway.settings.problems import CREDENTIALS, RuleError

__all__ = [
    "CONFIG_FILE",
    "MAY_BE_EMPTY",
    "NOTHING",
    "PREFIX",
    "SECTIONS",
    "SUMMARY_NAMES",
    "AlertName",
    "Condition",
    "Duration",
    "ExistingFile",
    "ExistingFolder",
    "FieldPath",
    "GrantFilter",
    "OptionalDuration",
    "Origin",
    "Size",
    "Summary",
    "TopicFilter",
    "check_cluster_name",
    "check_cluster_url",
    "check_header_name",
    "check_host",
    "check_mqtt_url",
    "check_root_path",
    "check_secret",
    "check_status_topic",
    "check_topic_prefix",
    "check_web_url",
    "format_size",
    "list_from_text",
    "mapping_from_text",
    "negated",
    "parse_size",
    "without_credentials",
]


PREFIX = "GATEWAY_"
NOTHING = "none"
"""In a variable or a flag it leaves a setting empty; an empty variable counts as not set."""
MAY_BE_EMPTY: dict[str, Any] = {"may_be_empty": True}
"""Marks a text that has a default and may be empty all the same."""
CONFIG_FILE = "gateway.toml"

# Tables of gateway.toml: the setting `mqtt_url` is `url` in `[mqtt]`.
SECTIONS = ("mqtt", "history", "cluster", "archive", "flash", "access", "limit", "tls", "log")


_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}


def parse_size(value: object) -> int:
    """A number of bytes from a number or text such as `256MiB`, `1.5 GiB`, `64kB`.

    Raises:
        ValueError: the value is no size.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise RuleError("must be a size")
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value)
        if not found:
            raise RuleError("must be a size", "write a number of bytes, or one with a unit such as 256MiB")
        if found[2].lower() not in _SIZE_UNITS:
            near = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}.get(found[2].lower()[:1])
            way_out = f"write {found[1]}{near}" if near else "the units are B, KiB, MiB, GiB, kB, MB and GB"
            raise RuleError(f"has the unknown unit {found[2]!r}", way_out)
        value = float(found[1]) * _SIZE_UNITS[found[2].lower()]
    if not math.isfinite(value) or value != int(value):
        raise RuleError("must be a whole number of bytes")
    return int(value)


def read_duration(value: object) -> float:
    """`parse_duration`, with a way out.

    Raises:
        RuleError: it is none.
    """
    try:
        return parse_duration(value)
    except ValueError:
        raise RuleError("must be a duration", "write it as 250ms, 30s, 10m, 24h or 7d") from None


def format_size(size: int) -> str:
    """The shortest exact text that `parse_size` reads: `256MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit.lower()] == 0:
            return f"{size // _SIZE_UNITS[unit.lower()]}{unit}"
    return str(size)


def _or_none(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else parse(value)


def list_from_text(value: object) -> object:
    """A list from text: JSON when it starts like a JSON list, else separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise RuleError("starts like a JSON list but is none", 'write it as ["a/#","b/+"] or as a/#,b/+') from None
    return [item.strip() for item in value.split(",") if item.strip()]


def mapping_from_text(value: object) -> object:
    """A table from text: a JSON object.

    Raises:
        RuleError: the text is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise RuleError("must be a JSON object", f"or use a table in {CONFIG_FILE}") from None


def _topic_filter(text: str) -> str:
    try:
        return validate_filter(text)
    except TopicError as error:
        raise RuleError(str(error), "a filter looks like sensors/+/state, sensors/# or #") from None


def _grant_filter(text: str) -> str:
    _topic_filter(text.replace("{sub}", "s"))
    return text


def _origin(text: str) -> str:
    try:
        return listed_origin(text)
    except AccessError as error:
        raise RuleError(str(error)) from None


def check_status_topic(text: str) -> str:
    """A topic, or the empty text for no status.

    Raises:
        RuleError: the text is no valid topic name.
    """
    try:
        return validate_topic(text) if text else text
    except TopicError as error:
        raise RuleError(str(error)) from None


def check_topic_prefix(text: str | None) -> str | None:
    """The first levels of topics of ours, without a slash at the end; None for no such topics.

    Raises:
        RuleError: the text can't be the beginning of a topic name.
    """
    if text is None:
        return None
    text = text.rstrip("/")
    if has_wildcard(text):
        raise RuleError("must be the beginning of a topic, without + and #", "write it as gateway/alerts")
    try:
        return validate_topic(text)
    except TopicError as error:
        raise RuleError(str(error), "write it as gateway/alerts") from None


def _alert_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_\-]{1,64}", text):
        bare = re.sub(r"[^A-Za-z0-9_\-]+", "-", text).strip("-")[:64]
        way_out = f"write {bare}" if bare else "such as too-hot"
        raise RuleError(f"the name {text[:80]!r} can't be part of a topic: up to 64 letters, digits, - and _", way_out)
    return text


def negated(where: str) -> str:
    """The condition that holds where another one can be worked out and doesn't hold."""
    return f"!({where})"


def _condition(text: str) -> str:
    try:
        compile_condition(text)
        compile_condition(negated(text))
    except ShapeError as error:
        raise RuleError(str(error), "a condition is such as payload.temperature > 30") from None
    return text


SUMMARY_NAMES = ("name", "value", "state", "since", "for", "silent")
"""What a summary may name beside topic and payload."""


def _summary(text: str) -> str:
    try:
        Template(text, SUMMARY_NAMES)
    except TemplateError as error:
        raise RuleError(error.rule, error.way_out) from None
    return text


_MQTT_SCHEMES = {"mqtt": 1883, "mqtts": 8883}


def check_mqtt_url(text: str) -> str:
    """A broker's address `mqtt://host:port` or `mqtts://host:port`, without a slash at its end.

    Raises:
        RuleError: the text has another scheme, no host, or a path.
    """
    example = "write it as mqtt://localhost:1883, or mqtts://broker.example:8883 for TLS"
    scheme, separator, rest = text.partition("://")
    if not separator:
        guess = f"mqtt://{text}"
        usable = re.fullmatch(r"[\w.\-]+(:\d+)?", text) is not None
        raise RuleError("has no scheme", f"write {guess}" if usable else example)
    if scheme not in _MQTT_SCHEMES:
        near = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts", "mqtt+ssl": "mqtts"}.get(scheme.lower())
        near = near or next(iter(difflib.get_close_matches(scheme.lower(), _MQTT_SCHEMES, 1)), None)
        raise RuleError("must start with mqtt:// or mqtts://", f"write {near}://{rest}" if near else example)
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise RuleError("is not a URL with a host and a port from 1 to 65535", example) from None
    if not host or re.search(r"[\s\x00-\x1f]", text):
        raise RuleError("names no host", example)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise RuleError("must end after the port", f"write {parts.scheme}://{parts.netloc.rpartition('@')[2]}")
    return f"{parts.scheme}://{parts.netloc}"


def check_cluster_url(text: str) -> str:
    """The address of a cluster's server.

    Raises:
        RuleError: the text is none.
    """
    try:
        Address.parse(text)
    except AddressError as error:
        raise RuleError(str(error), "write it as valkey://localhost:6379/0, or valkeys:// for TLS") from None
    return text


def check_cluster_name(text: str) -> str:
    """A name that can be part of keys and client ids.

    Raises:
        RuleError: it can't.
    """
    if not re.fullmatch(r"[\w.\-]{1,100}", text):
        raise RuleError("must be up to 100 letters, digits, '.', '-' and '_'")
    return text


def check_web_url(text: str) -> str:
    """The address of a key set, `http://` or `https://`.

    Raises:
        RuleError: the text is no such URL.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RuleError("must be an http:// or https:// URL")
    return text


def check_header_name(text: str) -> str:
    """The name of a header of a request, RFC 9110 §5.1.

    Raises:
        RuleError: the text is none.
    """
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", text):
        raise RuleError("must be the name of a header", "such as X-Remote-User-Name")
    return text


def check_root_path(text: str) -> str:
    """A prefix of paths such as `/gateway`, without a slash at its end; empty for none.

    Raises:
        RuleError: the text is no path.
    """
    text = text.rstrip("/")
    if text and not re.fullmatch(r"(/[\w.~%\-]+)+", text):
        raise RuleError("must be a path such as /gateway, or empty", f"write /{text.strip('/')}")
    return text


def _field_path(text: str) -> str:
    """The path of a field, such as `outdoor.temperature`.

    Raises:
        RuleError: the text is none.
    """
    try:
        Field.at(text)
    except PathError as error:
        raise RuleError(f"the path {text[:80]!r} {error}", "name a member such as temperature") from None
    return text


def _readable(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise RuleError(f"can't be read: {error.strerror}") from None


def _folder(path: Path) -> Path:
    try:
        with os.scandir(path):
            return path
    except OSError as error:
        raise RuleError(f"can't be read: {error.strerror}") from None


def check_secret(secret: SecretStr) -> SecretStr:
    """A secret that is long enough to sign with.

    Raises:
        RuleError: it has fewer than 32 bytes.
    """
    if (problem := weakness(secret.get_secret_value().encode())) is not None:
        raise RuleError(problem, "make one with: openssl rand -base64 32")
    return secret


def check_host(text: str) -> str:
    """An address or a name to listen on, without brackets.

    Raises:
        RuleError: the text is neither.
    """
    if not re.fullmatch(r"[\w.:\-%]+", text.strip("[]")):
        raise RuleError("must be an address or a name", "127.0.0.1 is this machine only, 0.0.0.0 all its addresses")
    return text.strip("[]")


Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(read_duration)]
OptionalDuration = Annotated[float | None, BeforeValidator(_or_none(read_duration))]
FieldPath = Annotated[str, AfterValidator(_field_path)]
TopicFilter = Annotated[str, AfterValidator(_topic_filter)]
GrantFilter = Annotated[str, AfterValidator(_grant_filter)]
Origin = Annotated[str, AfterValidator(_origin)]
AlertName = Annotated[str, AfterValidator(_alert_name)]
Condition = Annotated[str, AfterValidator(_condition)]
Summary = Annotated[str, AfterValidator(_summary)]
ExistingFile = Annotated[Path, AfterValidator(_readable)]
ExistingFolder = Annotated[Path, AfterValidator(_folder)]


def without_credentials(values: Mapping[str, object]) -> dict[str, object]:
    """Moves user name and password out of the addresses of broker and cluster into settings of their own."""
    values = dict(values)
    for section in ("mqtt", "cluster", "flash_broker"):
        url = values.get(f"{section}_url")
        found = CREDENTIALS.search(url) if isinstance(url, str) else None
        if isinstance(url, str) and found:
            values[f"{section}_url"] = CREDENTIALS.sub("", url)
            username, _, password = found[0][:-1].partition(":")
            if f"{section}_username" not in values and f"{section}_password" not in values:
                values[f"{section}_username"] = unquote(username) or None
                values[f"{section}_password"] = unquote(password) or None
    return values
