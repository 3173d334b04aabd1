"""What can be wrong: with a payload when it arrives, with a rule when the gateway starts."""

from __future__ import annotations

__all__ = ["DecodeError", "NotMeantError", "RuleFaultError"]


class DecodeError(ValueError):
    """A payload is not what the rule says, or has more than is taken; the text is for people."""

    code = "decode_failed"


class NotMeantError(Exception):
    """A payload whose topic the rule matches, but which is none of those that its format is for: it stays as it is."""


class RuleFaultError(ValueError):
    """A rule that can't be followed.

    Attributes:
        key: the key of the rule that it is about.
        rule: what is wrong.
        way_out: what to do.
    """

    code = "bad_rule"

    def __init__(self, key: str, rule: str, way_out: str) -> None:
        super().__init__(f"{key}: {rule}; {way_out}")
        self.key = key
        self.rule = rule
        self.way_out = way_out
