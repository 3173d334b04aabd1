"""The settings of one alert.

Invariant: what exists can be watched: its condition compiles and its summary can be filled. What is done with it is for
`alerts`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.settings.problems import RuleError
from gateway.settings.values import (
    AlertName,
    Condition,
    Duration,
    OptionalDuration,
    Summary,
    TopicFilter,
    list_from_text,
)

__all__ = ["AlertSettings"]


class AlertSettings(BaseModel):
    """A rule that watches topics, for a condition or for silence.

    Attributes:
        name: what it is called, and the last level of its topic.
        topics: topic filters that it watches.
        where: the condition, for each topic by itself; None where it watches for silence.
        until: the condition that ends it once it fires; None: that `where` no longer holds.
        hold: how long `where` has to hold, seconds; `for` in the file.
        silent: how long no message has to come, seconds; None where it watches a condition.
        summary: what is said of a topic, a template; None for words of ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: AlertName
    topics: Annotated[tuple[TopicFilter, ...], BeforeValidator(list_from_text), Field(min_length=1, max_length=100)]
    where: Condition | None = None
    until: Condition | None = None
    hold: Annotated[Duration, Field(alias="for", ge=0, le=30 * 86400)] = 0
    silent: Annotated[OptionalDuration, Field(ge=1, le=365 * 86400)] = None
    summary: Summary | None = None

    @model_validator(mode="after")
    def _is_about_one_thing(self) -> AlertSettings:
        if (self.where is None) == (self.silent is None):
            rule = "has neither where nor silent" if self.where is None else "has both where and silent"
            raise RuleError(rule, "an alert watches for a condition (where) or for silence (silent): make two of it")
        if self.silent is not None and (self.until is not None or self.hold):
            key = "until" if self.until is not None else "for"
            raise RuleError(f"{key} goes with where, not with silent", "a silence ends with the next message")
        return self
