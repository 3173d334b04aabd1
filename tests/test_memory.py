"""What shapers hold in memory is charged while they hold it, and given back, in every mode and shape."""

from __future__ import annotations

import gc
import itertools
import json
import tracemalloc
from collections.abc import Callable

import pytest

from gateway.core.memory import MemoryBudget, MemoryShare
from gateway.core.messages import Message
from gateway.core.shaper import Shaper
from gateway.core.shapes import Format, Framing, Mode, Shape

INTERVALS = [{}, *({"max_hz": 1.0, "mode": mode} for mode in Mode)]
DEADBANDS = [{}, {"deadband": 1.0}]
OTHERS: list[dict[str, object]] = [
    {},
    {"fields": ("a", "b.c")},
    {"where": "a > -1"},
    {"framing": Framing.SSE},
    {"format": Format.RAW},
    {"format": Format.STREAM, "field": "a"},
]


def shapes() -> list[Shape]:
    """One of each kind, without those that can't be had."""
    found = []
    for interval, deadband, other in itertools.product(INTERVALS, DEADBANDS, OTHERS):
        if other.get("format") is None or interval.get("mode", Mode.LATEST) is Mode.LATEST:
            found.append(Shape(**{**interval, **deadband, **other}))  # type: ignore[arg-type]
    return found


def offer(shaper: Shaper, topics: int, width: int = 1, number: int = 0) -> None:
    for topic in range(topics):
        payload = json.dumps({"a": number, "b": {"c": number}, **{f"n{n}": number for n in range(width)}}).encode()
        shaper.offer(Message.arrived(topic + 1, f"t/{topic}", payload, 0))


def hold_and_check(shape: Shape, budget: MemoryBudget) -> None:
    """Holds more and more with one shaper and another, and looks at the budget all along."""

    def rises(work: Callable[[], None], *, if_held: bool) -> None:
        before = budget.used
        work()
        assert budget.used >= before
        assert (budget.used > before) == if_held

    shaper = Shaper(shape, "e", budget)
    has_interval = shape.max_hz is not None
    is_compared = shape.deadband is not None and not has_interval
    rises(lambda: offer(shaper, 10), if_held=has_interval or is_compared)
    rises(lambda: offer(shaper, 20), if_held=has_interval or is_compared)  # ten of them are new
    width = 8 if shape.mode is not Mode.LATEST and not shape.fields else 1
    if width > 1:
        rises(lambda: offer(shaper, 20, width), if_held=True)  # more numbers, more sums
    assert shaper.cost == budget.used
    shaper.take()
    assert (budget.used > 0) == (shape.deadband is not None)
    other = Shaper(shape, "e", budget)
    offer(other, 20, width, number=100)
    other.take()
    # it knows from now on the least and the greatest of what either was shown
    rises(lambda: other.welcome(shaper), if_held=shape.deadband is not None)
    other.forget()
    assert other.cost == 0
    assert budget.used == shaper.cost
    offer(shaper, 20, number=7)


@pytest.mark.parametrize("shape", [Shape(**interval) for interval in INTERVALS], ids=repr)  # type: ignore[arg-type]
def test_what_grows_with_each_message_of_a_topic_is_charged(shape: Shape) -> None:
    budget = MemoryBudget(64 * 1024 * 1024)
    shaper = Shaper(shape, "e", budget)
    messages = [Message.arrived(seq, "t/0", b'{"a":%d.5,"b":%d.25}' % (seq, seq), 0) for seq in range(1, 5_001)]
    for message in messages:
        message.value()  # kept with the message, which is not the shaper's
    shaper.offer(messages[0])
    charged = budget.used
    tracemalloc.start()
    try:
        for message in messages[1:]:
            shaper.offer(message)
        if shape.max_hz is None:
            shaper.take()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # the messages, and what is held once, are some kilobytes
    assert held < budget.used - charged + 64 * 1024


@pytest.mark.parametrize("shape", shapes(), ids=repr)
def test_what_is_held_is_charged_and_given_back(shape: Shape) -> None:
    budget = MemoryBudget(1 << 30)
    hold_and_check(shape, budget)
    assert budget.used == 0


@pytest.mark.parametrize("shape", [Shape(max_hz=1.0, mode=mode) for mode in Mode], ids=lambda shape: shape.mode.value)
def test_nothing_grows_with_messages_that_is_not_charged(shape: Shape) -> None:
    """What a mode would keep of each message, as a median would: 10,000 numbers take over 300 KB here."""
    budget = MemoryBudget(1 << 30)
    shaper = Shaper(shape, "e", budget)
    offer(shaper, 20, 8)
    tracemalloc.start()
    try:
        offer(shaper, 20, 8, number=1)
        gc.collect()
        before, charged = tracemalloc.get_traced_memory()[0], budget.used
        for number in range(2, 52):
            offer(shaper, 20, 8, number=number * 1000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown <= budget.used - charged + 100_000


def test_a_budget_that_is_passed_says_so() -> None:
    budget = MemoryBudget(100)
    share = MemoryShare(budget)
    share.charge(100)
    assert (budget.is_crowded, share.cost) == (False, 100)
    share.charge(1)
    assert (budget.is_crowded, share.cost) == (True, 101)


def test_each_holder_gives_back_what_it_holds_and_no_more() -> None:
    budget = MemoryBudget(100)
    one, two = MemoryShare(budget), MemoryShare(budget)
    one.charge(30)
    two.charge(50)
    one.charge(-10)
    del one
    assert budget.used == 50
