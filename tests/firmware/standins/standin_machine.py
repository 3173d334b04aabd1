"""Stand-in for `machine`."""

import sys
import time

import ffi

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
CAUSES = {"power": PWRON_RESET, "reset": HARD_RESET, "watchdog": WDT_RESET, "deep sleep": DEEPSLEEP_RESET}

_alarm = ffi.open("libc.so.6").func("I", "alarm", "I")


def unique_id():
    return b"\x24\x0a\xc4\x12\x34\x56"


def reset_cause():
    try:
        with open("cause") as file:
            return CAUSES[file.read().strip()]
    except OSError:
        return PWRON_RESET


def reset():
    sys.exit(17)


def deepsleep(milliseconds):
    with open("slept-ms", "w") as file:
        file.write(str(milliseconds))
    sys.exit(18)


class WDT:
    """The kernel's alarm clock: it ends the process as a watchdog resets the board."""

    def __init__(self, id=0, timeout=5000):
        self.seconds = -(-timeout // 1000)
        self.feed()

    def feed(self):
        _alarm(self.seconds)


class RTC:
    def memory(self, data=None):
        if data is None:
            try:
                with open("rtc-memory", "rb") as file:
                    return file.read()
            except OSError:
                return b""
        if len(data) > 2048:
            raise ValueError("buffer too long")
        with open("rtc-memory", "wb") as file:
            file.write(data)

    def datetime(self, moment):
        year, month, day, _, hour, minute, second, microseconds = moment
        wanted = time.mktime((year, month, day, hour, minute, second, 0, 0)) * 1_000_000_000 + microseconds * 1000
        time.offset_ns += wanted - time.time_ns()


class Pin:
    def __init__(self, id, *args, **kwargs):
        self.id = id


class ADC:
    ATTN_11DB = 3

    def __init__(self, pin, atten=None):
        self.pin = pin

    def read_uv(self):
        return 1_850_000


def SoftI2C(scl, sda, freq=100000):
    from standin_i2c import Bus

    return Bus()
