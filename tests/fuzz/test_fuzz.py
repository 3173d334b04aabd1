"""Every target with what Hypothesis thinks of; FUZZ_EXAMPLES=20000 in the environment lets it think for longer."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

T = TypeVar("T")

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63), 10**400, 1e308, -0.0, 0])
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


class Drawn:
    """A source that Hypothesis fills, and shrinks."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def text(self, most: int = 200) -> str:
        return self._data.draw(st.text(st.characters(codec=None), max_size=most))

    def data(self, most: int = 400) -> bytes:
        return self._data.draw(st.binary(max_size=most))

    def number(self, least: int, most: int) -> int:
        return self._data.draw(st.integers(least, most))

    def choice(self, options: list[T]) -> T:
        return self._data.draw(st.sampled_from(options))

    def value(self) -> Any:
        return self._data.draw(VALUES)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.slow
def test_anything_is_taken_or_refused_as_documented(name: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        TARGETS[name](Drawn(data))

    run()
