"""Everything that only a real board has: identity, restarts, sleep, watchdog, memory that outlives them, pins, radio.

One invariant: this is the only file that imports `machine`, `network` and `esp32`, so that all others can be tested
where there is no board.

Source: MicroPython documentation, "Quick reference for the ESP32", `machine`, `esp32.NVS`, `network.WLAN`.
"""

import binascii
import gc
import json
import sys

import esp32
import machine
import network

from .ticks import const, ticks_diff, ticks_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# ESP32 keeps this much RTC memory for us through deep sleep (ports/esp32/machine_rtc.c)
_MEMORY_BYTES = const(2048)
MEMORY_MARK = b"S1"
_LOG_BYTES = const(800)  # of it at most for the log


class Board:
    """The board that this runs on."""

    def __init__(self) -> None:
        self._nvs = esp32.NVS("sensor")
        self._watchdog: "machine.WDT | None" = None
        self._buses: "dict[tuple[int, int], machine.SoftI2C]" = {}
        self._serials = 0
        self._contacts: "list[machine.Pin]" = []  # whose edges are counted
        self._uptime_ms = 0
        self._last_ticks = ticks_ms()

    # -- identity and restarts

    def id(self) -> str:
        """The sensor's id: "esp32-" and the last three bytes of the MAC address."""
        return "esp32-" + binascii.hexlify(machine.unique_id()).decode()[-6:]

    def model(self) -> str:
        """What kind of board it is, such as "ESP32C3 module with ESP32C3"."""
        return sys.implementation._machine

    def woke_up(self) -> bool:
        """Whether this start is the end of a deep sleep, not a restart."""
        return machine.reset_cause() == machine.DEEPSLEEP_RESET

    def cause(self) -> str:
        """Why it started."""
        names = {
            machine.PWRON_RESET: "power",
            machine.HARD_RESET: "reset",
            machine.WDT_RESET: "watchdog",
            machine.DEEPSLEEP_RESET: "deep sleep",
            machine.SOFT_RESET: "soft reset",
        }
        return names.get(machine.reset_cause(), "unknown")

    def count_boot(self) -> int:
        """The number of this restart, kept in flash; the first is 1."""
        boot = self._number("boot") + 1
        self._nvs.set_i32("boot", boot)
        self._nvs.commit()
        return boot

    def boot(self) -> int:
        """The number of the last restart that was counted."""
        return self._number("boot")

    def restart(self) -> None:
        """Reset; does not return on a board."""
        machine.reset()

    def sleep(self, milliseconds: int) -> None:
        """Deep sleep, then a start like after a reset; does not return on a board."""
        machine.deepsleep(milliseconds)

    def uptime_seconds(self) -> float:
        """Since the start. Call it at least once in six days: the counter under it wraps."""
        now = ticks_ms()
        self._uptime_ms += ticks_diff(now, self._last_ticks)
        self._last_ticks = now
        return self._uptime_ms / 1000

    # -- memory

    def load_interval(self) -> "float | None":
        """The interval that a command has set, in seconds; None when none has."""
        milliseconds = self._number("interval_ms")
        return milliseconds / 1000 if milliseconds else None

    def save_interval(self, seconds: float) -> None:
        """Keep the interval through restarts; flash is written only when it differs."""
        milliseconds = int(seconds * 1000 + 0.5)
        if self._number("interval_ms") != milliseconds:
            self._nvs.set_i32("interval_ms", milliseconds)
            self._nvs.commit()

    def recall(self) -> "dict[str, Any]":
        """What `remember` kept through deep sleep; empty after anything else than a deep sleep."""
        if not self.woke_up():
            return {}
        try:
            memory: "dict[str, Any]" = json.loads(self._rtc()[0].decode())
        except ValueError:
            return {}
        return memory

    def remember(self, memory: "dict[str, Any]") -> bool:
        """Keep a dict through deep sleep; False when it is too large."""
        data = MEMORY_MARK + json.dumps(memory).encode()
        if len(data) > _MEMORY_BYTES:
            return False
        machine.RTC().memory(data)
        return True

    def keep_log(self, lines: "list[str]") -> None:
        """Keep the newest of these lines, as many as there is room for, until the power goes.

        It is memory, not flash, so it does not wear; what `remember` keeps goes before.
        """
        kept = self._rtc()[0]
        room = min(_LOG_BYTES, _MEMORY_BYTES - len(MEMORY_MARK) - len(kept) - 1)
        tail = b""
        for line in reversed(lines):
            more = line.encode() + b"\n"
            if len(more) + len(tail) > room:
                break
            tail = more + tail
        machine.RTC().memory(MEMORY_MARK + kept + b"\n" + tail)

    def last_log(self) -> "list[str]":
        """What `keep_log` kept through a reset; empty after a deep sleep, before which it was said, or a power cut."""
        if self.woke_up():
            return []
        try:
            return self._rtc()[1].decode().split("\n")[:-1]
        except ValueError:
            return []

    def _rtc(self) -> "tuple[bytes, bytes]":
        """The two parts of the memory: JSON, which has no line breaks, and lines of the log."""
        data = machine.RTC().memory()
        if data[:2] != MEMORY_MARK:
            return b"{}", b""
        parts = bytes(data[2:]).split(b"\n", 1)
        return parts[0], parts[1] if len(parts) > 1 else b""

    def heap(self) -> "tuple[int, int]":
        """Bytes of the program's memory that are free, and that are used."""
        gc.collect()
        return gc.mem_free(), gc.mem_alloc()

    def _number(self, name: str) -> int:
        try:
            return self._nvs.get_i32(name)
        except OSError:  # never written
            return 0

    # -- watchdog

    def start_watchdog(self, seconds: float) -> None:
        """From now on the board resets unless `feed` is called at least this often."""
        self._watchdog = machine.WDT(timeout=int(seconds * 1000))

    def feed(self) -> None:
        """Put the reset off."""
        if self._watchdog is not None:
            self._watchdog.feed()

    def relax_watchdog(self) -> None:
        """Give whoever interrupted the program an hour at the prompt: an ESP32's watchdog can't be stopped."""
        if self._watchdog is not None:
            self.start_watchdog(3600)
            self.feed()

    # -- clock

    def set_time(self, year_to_second: "tuple[int, ...]", microseconds: int) -> None:
        """Set the clock, in UTC: (year, month, day, hour, minute, second)."""
        year, month, day, hour, minute, second = year_to_second
        machine.RTC().datetime((year, month, day, 0, hour, minute, second, microseconds))

    # -- pins and buses, for the drivers

    def i2c(self, scl: int, sda: int) -> "machine.SoftI2C":
        """The bus at these pins; sensors at the same pins share it."""
        if (scl, sda) not in self._buses:
            self._buses[(scl, sda)] = machine.SoftI2C(scl=machine.Pin(scl), sda=machine.Pin(sda), freq=100_000)
        return self._buses[(scl, sda)]

    def adc(self, pin: int) -> "machine.ADC":
        """An analogue input with the widest range, about 0.15 to 2.5 V (to 3.1 V on most chips)."""
        return machine.ADC(machine.Pin(pin), atten=machine.ADC.ATTN_11DB)

    def dht22(self, pin: int) -> "Any":
        """A DHT22 at this pin."""
        import dht

        return dht.DHT22(machine.Pin(pin))

    def ds18x20(self, pin: int) -> "Any":
        """The 1-Wire bus at this pin."""
        import ds18x20
        import onewire

        return ds18x20.DS18X20(onewire.OneWire(machine.Pin(pin)))

    def output(self, pin: int, level: int) -> "machine.Pin":
        """An output that has this level from its first moment on; call it for the level that the pin really has."""
        return machine.Pin(pin, machine.Pin.OUT, value=level)

    def pwm(self, pin: int, frequency: int, duty: int) -> "machine.PWM":
        """Pulses at a pin; `duty` is from 0 to 65535."""
        return machine.PWM(machine.Pin(pin), freq=frequency, duty_u16=duty)

    def serial(self, rx: int, tx: int, baud: int) -> "machine.UART":
        """A serial line; the first and the second go to UART 1 and 2, where the chip has both."""
        self._serials += 1
        return machine.UART(self._serials, baud, rx=rx, tx=tx, rxbuf=512)

    def input(self, pin: int, pull: str) -> "machine.Pin":
        """A pin that is looked at: call it for its level. `pull` is up, down or none."""
        if pull == "none":
            return machine.Pin(pin, machine.Pin.IN)
        return machine.Pin(pin, machine.Pin.IN, machine.Pin.PULL_UP if pull == "up" else machine.Pin.PULL_DOWN)

    def on_falling(self, pin: int, call: "Any") -> None:
        """Call a function, soon, after each falling edge at a pin."""
        contact = self.input(pin, "none" if pin >= 34 and self._is_esp32() else "up")
        contact.irq(call, machine.Pin.IRQ_FALLING)
        self._contacts.append(contact)

    def _is_esp32(self) -> bool:
        """Whether pins from 34 on are inputs without resistors."""
        return self.model().upper().endswith("ESP32")

    def clocked(self, sck: int, dout: int) -> "Clocked":
        """Two wires: we pulse one and read the other."""
        return Clocked(machine.Pin(sck, machine.Pin.OUT, value=0), machine.Pin(dout, machine.Pin.IN))

    def wlan(self, hostname: str) -> "network.WLAN":
        """The Wi-Fi radio as a station."""
        network.hostname(hostname[:32])  # all that it takes
        return network.WLAN(network.STA_IF)

    def access_point(self) -> "network.WLAN":
        """The Wi-Fi radio as an access point."""
        return network.WLAN(network.AP_IF)


class Clocked:
    """A chip that gives a bit for each pulse and takes a long pulse for a wish to sleep, such as the HX711.

    Args:
        clock: Output.
        data: Input; low when the chip is ready.
    """

    def __init__(self, clock: "machine.Pin", data: "machine.Pin") -> None:
        self._clock = clock
        self._data = data

    def ready(self) -> bool:
        """Whether there is something to read."""
        return not self._data()

    def read(self, pulses: int) -> int:
        """The first 24 bits of an answer; further pulses tell the chip what comes next."""
        clock, data = self._clock, self._data
        bits = 0
        for number in range(pulses):
            state = machine.disable_irq()  # an interrupt within the pulse could make it as long as a wish to sleep
            clock(1)
            clock(0)
            machine.enable_irq(state)
            if number < 24:
                bits = bits << 1 | data()
        return bits
