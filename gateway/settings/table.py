"""One table of settings: names, types, defaults, units, bounds and help.

Invariant: a `Settings` object that exists is one that the gateway can start with, as far as can be told without opening
a connection. Everything else about settings is derived from its fields (`rows`): environment variables, the layout of
`gateway.toml`, the flags of `gateway serve`, `gateway check` and docs/settings.md.

It is long because it is one table, and what must fit together is checked where all of it is.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    model_validator,
)

from gateway.access.origins import is_loopback
from gateway.core.durations import duration_text
from gateway.core.topics import covers, overlap
from gateway.settings.alerting import AlertSettings, WebhookSettings
from gateway.settings.decoding import DecodeSettings, decode_problems
from gateway.settings.problems import Problem
from gateway.settings.values import (
    CONFIG_FILE,
    MAY_BE_EMPTY,
    Duration,
    ExistingFile,
    ExistingFolder,
    FieldPath,
    GrantFilter,
    OptionalDuration,
    Origin,
    Size,
    TopicFilter,
    check_cluster_name,
    check_cluster_url,
    check_header_name,
    check_host,
    check_mqtt_url,
    check_root_path,
    check_secret,
    check_status_topic,
    check_topic_prefix,
    check_web_url,
    format_size,
    list_from_text,
    mapping_from_text,
    without_credentials,
)

__all__ = ["KeepSettings", "RoleSettings", "Settings", "Source", "StreamSettings"]


MAX_ALERTS = 200
"""Alerts: each looks at what matches its filters by itself."""

MAX_KEEPS = 32
"""Rules of retention: each is asked for, and looks through the archive by itself."""


class StreamSettings(BaseModel):
    """A stream `/ws/NAME/`: data only, for pages that know nothing of MQTT.

    Attributes:
        topics: its topic filters.
        field: the field of a JSON payload that a message must have, and under which its value is sent; None sends
            every payload as `payload`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topics: Annotated[tuple[TopicFilter, ...], BeforeValidator(list_from_text), Field(min_length=1)]
    field: FieldPath | None = None


class RoleSettings(BaseModel):
    """What everyone with a role may do.

    Attributes:
        subscribe: topic filters; `{sub}` stands for the token's subject.
        publish: likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subscribe: Annotated[tuple[GrantFilter, ...], BeforeValidator(list_from_text)] = ()
    publish: Annotated[tuple[GrantFilter, ...], BeforeValidator(list_from_text)] = ()


Kept = Annotated[OptionalDuration, Field(ge=60, le=100 * 365 * 86400)]


class KeepSettings(BaseModel):
    """How long the archive keeps what came to some topics; None is until the bound in bytes takes it.

    Attributes:
        topics: their topic filters.
        raw: the messages, seconds.
        minute: their roll-ups by minute, seconds.
        hour: those by hour, seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topics: Annotated[tuple[TopicFilter, ...], BeforeValidator(list_from_text), Field(min_length=1, max_length=100)]
    raw: Kept = None
    minute: Kept = None
    hour: Kept = None

    @property
    def ages_ms(self) -> tuple[int | None, int | None, int | None]:
        """The three in milliseconds."""
        raw, minute, hour = (None if age is None else int(age * 1000) for age in (self.raw, self.minute, self.hour))
        return raw, minute, hour


@dataclass(frozen=True, slots=True)
class Source:
    """Where settings come from; equal settings are so wherever they come from.

    Attributes:
        read: reads them once more; None where they were made directly.
    """

    read: Callable[[], Settings] | None = field(default=None, compare=False)


