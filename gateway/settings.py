"""One table of settings: names, types, defaults, units, bounds and help.

Everything else about settings is derived from the fields of `Settings`: environment variables, the layout of
`gateway.toml`, the flags of `gateway serve`, `gateway check` and docs/settings.md.

Invariant: a `Settings` object that exists is one that the gateway can start with, as far as can be told without
opening a connection; every problem is found in one go, and no text made here contains a secret. Where a value ends up
is for `app` and `cli`.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import ssl
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from annotated_types import Ge, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from gateway.access.grants import AccessError
from gateway.access.origins import is_loopback, normal_origin
from gateway.core.topics import TopicError, validate_filter, validate_topic

__all__ = [
    "SETTINGS",
    "Loaded",
    "Problem",
    "RoleSettings",
    "Setting",
    "Settings",
    "SettingsError",
    "StreamSettings",
    "format_duration",
    "format_size",
    "load_settings",
    "parse_duration",
    "parse_size",
    "read_settings",
]

PREFIX = "GATEWAY_"
CONFIG_FILE = "gateway.toml"

# Tables of gateway.toml: the setting `mqtt_url` is `url` in `[mqtt]`.
SECTIONS = ("mqtt", "history", "access", "limit", "tls", "log")

# Variables with our prefix that are no settings: the file's name, the client commands' own, the test suite's, and
# what Kubernetes sets for a service called "gateway".
_OTHER_VARIABLES = re.compile(r"GATEWAY_(CONFIG|URL|TOKEN|TEST_.*|SERVICE_.*|PORT_\d+_.*)")

# What stands between `//` and the host: anything up to the last `@`, so that a password with characters that a URL
# can't hold is never taken for a host and shown.
_CREDENTIALS = re.compile(r"(?<=//).*@", re.DOTALL)


class SettingsError(Exception):
    """The gateway can't start with these settings; the text lists every problem.

    Attributes:
        problems: one for each, in the order of the table.
    """

    code = "bad_settings"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{count} with the settings:", *(f"  {problem}" for problem in problems)]))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        names: the settings that it is about.
        where: where its value comes from, as the user wrote it: a variable, a flag or a key of the file.
        rule: what is demanded.
        way_out: what to do.
        value: what was given, as text; None where it must not or need not be shown.
    """

    names: tuple[str, ...]
    where: str
    rule: str
    way_out: str
    value: str | None = None

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {self.value}"
        return f"{self.where}{shown}: {self.rule}\n    → {self.way_out}"


class _RuleError(ValueError):
    """What a value of one setting must be, and how to get there."""

    def __init__(self, rule: str, way_out: str | None = None) -> None:
        super().__init__(rule if way_out is None else f"{rule}; {way_out}")
        self.rule = rule
        self.way_out = way_out


# Units

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
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")


def parse_size(value: object) -> int:
    """A number of bytes from a number or text such as `256MiB`, `1.5 GiB`, `64kB`.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _RuleError("must be a size")
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value)
        if not found:
            raise _RuleError("must be a size", "write a number of bytes, or one with a unit such as 256MiB")
        if found[2].lower() not in _SIZE_UNITS:
            near = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}.get(found[2].lower()[:1])
            way_out = f"write {found[1]}{near}" if near else "the units are B, KiB, MiB, GiB, kB, MB and GB"
            raise _RuleError(f"has the unknown unit {found[2]!r}", way_out)
        value = float(found[1]) * _SIZE_UNITS[found[2].lower()]
    if not math.isfinite(value) or value != int(value):
        raise _RuleError("must be a whole number of bytes")
    return int(value)


def parse_duration(value: object) -> float:
    """Seconds from a number (of seconds) or text such as `250ms`, `10m`, `1h30m`, `7d`.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _RuleError("must be a duration")
    if isinstance(value, str):
        text = value.replace(" ", "")
        try:
            return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else _sum_of_units(text)
        except ValueError:
            raise _RuleError("must be a duration", "write it as 250ms, 30s, 10m, 24h or 7d") from None
    if not math.isfinite(value):
        raise _RuleError("must be a duration")
    return float(value)


def _sum_of_units(text: str) -> float:
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in re.findall(r"([\d.]+)([a-z]+)", text))


