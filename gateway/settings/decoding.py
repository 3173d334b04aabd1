"""Rules for payloads in the settings: `[[decode]]`.

Invariant: a rule without a problem is one that can be followed here: its library is installed, its files were read.
What formats there are is for `decoders`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.decoders.decoding import Rule, make_rule
from gateway.decoders.failures import RuleFaultError
from gateway.settings.problems import Problem
from gateway.settings.values import TopicFilter, list_from_text

__all__ = ["DecodeSettings", "decode_problems"]


class DecodeSettings(BaseModel):
    """A rule `[[decode]]`: which payloads are not JSON, and what they are.

    Attributes:
        topics: its topic filters.
        formats: what they are, the outermost first; `as` in the file.
        schema_file: the descriptor set or the schema, for formats that need one.
        message: the name of a protobuf message.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topics: Annotated[tuple[TopicFilter, ...], BeforeValidator(list_from_text), Field(min_length=1)]
    formats: Annotated[tuple[str, ...], BeforeValidator(list_from_text), Field(min_length=1, alias="as")]
    schema_file: Path | None = None
    message: str | None = None

    def __str__(self) -> str:
        return f"{' '.join(self.topics)} as {'+'.join(self.formats)}"

    def make(self) -> Rule:
        """The rule.

        Raises:
            ExceptionGroup: of a `RuleFaultError` for each thing that is wrong with it.
        """
        return make_rule(self.topics, self.formats, self.schema_file, self.message)


def decode_problems(rules: Iterable[DecodeSettings]) -> Iterator[Problem]:
    """All that is wrong with rules, each by itself having the form of one."""
    for number, rule in enumerate(rules, start=1):
        try:
            rule.make()
        except ExceptionGroup as faults:
            for fault in faults.exceptions:
                if isinstance(fault, RuleFaultError):
                    text = f"[[decode]] rule {number} {fault.key}: {fault.rule}"
                    yield Problem(("decode",), "decode", text, fault.way_out)
