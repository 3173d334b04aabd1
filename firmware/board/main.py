"""What MicroPython runs after a reset: the sensor. Ctrl-C in the first two seconds, or later, gives the prompt.

Which of the programs on the board that is, slots.py says.
"""

import gc
import sys

gc.threshold(8192)  # collect early and often: that keeps a small memory in few and large pieces

import slots  # noqa: E402

slot = slots.begin()
if slot:
    sys.path.insert(0, slot)
if slots.on_trial():
    import machine

    machine.WDT(timeout=120000)  # a new program may hang before it starts a watchdog of its own
try:
    from board.app import run

    run()
except Exception as error:
    if not slots.on_trial():
        raise
    slots.back("%s: %s" % (type(error).__name__, error))  # a program that can't even start
    machine.reset()
