"""What is wrong with settings: one problem for each, and all of them together.

Invariant: a problem names the setting as its user wrote it, the rule and a way out, and shows no secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CREDENTIALS", "Problem", "RuleError", "SettingsError", "masked"]

# What stands between `//` and the host: anything up to the last `@`, so that a password with characters that a URL
# can't hold is never taken for a host and shown.
CREDENTIALS = re.compile(r"(?<=//).*@", re.DOTALL)


def masked(text: str) -> str:
    """A text with `***` in place of user and password before the `@` of an address."""
    return CREDENTIALS.sub("***@", text)


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
        names: the settings that it is about; empty for what is no setting.
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


class RuleError(ValueError):
    """A value that is wrong: `rule` says what it must be, `way_out` what to do, None where the rule says it."""

    def __init__(self, rule: str, way_out: str | None = None) -> None:
        super().__init__(rule if way_out is None else f"{rule}; {way_out}")
        self.rule = rule
        self.way_out = way_out
