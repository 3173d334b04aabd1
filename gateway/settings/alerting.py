"""The settings of one alert, and of one webhook that is told of alerts.

Invariant: an alert that exists can be watched: its condition compiles and its summary can be filled. What is secret
about a webhook, its address included, is shown nowhere. What is done with both is for `alerts`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from gateway.core.messages import encode_json
from gateway.core.templates import Template, TemplateError
from gateway.settings.problems import RuleError
from gateway.settings.values import (
    AlertName,
    Condition,
    Duration,
    OptionalDuration,
    Summary,
    TopicFilter,
    check_secret,
    check_web_url,
    list_from_text,
)

__all__ = ["AlertSettings", "WebhookSettings", "in_body"]

BODY_NAMES = ("id", "alert", "state", "since", "time", "value", "summary")
"""Places of the texts in a webhook's body, beside `topic` and its levels."""

MAX_BODY_DEPTH = 10
MAX_BODY_VALUES = 200


def in_body(text: str) -> Template:
    """A text in a webhook's body, taken apart.

    Raises:
        TemplateError: it has a place that there is not, or a single brace.
    """
    return Template(text, BODY_NAMES, longest=2_000, has_payload=False)


def _webhook_url(url: SecretStr) -> SecretStr:
    text = check_web_url(url.get_secret_value())
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise RuleError("has a user or a password in it", "give what the receiver demands as token")
    try:
        text.encode("ascii")
        _port = parts.port
    except ValueError:
        raise RuleError("must be ASCII, with a port from 1 to 65535", "write other characters as %C3%A4") from None
    if any(char.isspace() for char in text) or parts.fragment:
        raise RuleError("must have neither spaces nor a fragment (#)", "write a # in it as %23")
    return url


def _token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text or not text:
        raise RuleError("must be ASCII without spaces", "what stands behind Bearer is enough")
    return token


def _body(body: dict[str, Any]) -> dict[str, Any]:
    left = MAX_BODY_VALUES

    def check(value: Any, where: str, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_BODY_DEPTH:
            rule = f"has more than {MAX_BODY_VALUES} values, or is nested deeper than {MAX_BODY_DEPTH}"
            raise RuleError(rule, "write what the receiver needs only")
        match value:
            case str():
                try:
                    in_body(value)
                except TemplateError as error:
                    raise RuleError(f"{where}: {error.rule}", error.way_out) from None
            case dict():
                for name, each in value.items():
                    check(each, f"{where}.{name}" if where else name, depth + 1)
            case list():
                for number, each in enumerate(value):
                    check(each, f"{where}[{number}]", depth + 1)
            case None:
                pass
            case int() | float() if math.isfinite(value):
                pass
            case _:
                raise RuleError(f"{where}: JSON has no {type(value).__name__} such as {value}", "write it as a text")

    check(body, "", 1)
    try:
        encode_json(body)
    except UnicodeError as error:
        raise RuleError(f"can't be written as JSON: {error}", "leave half a character out") from None
    return body


class WebhookSettings(BaseModel):
    """Somebody who is told of alerts by HTTP.

    Attributes:
        url: where requests go.
        format: what they look like.
        body: a JSON object to send in place of the format's, whose texts are templates; None for the format's.
        token: sent as `Authorization: Bearer …`.
        secret: signs the body.
        allow_private: whether it may be on this machine or in a private network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[SecretStr, AfterValidator(_webhook_url)]
    format: Literal["json", "ntfy", "slack", "matrix"] = "json"
    body: Annotated[dict[str, Any], AfterValidator(_body)] | None = Field(None, repr=False)
    token: Annotated[SecretStr, AfterValidator(_token)] | None = None
    secret: Annotated[SecretStr, AfterValidator(check_secret)] | None = None
    allow_private: bool = False

    @model_validator(mode="after")
    def _has_one_form(self) -> WebhookSettings:
        if self.body is not None and self.format != "json":
            raise RuleError(f"has a body and format {self.format!r}, which makes its own", "leave one of them out")
        return self

    @model_validator(mode="after")
    def _keeps_its_token(self) -> WebhookSettings:
        if self.token is not None and not self.allow_private and self.url.get_secret_value().startswith("http://"):
            raise RuleError("would send its token over http", "write https, or allow_private in a network of your own")
        return self


class AlertSettings(BaseModel):
    """A rule that watches topics, for a condition or for silence, or the devices that are made of them, for absence.

    Attributes:
        name: what it is called, and the last level of its topic.
        topics: topic filters that it watches.
        where: the condition, for each topic by itself; None where it watches for silence or devices.
        until: the condition that ends it once it fires; None: that `where` no longer holds.
        hold: how long `where` has to hold, or a device to be offline, seconds; `for` in the file.
        silent: how long no message has to come, seconds; None where it watches a condition.
        offline: whether it watches devices, and fires for one that is offline by its own rule.
        summary: what is said of a topic, a template; None for words of ours.
        webhook: names of those that are told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: AlertName
    topics: Annotated[tuple[TopicFilter, ...], BeforeValidator(list_from_text), Field(min_length=1, max_length=100)]
    where: Condition | None = None
    until: Condition | None = None
    hold: Annotated[Duration, Field(alias="for", ge=0, le=30 * 86400)] = 0
    silent: Annotated[OptionalDuration, Field(ge=1, le=365 * 86400)] = None
    offline: bool = False
    summary: Summary | None = None
    webhook: Annotated[tuple[str, ...], BeforeValidator(list_from_text), Field(max_length=10)] = ()

    @model_validator(mode="after")
    def _is_about_one_thing(self) -> AlertSettings:
        about = [
            name
            for name, value in (("where", self.where), ("silent", self.silent), ("offline", self.offline or None))
            if value is not None
        ]
        if len(about) != 1:
            rule = (
                f"has both {about[0]} and {about[1]}" if about else "has neither where nor silent, nor offline = true"
            )
            raise RuleError(
                rule,
                "an alert watches for a condition (where), for silence (silent) or for devices that are offline "
                "(offline = true): make two of it",
            )
        if self.offline and self.until is not None:
            raise RuleError("until goes with where, not with offline", "a device is there again when it says so")
        if self.silent is not None and (self.until is not None or self.hold):
            key = "until" if self.until is not None else "for"
            raise RuleError(f"{key} goes with where, not with silent", "a silence ends with the next message")
        return self
