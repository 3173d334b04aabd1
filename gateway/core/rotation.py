"""A line in which addresses take turns: one of each, and of each the one that came first.

Invariant: whoever joins waits for no more than one turn of each other address, however many of that address wait.
What a turn is, and when there is one, is for whoever keeps the line.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

__all__ = ["Rotation"]

T = TypeVar("T")


class Rotation(Generic[T]):
    """Those who wait, by what counts as their address; None is one address, too.

    Attributes:
        size: how many they are.
    """

    __slots__ = ("_lines", "size")

    def __init__(self) -> None:
        self._lines: OrderedDict[str | None, deque[T]] = OrderedDict()
        self.size = 0

    def add(self, key: str | None, item: T) -> None:
        """Puts one behind those of its address."""
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = deque()
        line.append(item)
        self.size += 1

    def next(self) -> T:
        """Takes out the one whose turn it is; its address is the last one now.

        Raises:
            KeyError: nobody waits.
        """
        key, line = self._lines.popitem(last=False)
        item = line.popleft()
        if line:
            self._lines[key] = line
        self.size -= 1
        return item