def format_size(size: int) -> str:
    """The shortest exact text that `parse_size` reads: `256MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit.lower()] == 0:
            return f"{size // _SIZE_UNITS[unit.lower()]}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """The shortest exact text that `parse_duration` reads: `24h`."""
    for unit in ("d", "h", "m"):
        count, rest = divmod(seconds, _DURATION_UNITS[unit])
        # a day is more familiar as 24h
        if count > (unit == "d") and not rest:
            return f"{count:.0f}{unit}"
    return f"{seconds * 1000:.10g}ms" if 0 < seconds < 1 else f"{seconds:.10g}s"


# Types of values


def _or_none(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else parse(value)


def _listed(value: object) -> object:
    """A list from text: JSON when it starts like a JSON list, else separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise _RuleError("starts like a JSON list but is none", 'write it as ["a/#","b/+"] or as a/#,b/+') from None
    return [item.strip() for item in value.split(",") if item.strip()]


def _mapped(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise _RuleError("must be a JSON object", f"or use a table in {CONFIG_FILE}") from None


def _topic_filter(text: str) -> str:
    try:
        return validate_filter(text)
    except TopicError as error:
        raise _RuleError(str(error), "a filter looks like sensors/+/state, sensors/# or #") from None


def _grant_filter(text: str) -> str:
    _topic_filter(text.replace("{sub}", "s"))
    return text


def _origin(text: str) -> str:
    try:
        return normal_origin(text)
    except AccessError as error:
        raise _RuleError(str(error)) from None


def _status_topic(text: str) -> str:
    try:
        return validate_topic(text) if text else text
    except TopicError as error:
        raise _RuleError(str(error)) from None


_MQTT_SCHEMES = {"mqtt": 1883, "mqtts": 8883}


def _mqtt_url(text: str) -> str:
    example = "write it as mqtt://localhost:1883, or mqtts://broker.example:8883 for TLS"
    scheme, separator, rest = text.partition("://")
    if not separator:
        guess = f"mqtt://{text}"
        usable = re.fullmatch(r"[\w.\-]+(:\d+)?", text) is not None
        raise _RuleError("has no scheme", f"write {guess}" if usable else example)
    if scheme not in _MQTT_SCHEMES:
        near = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts", "mqtt+ssl": "mqtts"}.get(scheme.lower())
        near = near or next(iter(difflib.get_close_matches(scheme.lower(), _MQTT_SCHEMES, 1)), None)
        raise _RuleError("must start with mqtt:// or mqtts://", f"write {near}://{rest}" if near else example)
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise _RuleError("is not a URL with a host and a port from 1 to 65535", example) from None
    if not host or re.search(r"[\s\x00-\x1f]", text):
        raise _RuleError("names no host", example)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _RuleError("must end after the port", f"write {parts.scheme}://{parts.netloc.rpartition('@')[2]}")
    return f"{parts.scheme}://{parts.netloc}"


def _web_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _RuleError("must be an http:// or https:// URL")
    return text


def _root_path(text: str) -> str:
    text = text.rstrip("/")
    if text and not re.fullmatch(r"(/[\w.~%\-]+)+", text):
        raise _RuleError("must be a path such as /gateway, or empty", f"write /{text.strip('/')}")
    return text


def _readable(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise _RuleError(f"can't be read: {error.strerror}") from None


def _secret_key(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < 32:  # RFC 7518 §3.2: as long as the hash of HS256
        raise _RuleError("must have at least 32 bytes", "make one with: openssl rand -base64 32")
    return secret


def _host(text: str) -> str:
    if not re.fullmatch(r"[\w.:\-%]+", text.strip("[]")):
        raise _RuleError("must be an address or a name", "127.0.0.1 is this machine only, 0.0.0.0 all its addresses")
    return text.strip("[]")


Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
OptionalDuration = Annotated[float | None, BeforeValidator(_or_none(parse_duration))]
TopicFilter = Annotated[str, AfterValidator(_topic_filter)]
GrantFilter = Annotated[str, AfterValidator(_grant_filter)]
Origin = Annotated[str, AfterValidator(_origin)]
ExistingFile = Annotated[Path, AfterValidator(_readable)]


class StreamSettings(BaseModel):
    """A stream `/ws/NAME/`: data only, for pages that know nothing of MQTT.

    Attributes:
        topics: its topic filters.
        field: the field of a JSON payload that a message must have, and under which its value is sent; None sends
            every payload as `payload`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topics: Annotated[tuple[TopicFilter, ...], BeforeValidator(_listed), Field(min_length=1)]
    field: str | None = None


class RoleSettings(BaseModel):
    """What everyone with a role may do.

    Attributes:
        subscribe: topic filters; `{sub}` stands for the token's subject.
        publish: likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subscribe: Annotated[tuple[GrantFilter, ...], BeforeValidator(_listed)] = ()
    publish: Annotated[tuple[GrantFilter, ...], BeforeValidator(_listed)] = ()


class Settings(BaseModel):
    """The settings in force; sizes are in bytes and durations in seconds.

    Made directly, it reads neither environment nor file: that is for `load_settings`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Upstream
    mqtt_url: Annotated[str, AfterValidator(_mqtt_url)] = Field(
        "mqtt://localhost:1883",
        description="The broker; `mqtts://` for TLS. `user:password@` may stand before the host",
    )
    mqtt_topics: Annotated[tuple[TopicFilter, ...], BeforeValidator(_listed)] = Field(
        ("#",), min_length=1, max_length=1000, description="Topic filters to subscribe to on the broker"
    )
    mqtt_username: str | None = Field(None, description="User name for the broker")
    mqtt_password: SecretStr | None = Field(None, description="Password for the broker")
    mqtt_client_id: str = Field(
        "gateway",
        min_length=1,
        max_length=200,
        description="Client id on the broker, which keeps our session under it: each gateway needs its own",
    )
    mqtt_ca_file: ExistingFile | None = Field(
        None, description="Certificates to trust for `mqtts://`, PEM; the system's where unset"
    )
    mqtt_cert_file: ExistingFile | None = Field(None, description="Our certificate for the broker, PEM")
    mqtt_key_file: ExistingFile | None = Field(None, description="The key of that certificate, PEM")
    mqtt_keepalive: Duration = Field(
        30, ge=1, le=65535, description="Longest silence on the broker's connection; half of it more means it is dead"
    )
    mqtt_session_expiry: Duration = Field(
        3600,
        ge=0,
        le=10 * 365 * 86400,
        description="How long the broker keeps QoS 1 messages for a gateway that is away (MQTT 5)",
    )
    mqtt_status_topic: Annotated[str, AfterValidator(_status_topic)] = Field(
        "gateway/status", description="Where `online` and, as the last will, `offline` are published; empty: nowhere"
    )
    mqtt_websocket: bool = Field(False, description="Serve `/mqtt`: MQTT over WebSocket, piped to the broker")

    # Server
    host: Annotated[str, AfterValidator(_host)] = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one")
    root_path: Annotated[str, AfterValidator(_root_path)] = Field(
        "", description="Path prefix under which a proxy serves the gateway"
    )
    forwarded_allow_ips: str = Field(
        "", description="Addresses or networks of proxies whose `X-Forwarded-…` headers count, separated by commas"
    )
    tls_cert: ExistingFile | None = Field(None, description="Certificate chain for HTTPS, PEM")
    tls_key: ExistingFile | None = Field(None, description="Its key, PEM")
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="Form of the log; `auto` is `human` in a terminal and `json` elsewhere"
    )
    log_file: Path | None = Field(
        None, description="File to log to instead of standard error; opened again when it was rotated away"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe entries to log")
    flush_interval: OptionalDuration = Field(
        None, ge=0, le=1, description="Least time between two flushes; unset, it follows the load"
    )

    # History
    history_messages: int = Field(1000, ge=1, le=1_000_000, description="Messages kept for each topic")
    history_topics: int = Field(100_000, ge=1, le=10_000_000, description="Topics kept")
    history_bytes: Size = Field(256 * 1024**2, ge=1024**2, le=1024**4, description="Memory for all of history")
    history_age: Duration = Field(86400, ge=1, le=10 * 365 * 86400, description="Messages older than this are dropped")

    # Access
    access_allow_anonymous: bool = Field(
        False,
        description="Without an access policy, listen on other than loopback addresses all the same",
        json_schema_extra={"flag": "--allow-anonymous"},
    )
    access_public_metrics: bool = Field(
        False, description="With an access policy, answer `/metrics` to everyone, not only to who is granted `$SYS/#`"
    )
    access_origins: Annotated[tuple[Origin, ...], BeforeValidator(_listed)] = Field(
        (), description="Origins of other sites whose pages may use the gateway, such as `https://example.com`"
    )
    access_secret: Annotated[SecretStr, AfterValidator(_secret_key)] | None = Field(
        None, description="Secret that signs access tokens (HS256), at least 32 bytes"
    )
    access_key_file: ExistingFile | None = Field(None, description="Public key that verifies access tokens, PEM")
    access_jwks_url: Annotated[str, AfterValidator(_web_url)] | None = Field(
        None, description="Where the issuer publishes its keys (JWKS)"
    )
    access_jwks_file: ExistingFile | None = Field(None, description="A file with the issuer's keys (JWKS)")
    access_algorithms: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="Accepted signature algorithms; unset, those that fit the key"
    )
    access_audience: str | None = Field(None, description="Demanded `aud` of a token")
    access_issuer: str | None = Field(None, description="Demanded `iss` of a token")
    access_cookie: str | None = Field(None, description="Name of a cookie that may carry the token")
    access_anonymous_role: str | None = Field(
        None, description="Role of those without a token; unset, they get nothing"
    )

    # Limits
    limit_connections: int = Field(10_000, ge=1, le=1_000_000, description="Connections in all")
    limit_connections_per_address: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Connections from one address: so many WebSockets and event streams, so many requests at a time, "
        "and so many HTTP connections that wait for a request; of the last, a proxy in `GATEWAY_FORWARDED_ALLOW_IPS` "
        "may have as many as there may be in all",
    )
    limit_filters: int = Field(100, ge=1, le=10_000, description="Topic filters of one subscriber")
    limit_filter_bytes: Size = Field(
        16 * 1024, ge=256, le=64 * 1024**2, description="Length of all topic filters of one subscriber together"
    )
    limit_commands_per_second: int = Field(50, ge=1, le=100_000, description="Commands of one connection")
    limit_publishes_per_second: int = Field(100, ge=1, le=100_000, description="Messages that one connection publishes")
    limit_requests_per_second: int = Field(
        200,
        ge=1,
        le=1_000_000,
        description="HTTP requests from one address, twice as many at once; and handshakes of WebSockets, as many at "
        "once as it may have connections",
    )
    limit_command_bytes: Size = Field(
        2 * 1024**2,
        ge=8192,
        le=96 * 1024**2,
        description="Longest command; has to hold the longest payload in base64 and 4 KiB more",
    )
    limit_payload_bytes: Size = Field(1024**2, ge=1, le=64 * 1024**2, description="Longest payload to publish")
    limit_url_bytes: Size = Field(8 * 1024, ge=256, le=64 * 1024, description="Longest URL")
    limit_handshake_seconds: Duration = Field(
        10, ge=0.1, le=600, description="Time for a request's headers, and for a refused one to authenticate"
    )
    limit_idle_seconds: Duration = Field(
        90,
        ge=2,
        le=86400,
        description="A connection that is silent for so long is closed; pings go at half of it",
    )
    limit_buffer_bytes: Size = Field(
        256 * 1024, ge=4096, le=1024**3, description="Unsent bytes of one socket at which its subscriber is slow"
    )
    limit_failed_tokens: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="Bad tokens of one address at once; then one every two seconds, and the others are told to wait",
    )
    limit_stall_seconds: Duration = Field(
        30, ge=1, le=86400, description="A slow subscriber without progress for so long is closed"
    )
    limit_replay_messages: int = Field(100_000, ge=1, le=100_000_000, description="Messages that one replay sends")
    limit_shape_bytes: Size = Field(
        64 * 1024**2, ge=1024**2, le=64 * 1024**3, description="What the intervals and deadbands of shapes hold"
    )

    # Tables
    streams: Annotated[dict[str, StreamSettings], BeforeValidator(_mapped)] = Field(
        {"temperature": StreamSettings(topics=("sensors/+/state",), field="temperature")},
        description="Streams, each a table `[streams.NAME]` with `topics` and `field`; they take the default's place",
    )
    roles: Annotated[dict[str, RoleSettings], BeforeValidator(_mapped)] = Field(
        {}, description="Roles, each a table `[roles.NAME]` with `subscribe` and `publish`"
    )

    @model_validator(mode="before")
    @classmethod
    def _take_credentials_out_of_url(cls, values: Any) -> Any:
        return _without_credentials(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_together(self, info: ValidationInfo) -> Settings:
        problems = list(self._problems_between())
        if isinstance(info.context, list):
            info.context.extend(problems)
        elif problems:
            raise ValueError("; ".join(f"{problem.rule} ({problem.way_out})" for problem in problems))
        return self

    @property
    def has_access_policy(self) -> bool:
        """Whether something decides who may do what, other than being on this machine."""
        return any((*self._keys().values(), self.access_anonymous_role))

    def _keys(self) -> dict[str, object]:
        names = ("access_secret", "access_key_file", "access_jwks_url", "access_jwks_file")
        return {name: getattr(self, name) for name in names}

    def _problems_between(self) -> Iterator[Problem]:
        """What is wrong only because of another setting."""

        def problem(names: tuple[str, ...], rule: str, way_out: str) -> Problem:
            return Problem(names, ", ".join(names), rule, way_out)

        if not (is_loopback(self.host) or self.has_access_policy or self.access_allow_anonymous):
            yield problem(
                ("host", "access_allow_anonymous", "access_anonymous_role", *self._keys()),
                f"without an access policy the gateway listens on loopback addresses only, and {self.host!r} is none",
                "set access_secret, another key or access_anonymous_role; or, if everyone who can reach this address "
                "may read and publish everything, access_allow_anonymous (--allow-anonymous)",
            )
        least = -(-self.limit_payload_bytes // 3) * 4 + 4096
        if self.limit_command_bytes < least:
            yield problem(
                ("limit_command_bytes", "limit_payload_bytes"),
                f"a payload of {format_size(self.limit_payload_bytes)} is no command of "
                f"{format_size(self.limit_command_bytes)}: in base64 it is a third longer",
                f"set limit_command_bytes to at least {least}, or limit_payload_bytes to less",
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            yield problem(("tls_cert", "tls_key"), "a certificate and its key go together", "set both or neither")
        elif self.tls_cert is not None and self.tls_key is not None:
            yield from _certificate_problems(("tls_cert", "tls_key"), self.tls_cert, self.tls_key)
        if (self.mqtt_cert_file is None) != (self.mqtt_key_file is None):
            names = ("mqtt_cert_file", "mqtt_key_file")
            yield problem(names, "a certificate and its key go together", "set both or neither")
        elif self.mqtt_cert_file is not None and self.mqtt_key_file is not None:
            yield from _certificate_problems(
                ("mqtt_cert_file", "mqtt_key_file"), self.mqtt_cert_file, self.mqtt_key_file
            )
        for name in ("mqtt_ca_file", "mqtt_cert_file"):
            if getattr(self, name) is not None and not self.mqtt_url.startswith("mqtts://"):
                way_out = (
                    f"write mqtts://{self.mqtt_url.partition('://')[2]} with the broker's port for TLS, often 8883"
                )
                yield problem((name, "mqtt_url"), "is used only for mqtts://", way_out)
        if self.mqtt_password is not None and self.mqtt_username is None:
            yield problem(("mqtt_password", "mqtt_username"), "a password needs a user name", "set mqtt_username")
        keys = tuple(name for name, value in self._keys().items() if value is not None)
        if len(keys) > 1:
            yield problem(keys, "only one of them can verify tokens", "keep one and unset the others")
        role = self.access_anonymous_role
        if role is not None and role not in self.roles:
            known = ", ".join(sorted(self.roles)) or "none"
            rule = f"the role {role!r} is not defined; defined are: {known}"
            yield problem(("access_anonymous_role", "roles"), rule, f"add a table [roles.{role}] to {CONFIG_FILE}")
        for name in self.streams:
            if not re.fullmatch(r"[\w\-]+", name):
                rule = f"the stream's name {name!r} can't be part of a URL"
                yield problem(("streams",), rule, "use letters, digits, '-' and '_'")


def _without_credentials(values: Mapping[str, object]) -> dict[str, object]:
    """Moves user name and password from the broker's URL to settings of their own, so that the URL can be shown."""
    values = dict(values)
    url = values.get("mqtt_url")
    found = _CREDENTIALS.search(url) if isinstance(url, str) else None
    if isinstance(url, str) and found:
        values["mqtt_url"] = _CREDENTIALS.sub("", url)
        username, _, password = found[0][:-1].partition(":")
        if "mqtt_username" not in values and "mqtt_password" not in values:
            values["mqtt_username"] = unquote(username) or None
            values["mqtt_password"] = unquote(password) or None
    return values


def _certificate_problems(names: tuple[str, str], cert: Path, key: Path) -> Iterator[Problem]:
    try:
        # an empty password, so that an encrypted key is an error and not a question on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        reason = "the key does not belong to the certificate" if "MISMATCH" in str(error) else str(error)
        way_out = "both must be PEM files, the certificate first in its chain, the key without a password"
        yield Problem(names, ", ".join(names), f"{cert} and {key} can't be used: {reason}", way_out)


# The table, as others see it


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        name: the field of `Settings`.
        kind: text, number, size, duration, switch, choice, list, file, secret or table.
        default: as one would write it; empty for none.
        bounds: the least and the greatest value, or the choices, as one would write them; empty for none.
        help: what it does.
        flag: its flag of `gateway serve`. A secret has none, because everyone on a machine can see the command lines
            of its processes; a table has none either.
    """

    name: str
    kind: str
    default: str
    bounds: str
    help: str
    flag: str | None

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def key(self) -> str:
        """Its place in the file: `port`, `[mqtt] url` or `[streams.NAME]`."""
        if self.kind == "table":
            return f"[{self.name}.NAME]"
        section, _, rest = self.name.partition("_")
        return f"[{section}] {rest}" if section in SECTIONS else self.name

    def show(self, value: object) -> str:
        """A value as one would write it; a secret only as being set."""
        if value is None or value == () or value == "":
            return ""
        if self.kind == "secret":
            return "(set, not shown)"
        return _masked(self._as_text(value))

    def _as_text(self, value: object) -> str:
        match value:
            case bool():
                return "true" if value else "false"
            case int() if self.kind == "size":
                return format_size(value)
            case int() | float() if self.kind == "duration":
                return format_duration(value)
            case tuple() | list():
                return ", ".join(str(item) for item in value)
            case dict():
                return ", ".join(value)
            case _:
                return str(value)


def _masked(text: str) -> str:
    return _CREDENTIALS.sub("***@", text)


def _kind(annotation: Any) -> str:
    """What kind of value an annotation of `Settings` stands for."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _kind(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _kind(next(item for item in typing.get_args(annotation) if item is not type(None)))
    names: dict[Any, str] = {bool: "switch", int: "number", float: "number", Path: "file", SecretStr: "secret"}
    if origin is Literal:
        return "choice"
    return {tuple: "list", dict: "table"}.get(origin) or names.get(annotation, "text")


def _rows() -> Iterator[Setting]:
    parsers: dict[Any, str] = {parse_size: "size", parse_duration: "duration"}
    hints = typing.get_type_hints(Settings, include_extras=True)
    for name, field in Settings.model_fields.items():
        kind = "duration" if hints[name] is OptionalDuration else _kind(hints[name])
        for item in field.metadata:
            kind = parsers.get(getattr(item, "func", None), kind)
        row = Setting(name, kind, "", "", "", None)
        least = next((row.show(item.ge) for item in field.metadata if isinstance(item, Ge)), "")
        most = next((row.show(item.le) for item in field.metadata if isinstance(item, Le)), "")
        bounds = f"{least} – {most}" if least or most else ""
        if kind == "choice":
            bounds = ", ".join(typing.get_args(hints[name]))
        default = field.default or None if kind == "table" else field.default
        flag = None if kind in ("secret", "table") else "--" + name.replace("_", "-")
        if isinstance(field.json_schema_extra, dict):
            flag = str(field.json_schema_extra.get("flag", flag))
        yield Setting(name, kind, row.show(default), bounds, field.description or "", flag)


SETTINGS: Mapping[str, Setting] = {row.name: row for row in _rows()}


# Reading


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was found, for those who want to see it whole.

    Attributes:
        settings: the settings in force; where there are problems, with defaults in place of what is wrong, or None
            if that isn't possible.
        origins: for each setting that isn't at its default, where its value comes from.
        problems: all of them.
        config_file: the file that was read; None if there was none.
    """

    settings: Settings | None
    origins: Mapping[str, str]
    problems: tuple[Problem, ...]
    config_file: Path | None


def load_settings(
    overrides: Mapping[str, object] | None = None,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings from file, environment and flags, in rising order.

    Args:
        overrides: values of flags by setting, as text or as values; None stands for a flag that wasn't given.
        config_file: the file to read; None takes `GATEWAY_CONFIG`, or `gateway.toml` here if there is one.
        environ: the environment; None is the process's own.

    Raises:
        SettingsError: something is wrong with them; the text lists every problem.
    """
    loaded = read_settings(overrides, config_file, environ)
    if loaded.problems or loaded.settings is None:
        raise SettingsError(loaded.problems)
    return loaded.settings


def read_settings(
    overrides: Mapping[str, object] | None = None,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Like `load_settings`, but never raises and says where each value comes from."""
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    path, file_values = _read_file(config_file, environ, problems)
    for name, value in _without_credentials(file_values).items():
        values[name] = value
        origins[name] = f"{path}: {SETTINGS[name].key}" if SETTINGS[name].kind != "table" else str(path)
    variables = _read_environment(environ, problems)
    # credentials in a URL rank with their URL: they take the place of those from a weaker source
    for name, value in _without_credentials({name: value for name, (value, _) in variables.items()}).items():
        values[name] = value
        origins[name] = variables[name][1] if name in variables else variables["mqtt_url"][1]
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    for name, value in _without_credentials(given).items():
        values[name] = value
        origins[name] = SETTINGS[name].flag or SETTINGS["mqtt_url"].flag or name
    settings = _validate(values, origins, problems)
    order = {name: number for number, name in enumerate(SETTINGS)}
    problems.sort(key=lambda problem: min((order.get(name, -1) for name in problem.names), default=-1))
    return Loaded(settings, origins, tuple(problems), path)


def _read_file(
    config_file: Path | None, environ: Mapping[str, str], problems: list[Problem]
) -> tuple[Path | None, dict[str, object]]:
    path = config_file or Path(environ.get(PREFIX + "CONFIG") or CONFIG_FILE)
    asked_for = config_file is not None or bool(environ.get(PREFIX + "CONFIG"))
    if not asked_for and not path.exists():
        return None, {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(Problem((), str(path), f"can't be read: {error.strerror}", "give the path of a TOML file"))
        return path, {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(Problem((), str(path), f"is not valid TOML: {error}", 'text is written in quotes: "…"'))
        return path, {}
    values: dict[str, object] = {}

    def take(name: str, where: str, value: object) -> None:
        if name not in SETTINGS:
            problems.append(Problem((), f"{path}: {where}", "is not a setting", _near_miss_in_file(where)))
        elif name in values:
            problems.append(Problem((name,), f"{path}: {where}", "is there twice", "keep one of them"))
        else:
            values[name] = value

    for key, value in data.items():
        if key in SECTIONS and isinstance(value, dict):
            for inner, inner_value in value.items():
                take(f"{key}_{inner}", f"[{key}] {inner}", inner_value)
        else:
            take(key, key, value)
    return path, values


def _near_miss_in_file(where: str) -> str:
    places = {row.key.replace(".NAME", ""): row.key for row in SETTINGS.values()}
    places |= {row.name: row.key for row in SETTINGS.values()} | {section: f"[{section}]" for section in SECTIONS}
    near = difflib.get_close_matches(where, places, 1, 0.7)
    return f"did you mean {places[near[0]]}?" if near else "docs/settings.md lists them all"


def _read_environment(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, tuple[object, str]]:
    values: dict[str, tuple[object, str]] = {}
    variables = {row.variable: row for row in SETTINGS.values()}
    variables_of_files = {f"{row.variable}_FILE": row for row in SETTINGS.values() if row.kind == "secret"}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        value = environ[variable]
        if variable in variables:
            # Compose passes ${NAME:-} on as an empty variable
            if value:
                values[variables[variable].name] = value, variable
        elif variable in variables_of_files:
            row = variables_of_files[variable]
            if environ.get(row.variable):
                rule = f"{row.variable} is set, too"
                problems.append(Problem((row.name,), variable, rule, "keep one of them"))
            elif value:
                try:
                    values[row.name] = Path(value).read_text(encoding="utf-8").rstrip("\r\n"), variable
                except (OSError, UnicodeDecodeError) as error:
                    reason = error.strerror if isinstance(error, OSError) else "it is not text"
                    rule = f"can't be read: {reason}"
                    problems.append(Problem((row.name,), variable, rule, "give the path of a file", repr(value)))
        elif not _OTHER_VARIABLES.fullmatch(variable):
            # no value: it may well be a secret under a misspelt name
            # without the prefix, which would make everything alike
            names = [name.removeprefix(PREFIX) for name in (*variables, *variables_of_files)]
            near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, 1, 0.75)
            way_out = f"did you mean {PREFIX}{near[0]}?" if near else "docs/settings.md lists them all"
            problems.append(Problem((), variable, "is not a setting", way_out))
    return values


def _validate(values: dict[str, object], origins: Mapping[str, str], problems: list[Problem]) -> Settings | None:
    """The settings, with everything that is wrong left at its default; problems are added to the list."""
    between: list[Problem] = []
    bad: set[str] = set()
    settings: Settings | None = None
    while settings is None:
        between.clear()
        given = {name: value for name, value in values.items() if name not in bad}
        try:
            settings = Settings.model_validate(given, context=between)
        except ValidationError as error:
            found = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
            if not found - bad:
                return None
            # a list is too short only because its items were bad: one problem, not two
            parents = {item["loc"][:end] for item in error.errors() for end in range(1, len(item["loc"]))}
            problems += [
                _problem(item, values, origins)
                for item in error.errors()
                if not (item["type"] == "too_short" and item["loc"] in parents)
            ]
            bad |= found
    for problem in between:
        # what an unusable value would have changed can't be judged
        if not bad.intersection(problem.names):
            where = ", ".join(dict.fromkeys(origins.get(name, name) for name in problem.names if name in origins))
            problems.append(Problem(problem.names, where or problem.where, problem.rule, problem.way_out))
    return settings


def _problem(error: Any, values: Mapping[str, object], origins: Mapping[str, str]) -> Problem:
    """A problem from one of pydantic's."""
    name = str(error["loc"][0])
    row = SETTINGS[name]
    inner = [str(part) for part in error["loc"][1:]]
    cause = error.get("ctx", {}).get("error")
    value = values.get(name)
    for part in error["loc"][1:]:
        if isinstance(value, dict) and part in value:
            value = value[part]
    way_out: str | None = None
    if isinstance(cause, _RuleError):
        rule, way_out = cause.rule, cause.way_out
    elif error["type"] in ("greater_than_equal", "less_than_equal"):
        rule = f"must be in the range {row.bounds}"
    elif error["type"] == "literal_error":
        near = difflib.get_close_matches(str(value).lower(), row.bounds.split(", "), 1)
        rule, way_out = f"must be one of {row.bounds}", f"did you mean {near[0]}?" if near else None
    elif error["type"] == "extra_forbidden":
        rule, way_out = f"has no key {inner[-1]!r}", "a stream has topics and field, a role subscribe and publish"
    elif error["type"] == "missing":
        rule = f"lacks {inner[-1]!r}"
    else:
        expected = {
            "int": "a whole number",
            "float": "a number",
            "bool": "true or false",
            "string": "text",
            "tuple": "a list",
            "dict": "a table",
            "model": "a table",
            "path": "a path",
            "too": "a list with at least one item",
        }.get(error["type"].partition("_")[0])
        rule = f"must be {expected}" if expected else str(error["msg"])
    if name == "port" and str(value).startswith("tcp://"):
        way_out = "Kubernetes sets this for a service called 'gateway': turn enableServiceLinks off for the pod"
    if way_out is None:
        way_out = f"the default is {row.default}" if row.default and not inner else "docs/settings.md has examples"
    shown = None if row.kind in ("secret", "table") or value is None else _masked(repr(value))[:200]
    where = origins.get(name, name)
    if row.kind == "table" and inner:
        where += f": [{name}.{inner[0]}] {' '.join(part for part in inner[1:] if not part.isdecimal())}".rstrip()
    return Problem((name,), where, rule, _masked(way_out), shown)


def markdown() -> str:
    """The table for docs/settings.md."""
    titles = {
        "mqtt": "Broker",
        "history": "History",
        "access": "Access",
        "limit": "Limits",
        "table": "Tables",
        "": "Server",
    }
    lines: list[str] = []
    last = None
    for row in SETTINGS.values():
        section = row.name.partition("_")[0]
        title = titles["table"] if row.kind == "table" else titles.get(section, titles[""])
        if title != last:
            lines += ["", f"### {title}", "", "| variable, flag | in the file | default | |", "|---|---|---|---|"]
            last = title
        names = f"`{row.variable}`" + (f"<br>`{row.flag}`" if row.flag else "")
        bounds = f" ({row.bounds})" if row.bounds else ""
        lines.append(f"| {names} | `{row.key}` | {f'`{row.default}`' if row.default else ''} | {row.help}{bounds} |")
    return "\n".join(lines[1:]) + "\n"
