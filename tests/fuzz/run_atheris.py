"""The targets under atheris, which follows what is executed to find what Hypothesis doesn't think of.

    pip install atheris
    python -m tests.fuzz.run_atheris commands -max_total_time=300
    python -m tests.fuzz.run_atheris payloads corpus/ -runs=1000000

The first argument names the target; the rest is libFuzzer's. A crash is written to a file, which as the last argument
runs it again. Not part of the test suite: it has no end.
"""

from __future__ import annotations

import sys
from typing import Any, TypeVar

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["gateway", "jwt"]):
    from tests.fuzz.targets import TARGETS

T = TypeVar("T")
DEPTH = 4


class Provided:
    """A source that atheris fills from the bytes that it mutates."""

    def __init__(self, data: bytes) -> None:
        self._provider = atheris.FuzzedDataProvider(data)

    def text(self, most: int = 200) -> str:
        found: str = self._provider.ConsumeUnicode(self._provider.ConsumeIntInRange(0, most))
        return found

    def data(self, most: int = 400) -> bytes:
        found: bytes = self._provider.ConsumeBytes(self._provider.ConsumeIntInRange(0, most))
        return found

    def number(self, least: int, most: int) -> int:
        found: int = self._provider.ConsumeIntInRange(least, most)
        return found

    def choice(self, options: list[T]) -> T:
        return options[self.number(0, len(options) - 1)]

    def value(self) -> Any:
        return self._value(DEPTH)

    def _value(self, depth: int) -> Any:
        match self.number(0, 8 if depth else 6):
            case 0:
                return None
            case 1:
                return self._provider.ConsumeBool()
            case 2:
                return self._provider.ConsumeInt(8)
            case 3:
                return self._provider.ConsumeFloat()
            case 4:
                return self.choice([2**63, -(2**63), 10**400, 1e308, -0.0])
            case 5 | 6:
                return self.text(8)
            case 7:
                return [self._value(depth - 1) for _ in range(self.number(0, 3))]
            case _:
                return {self.text(4): self._value(depth - 1) for _ in range(self.number(0, 3))}


def main() -> None:
    """Runs one target until it fails or its time is over."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.run_atheris TARGET [libFuzzer options]; targets: {', '.join(TARGETS)}")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, lambda data: target(Provided(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
