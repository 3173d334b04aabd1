"""What MicroPython has and CPython lacks: a clock for time spans in milliseconds, and constants that cost no memory.

Spans must be shorter than six days, because MicroPython's counter has 30 bits.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:

    def ticks_ms() -> int:
        """Now."""

    def ticks_add(ticks: int, milliseconds: int) -> int:
        """A time before or after."""

    def ticks_diff(end: int, start: int) -> int:
        """Milliseconds from start to end."""

else:
    try:
        from time import ticks_add, ticks_diff, ticks_ms
    except ImportError:  # CPython
        from time import monotonic

        def ticks_ms():
            return int(monotonic() * 1000)

        def ticks_add(ticks, milliseconds):
            return ticks + milliseconds

        def ticks_diff(end, start):
            return end - start


def const(value: int) -> int:
    """The value. MicroPython's compiler puts it wherever a name with an underscore stands that was set to const(…)."""
    return value
