"""Runs the sensor's main.py under MicroPython on Unix, with stand-ins for what only a board has."""

import os
import sys
import time as real_time

HERE = __file__.rsplit("/", 1)[0]


def exists(name):
    """Whether the world has this file."""
    try:
        os.stat(name)
    except OSError:
        return False
    return True


class Time:
    """The module `time`, with a clock that may not be set."""

    def __init__(self, offset_s):
        self.offset_ns = offset_s * 1_000_000_000

    def __getattr__(self, name):
        return getattr(real_time, name)

    def time_ns(self):
        return real_time.time_ns() + self.offset_ns

    def time(self):
        return self.time_ns() // 1_000_000_000

    def gmtime(self, seconds=None):
        return real_time.gmtime(self.time() if seconds is None else seconds)

    def sleep(self, seconds):
        real_time.sleep(min(seconds, 0.05))  # nobody presses Ctrl-C here


sys.path[:0] = ["", HERE]  # the flash first, then the modules that MicroPython on Unix does not have
sys.modules["time"] = Time(946684800 - real_time.time() if exists("clock-unset") else 0)
if exists("ap-port"):
    sys.modules["socket"] = __import__("standin_socket").Sockets()
sys.modules["machine"] = __import__("standin_machine")

import main  # noqa: E402, F401
