"""What the garbage collector need not look at.

Python's collector goes through everything that could be part of a cycle. With a full history it would hold the loop for
0.2 to 0.6 s at a time, and find nothing: messages refer to nothing that leads back to them.

Invariant: only what can't be part of a cycle is left out; it is freed by its reference count as before.
"""

from __future__ import annotations

import ctypes
from typing import Any, TypeVar

__all__ = ["untracked"]


T = TypeVar("T")

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
