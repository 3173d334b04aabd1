"""What MicroPython runs after a reset: the sensor. Ctrl-C in the first two seconds, or later, gives the prompt."""

import gc

gc.threshold(8192)  # collect early and often: that keeps a small memory in few and large pieces

from board.app import run  # noqa: E402

run()
