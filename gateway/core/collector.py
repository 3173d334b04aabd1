"""What the garbage collector need not look at.

Python's collector goes through everything that could be part of a cycle. With a full history it would hold the loop for
0.2 to 0.6 s at a time, and find nothing: messages refer to nothing that leads back to them.

Invariant: only what can't be part of a cycle is left out; it is freed by its reference count as before. Connections
hold themselves while they are open and let go when they end, so where they are so many that a full collection takes
long, what has survived two young ones is left out, too: with 100,000 connections one would hold the loop for seconds.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["LONG_SECONDS", "Collections", "untracked"]


T = TypeVar("T")

LONG_SECONDS = 0.01
MANY_OBJECTS = 20_000
"""What one full collection may take, or would look at, before there is none of the same objects any more: 10 ms for
20,000 of them. Where connections come together, the first one that took longer took six times as long."""

_untrack: Any = getattr(getattr(ctypes, "pythonapi", None), "PyObject_GC_UnTrack", None)
if _untrack is not None:
    _untrack.argtypes = [ctypes.py_object]
    _untrack.restype = None


def untracked(container: T) -> T:
    """The same list, array or dictionary, of which the collector knows nothing from here on.

    It is `PyObject_GC_UnTrack` of the C API; where Python has no such call, it is left as it was.
    """
    if _untrack is not None:
        _untrack(container)
    return container


MOST_CUT_OFF = 2_500
"""Event streams and downloads that may end, in 64 MiB, before one full collection."""


class Collections:
    """Watches the collector, and keeps its collections short.

    Attributes:
        is_crowded: a full collection has taken `LONG_SECONDS`, or would; from then on only new objects are looked at.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` counts processor seconds of this thread."""
        self.is_crowded = False
        self._clock = clock
        self._began = 0.0
        self._cut_off = 0

    def watch(self) -> None:
        """Begins; modules and settings stay as long as the process, so they are left out at once."""
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self.seen)

    def cut_off(self) -> None:
        """An answer was cut off: its task ends by an exception, which holds its frames, and they hold it.

        That is some 25 KiB. Where the collector does not come by itself, it is called after `MOST_CUT_OFF` of them.
        """
        self._cut_off += self.is_crowded
        if self._cut_off > MOST_CUT_OFF:
            self._cut_off = 0
            gc.unfreeze()
            gc.collect()
            gc.freeze()

    def seen(self, phase: str, info: dict[str, int]) -> None:
        """A collection begins or has ended (`gc.callbacks`)."""
        if phase == "start":
            self._began = self._clock()
            return
        if info["generation"] == 2 and self._clock() - self._began > LONG_SECONDS:
            self.is_crowded = True
        elif info["generation"] == 1 and not self.is_crowded:
            # they come seldom, and no more objects are counted than that
            self.is_crowded = len(gc.get_objects(generation=2)) > MANY_OBJECTS
        if self.is_crowded and info["generation"]:
            gc.freeze()  # both younger generations are empty now
