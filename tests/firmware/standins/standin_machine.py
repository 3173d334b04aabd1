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
    """A pin whose level stands in the file `pin-<number>`: low when there is none."""

    IN, OUT = 1, 3
    PULL_UP, PULL_DOWN = 2, 1
    IRQ_FALLING = 2

    def __init__(self, id, mode=None, pull=None, value=None):
        self.id = id
        if value is not None:
            self(value)

    def __call__(self, level=None):
        name = "pin-" + str(self.id)
        if level is not None:
            with open(name, "w") as file:
                file.write(str(level))
            return None
        try:
            with open(name) as file:
                return int(file.read() or 0)
        except OSError:
            return 0

    def irq(self, handler, trigger):
        for _ in range(3):
            handler(self)


class PWM:
    """Pulses; their width stands in the file `pin-<number>`."""

    def __init__(self, pin, freq, duty_u16):
        self.pin = pin
        self.pin(duty_u16)

    def duty_u16(self, duty=None):
        return self.pin(duty)


class UART:
    """A line on which a PMS5003 tells 5, 12 and 20 µg/m³."""

    def __init__(self, id, baud, rx, tx, rxbuf=256):
        self.asked = []

    def write(self, data):
        self.asked.append(data)

    def read(self):
        words = [28, 5, 12, 20, 5, 12, 20] + [0] * 7
        frame = b"\x42\x4d" + b"".join([bytes([word >> 8, word & 0xFF]) for word in words])
        total = sum(frame)
        return frame + bytes([total >> 8, total & 0xFF])


def disable_irq():
    return 0


def enable_irq(state):
    pass


class ADC:
    ATTN_11DB = 3

    def __init__(self, pin, atten=None):
        self.pin = pin

    def read_uv(self):
        return 1_850_000


def SoftI2C(scl, sda, freq=100000):
    from standin_i2c import Bus

    return Bus()