class Settings(BaseModel):
    """The settings in force; sizes are in bytes and durations in seconds.

    Made directly, it reads neither environment nor file: that is for `load_settings`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _source: Source = PrivateAttr(default_factory=Source)

    # Upstream
    mqtt_url: Annotated[str, AfterValidator(check_mqtt_url)] = Field(
        "mqtt://localhost:1883",
        description="The broker; `mqtts://` for TLS. `user:password@` may stand before the host",
    )
    mqtt_topics: Annotated[tuple[TopicFilter, ...], BeforeValidator(list_from_text)] = Field(
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
        30,
        ge=1,
        le=65535,
        description="Longest silence on the broker's connection; after 1.5 times it the connection is given up",
    )
    mqtt_session_expiry: Duration = Field(
        3600,
        ge=0,
        le=10 * 365 * 86400,
        description="How long the broker keeps QoS 1 messages for a gateway that is away (MQTT 5)",
    )
    mqtt_status_topic: Annotated[str, AfterValidator(check_status_topic)] = Field(
        "gateway/status",
        description="Where `online` and, as the last will, `offline` are published; `none`: nowhere",
        json_schema_extra=MAY_BE_EMPTY,
    )
    mqtt_discovery: Annotated[str | None, AfterValidator(check_topic_prefix)] = Field(
        None,
        description="Where Home Assistant looks for new entities, `homeassistant`: the gateway itself appears there, "
        "with its messages a second and its subscribers",
    )
    mqtt_websocket: bool = Field(False, description="Serve `/mqtt`: MQTT over WebSocket, piped to the broker")

    # Server
    host: Annotated[str, AfterValidator(check_host)] = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Gateways on this machine that share the port, one for each core: the nodes of a cluster",
    )
    root_path: Annotated[str, AfterValidator(check_root_path)] = Field(
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

    # Archive
    archive_file: Path | None = Field(
        None,
        description="File in which history survives the process, a SQLite database; unset, it is in memory only. "
        "In a cluster each node has a file of its own",
    )
    archive_bytes: Size = Field(
        8 * 1024**3,
        ge=0,
        le=1024**5,
        description="Most that the file takes: beyond it the oldest messages go, then roll-ups; 0 is without a bound",
    )
    archive_series: int = Field(
        50_000,
        ge=0,
        le=10_000_000,
        description="Numbers and texts, each at one place in the payloads of one topic, of which the archive makes "
        "roll-ups; `gateway explain` names what is left out",
    )
    archive_flush_interval: Duration = Field(
        1,
        ge=0.05,
        le=300,
        description="How often what arrived is written and, at QoS 1 and 2, then acknowledged to the broker",
    )
    archive_buffer_bytes: Size = Field(
        64 * 1024**2,
        ge=1024**2,
        le=64 * 1024**3,
        description="Memory for what waits for the disk; beyond it messages are relayed and not kept",
    )

    # Cluster
    cluster_url: Annotated[str, AfterValidator(check_cluster_url)] | None = Field(
        None,
        description="Valkey (or Redis) server with the log that many gateways share: `valkey://host:6379/0`, "
        "`valkeys://` for TLS, `valkey+sentinel://host:26379/SERVICE/0`. `user:password@` may stand before the host",
    )
    cluster_username: str | None = Field(None, description="User name for that server")
    cluster_password: SecretStr | None = Field(None, description="Password for that server")
    cluster_ca_file: ExistingFile | None = Field(
        None, description="Certificates of the authorities that may vouch for that server; unset, those of the system"
    )
    cluster_name: Annotated[str, AfterValidator(check_cluster_name)] = Field(
        "gateway", description="Gateways with one name on one server are one cluster"
    )
    cluster_node: Annotated[str, AfterValidator(check_cluster_name)] | None = Field(
        None, description="Name of this node, another one for each; unset, the name of the machine and a random end"
    )

    # Alerts
    alert_topic: Annotated[str, AfterValidator(check_topic_prefix)] = Field(
        "gateway/alerts",
        description="Where the state of each alert is published, retained, with its name as the last level; it comes "
        "back from there after a restart",
    )
    alert_discovery: Annotated[str | None, AfterValidator(check_topic_prefix)] = Field(
        None, description="Where Home Assistant looks for new entities, `homeassistant`: alerts appear there as sensors"
    )

    # Views
    view_topic: Annotated[str | None, AfterValidator(check_topic_prefix)] = Field(
        None,
        description="Where views of the dashboard are kept, retained, with the name of each as the last level, by and "
        "for those who may publish and read there, such as `gateway/views`; unset, they are in their addresses only",
    )

    # Boards
    flash_folder: ExistingFolder | None = Field(
        None, description="Images that the page writes to boards: where `sensors-flash image` has put them"
    )
    flash_broker_url: Annotated[str, AfterValidator(check_mqtt_url)] | None = Field(
        None,
        description="The broker as boards see it: the page offers it to those who may publish to `sensors/#`, with the "
        "user and the password below; `user:password@` may stand before the host",
    )
    flash_broker_username: str | None = Field(None, description="User name of boards at that broker")
    flash_broker_password: SecretStr | None = Field(None, description="Password of boards at that broker")
    flash_keys_file: Path | None = Field(
        None,
        description="File that keeps the keys of boards that the page has set up, as `sensors-flash update` reads it; "
        "unset, people keep them",
    )

    # Access
    access_allow_anonymous: bool = Field(
        False,
        description="Without an access policy, listen on other than loopback addresses all the same",
        json_schema_extra={"flag": "--allow-anonymous"},
    )
    access_public_metrics: bool = Field(
        False, description="With an access policy, answer `/metrics` to everyone, not only to who is granted `$SYS/#`"
    )
    access_origins: Annotated[tuple[Origin, ...], BeforeValidator(list_from_text)] = Field(
        (),
        description="Origins of other sites whose pages may use the gateway, such as `https://example.com`, or "
        "`http://localhost:*` for every port of this machine",
    )
    access_secret: Annotated[SecretStr, AfterValidator(check_secret)] | None = Field(
        None, description="Secret that signs access tokens (HS256), at least 32 bytes"
    )
    access_key_file: ExistingFile | None = Field(None, description="Public key that verifies access tokens, PEM")
    access_jwks_url: Annotated[str, AfterValidator(check_web_url)] | None = Field(
        None, description="Where the issuer publishes its keys (JWKS)"
    )
    access_jwks_file: ExistingFile | None = Field(None, description="A file with the issuer's keys (JWKS)")
    access_algorithms: Annotated[tuple[str, ...], BeforeValidator(list_from_text)] = Field(
        (), description="Accepted signature algorithms; unset, those that fit the key"
    )
    access_audience: str | None = Field(None, description="Demanded `aud` of a token")
    access_issuer: str | None = Field(None, description="Demanded `iss` of a token")
    access_cookie: str | None = Field(None, description="Name of a cookie that may carry the token")
    access_anonymous_role: str | None = Field(
        None, description="Role of those without a token; unset, they get nothing"
    )
    access_user_header: Annotated[
        tuple[Annotated[str, AfterValidator(check_header_name)], ...], BeforeValidator(list_from_text)
    ] = Field(
        (),
        description="Header in which a proxy of `GATEWAY_FORWARDED_ALLOW_IPS` names the user who has logged in there, "
        "such as `X-Remote-User-Name`; of several the first that has a name counts; needs `GATEWAY_ACCESS_USER_ROLE`",
    )
    access_user_role: str | None = Field(None, description="Role of the users whom that header names")
    access_share_max: OptionalDuration = Field(
        None,
        ge=60,
        le=10 * 365 * 86400,
        description="For how long at most a visitor with a token may share what it may read by a link with a token of "
        "its own, signed with the gateway's secret or key; unset, by no link",
    )
    access_revocations: Path | None = Field(
        None,
        description="File that keeps which tokens were called back, for all gateways that name it; unset, beside the "
        "archive where there is one",
    )

    # Limits
    limit_connections: int = Field(10_000, ge=1, le=1_000_000, description="Connections in all")
    limit_connections_per_address: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="From one address: WebSockets and event streams; requests at a time; HTTP connections waiting for "
        "a request (there a proxy in `GATEWAY_FORWARDED_ALLOW_IPS` may have `GATEWAY_LIMIT_CONNECTIONS`)",
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
        description="HTTP requests from one address, up to twice this number at once; and WebSocket handshakes, at "
        "once up to `GATEWAY_LIMIT_CONNECTIONS_PER_ADDRESS`",
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
        10,
        ge=0.1,
        le=600,
        description="Time for a request's headers, and for a WebSocket without a token to authenticate",
    )
    limit_idle_seconds: Duration = Field(
        90,
        ge=2,
        le=86400,
        description="Silence after which a connection is closed; pings go at half of it",
    )
    limit_buffer_bytes: Size = Field(
        256 * 1024, ge=4096, le=1024**3, description="Unsent bytes of one socket at which its subscriber is slow"
    )
    limit_failed_tokens: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="Bad tokens from one address at once; after them one every two seconds; further ones have to wait",
    )
    limit_stall_seconds: Duration = Field(
        30, ge=1, le=86400, description="Time without progress after which a slow subscriber is closed"
    )
    limit_replay_messages: int = Field(
        100_000,
        ge=1,
        le=100_000_000,
        description="Messages of the log that a replay may reach back; without an archive",
    )
    limit_shape_bytes: Size = Field(
        64 * 1024**2, ge=1024**2, le=64 * 1024**3, description="Memory for the intervals and deadbands of all shapes"
    )
    limit_devices: int = Field(
        10_000, ge=0, le=1_000_000, description="Devices that are known at a time; 0: what announces itself is not read"
    )
    limit_device_bytes: Size = Field(
        256 * 1024**2, ge=1024**2, le=64 * 1024**3, description="Memory for all that devices announce of themselves"
    )

    # Tables
    streams: Annotated[dict[str, StreamSettings], BeforeValidator(mapping_from_text)] = Field(
        {"temperature": StreamSettings(topics=("sensors/+/state",), field="temperature")},
        description="Streams, each a table `[streams.NAME]` with `topics` and `field`; they take the default's place",
    )
    roles: Annotated[dict[str, RoleSettings], BeforeValidator(mapping_from_text)] = Field(
        {}, description="Roles, each a table `[roles.NAME]` with `subscribe` and `publish`"
    )
    archive_keep: Annotated[tuple[KeepSettings, ...], BeforeValidator(list_from_text)] = Field(
        (),
        max_length=MAX_KEEPS,
        description="How long the archive keeps what came, each rule a table `[[archive.keep]]` with `topics`, `raw`, "
        "`minute` and `hour`; of a topic the first one counts that matches it",
    )
    alerts: Annotated[tuple[AlertSettings, ...], BeforeValidator(list_from_text)] = Field(
        (),
        max_length=MAX_ALERTS,
        description="Alerts, each a table `[[alerts]]` with `name`, `topics` and `where`, `silent` or `offline`, "
        "perhaps `for`, `until`, `summary` and `webhook` ([how](operations.md#alerts))",
    )
    webhooks: Annotated[dict[str, WebhookSettings], BeforeValidator(mapping_from_text)] = Field(
        {},
        description="Who is told of alerts by HTTP, each a table `[webhooks.NAME]` with `url`, perhaps `format` or "
        "`body`, `token`, `secret` and `allow_private` ([how](operations.md#webhooks))",
    )
    decode: Annotated[tuple[DecodeSettings, ...], BeforeValidator(mapping_from_text)] = Field(
        (),
        max_length=200,
        description="Rules for payloads that are not JSON, each a table `[[decode]]` with `topics` and `as`, some with "
        "`schema_file` and `message`; the first whose filters match decides ([how](payloads.md))",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_credentials_out_of_url(cls, values: Any) -> Any:
        return without_credentials(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_together(self, info: ValidationInfo) -> Settings:
        problems = list(self._problems_between())
        if isinstance(info.context, list):
            info.context.extend(problems)
        elif problems:
            raise ValueError("; ".join(f"{problem.rule} ({problem.way_out})" for problem in problems))
        return self

    def again(self) -> Settings:
        """The same, read once more from where they came; themselves where they were made directly.

        Raises:
            SettingsError: something is wrong with them now.
        """
        return self if self._source.read is None else self._source.read()

    @property
    def has_access_policy(self) -> bool:
        """Whether there is an access policy: a key for tokens, or a role for those without one or named by a proxy."""
        return any((*self._keys().values(), self.access_anonymous_role, self.access_user_header))

    @property
    def revocation_file(self) -> Path | None:
        """Where it is kept which tokens were called back; None where it is not."""
        if self.access_revocations is not None or self.archive_file is None:
            return self.access_revocations
        return self.archive_file.with_name(f"{self.archive_file.name}.revoked")

    @property
    def relayed_topics(self) -> tuple[str, ...]:
        """The topic filters to subscribe to on the broker, those that alerts and views need included."""
        needed = [f"{self.alert_topic}/+"] if self.alerts else []
        if self.view_topic is not None:
            needed.append(f"{self.view_topic}/+")
        own = (each for each in needed if not any(covers(text, each) for text in self.mqtt_topics))
        return (*self.mqtt_topics, *dict.fromkeys(own))

    def _keys(self) -> dict[str, object]:
        names = ("access_secret", "access_key_file", "access_jwks_url", "access_jwks_file")
        return {name: getattr(self, name) for name in names}

    def _problems_between(self) -> Iterator[Problem]:
        """Problems of settings that don't fit each other, each by itself being right."""

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
        for name in ("access_anonymous_role", "access_user_role"):
            role = getattr(self, name)
            if role is not None and role not in self.roles:
                known = ", ".join(sorted(self.roles)) or "none"
                rule = f"the role {role!r} is not defined; defined are: {known}"
                yield problem((name, "roles"), rule, f"add a table [roles.{role}] to {CONFIG_FILE}")
        if bool(self.access_user_header) != (self.access_user_role is not None):
            names = ("access_user_header", "access_user_role")
            yield problem(names, "a header with names needs a role for them, and the role the header", "set both")
        if self.access_user_header and not self.forwarded_allow_ips:
            names = ("access_user_header", "forwarded_allow_ips")
            rule = "anybody could send this header, so the proxy that does has to be known"
            yield problem(names, rule, "set forwarded_allow_ips to its address")
        yield from self._keep_problems()
        yield from self._alert_problems()
        if self.workers > 1 and self.cluster_url is None:
            way_out = "set cluster_url, or workers to 1"
            yield problem(("workers", "cluster_url"), "many workers need a log that they share", way_out)
        if self.workers > 1 and not (hasattr(os, "fork") and hasattr(socket, "SO_REUSEPORT")):
            yield problem(("workers",), "on this system a port can't be shared", "set workers to 1")
        for name in self.streams:
            if not re.fullmatch(r"[\w\-]+", name):
                rule = f"the stream's name {name!r} can't be part of a URL"
                yield problem(("streams",), rule, "use letters, digits, '-' and '_'")
        yield from decode_problems(self.decode)

    def _keep_problems(self) -> Iterator[Problem]:
        """What is wrong between the parts of rules of retention."""
        names = ("archive_keep",)
        taken: list[str] = []
        for number, rule in enumerate(self.archive_keep, start=1):
            where = f"[[archive.keep]] rule {number}"
            given = [(name, value) for name in ("raw", "minute", "hour") if (value := getattr(rule, name)) is not None]
            for (name, value), (wider, longer) in pairwise(given):
                if longer < value:
                    text = f"{where}: {wider} = {duration_text(longer)} is shorter than {name} = {duration_text(value)}"
                    way_out = "roll-ups stay as long as what they are made of, or longer: charts are drawn from them"
                    yield Problem(names, where, text, way_out)
            for text in rule.topics:
                before = next((each for each in taken if covers(each, text)), None)
                if before is not None:
                    rule_text = f"{where}: {text!r} is never reached, since {before!r} matches all of it before"
                    yield Problem(names, where, rule_text, "the first rule that matches counts: put the narrower first")
            taken += rule.topics
        if self.archive_keep and self.archive_file is None:
            way_out = "name its file (GATEWAY_ARCHIVE_FILE, or file in [archive]), or take the rules out"
            yield Problem((*names, "archive_file"), "archive_keep", "there are rules for an archive, and none", way_out)

    def _alert_problems(self) -> Iterator[Problem]:
        """What is wrong between alerts, and between them and what is relayed."""
        names = ("alerts",)
        seen: set[str] = set()
        for alert in self.alerts:
            where = f"alert {alert.name!r}"
            if alert.name in seen:
                yield Problem(names, "alerts", f"there are two alerts {alert.name!r}", "give each a name of its own")
            seen.add(alert.name)
            for text in alert.topics:
                if not any(overlap(text, relayed) for relayed in self.mqtt_topics):
                    rule = f"{where}: nothing that {text!r} matches is relayed (mqtt_topics)"
                    yield Problem((*names, "mqtt_topics"), "alerts", rule, "add it to mqtt_topics")
            if alert.offline and not self.limit_devices:
                rule = f"{where} is about devices, and none are known (limit_devices = 0)"
                yield Problem((*names, "limit_devices"), "alerts", rule, "set limit_devices, or take the alert out")
            for name in alert.webhook:
                if name not in self.webhooks:
                    near = difflib.get_close_matches(name, self.webhooks, 1, 0.6)
                    way_out = f"did you mean {near[0]}?" if near else f"add a table [webhooks.{name}] to {CONFIG_FILE}"
                    yield Problem((*names, "webhooks"), "alerts", f"{where}: there is no webhook {name!r}", way_out)


def _certificate_problems(names: tuple[str, str], cert: Path, key: Path) -> Iterator[Problem]:
    try:
        # an empty password, so that an encrypted key is an error and not a question on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        reason = "the key does not belong to the certificate" if "MISMATCH" in str(error) else str(error)
        way_out = "both must be PEM files, the certificate first in its chain, the key without a password"
        yield Problem(names, ", ".join(names), f"{cert} and {key} can't be used: {reason}", way_out)
