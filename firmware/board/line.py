"""The serial line in the first seconds: whether somebody there speaks Improv.

One invariant: it is all that a start loads for that. The names in a module stay in memory after the module went, so
improv.py, which has many, is loaded only for somebody who speaks.

It leaves to others: everything after the header of the first packet (improv.py).
"""

import sys

from .ticks import const, ticks_diff, ticks_ms

HEADER = b"IMPROV\x01"
CTRL_C = const(3)


def is_called(window_ms: int) -> bool:
    """Wait for the header of a packet.

    When it came, Ctrl-C is a byte like any other, for packets have such in them; until then it is a KeyboardInterrupt.

    Args:
        window_ms: How long to wait.
    """
    import select

    import micropython

    poller = select.poll()
    poller.register(sys.stdin, select.POLLIN)
    micropython.kbd_intr(-1)
    started = ticks_ms()
    count = 0
    try:
        while count < len(HEADER):
            left = window_ms - ticks_diff(ticks_ms(), started)
            if left <= 0 or not poller.poll(left):
                return False
            byte = sys.stdin.buffer.read(1)
            if not byte:  # nobody can ever speak
                return False
            if byte[0] != HEADER[count]:
                count = 0
                if byte[0] == CTRL_C:
                    raise KeyboardInterrupt
            count += byte[0] == HEADER[count]
        return True
    finally:
        if count < len(HEADER):
            micropython.kbd_intr(CTRL_C)
