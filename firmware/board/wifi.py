"""The way into the network: joins the Wi-Fi, and joins it again when it was lost.

One invariant: `ready` returns within its limit, whatever the radio does.

It leaves to others: what goes over the network.

Source of the status numbers: MicroPython, `network_wlan_status` in ports/esp32/network_wlan.c, which tells of a failure
only 201, 202 and 210 to 212 while it tries again by itself; ESP-IDF, `wifi_err_reason_t`.
"""

import asyncio

from .ticks import ticks_diff, ticks_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

_SILENT = "no answer: wrong password, too far away, or the access point gives out no address"
REASONS = {
    1000: _SILENT,  # what is known is only that we left another network before
    1001: _SILENT,
    200: "beacons lost: too far away?",
    201: "no such network: wrong name, too far away, or 5 GHz only",
    202: "wrong password",
    203: "the access point refuses us",
    204: "wrong password, or too far away",
    205: "wrong password",
    210: "the network has another kind of security: allow WPA2 beside WPA3",
    211: "the network's security is weaker than what a password asks for: set it to WPA2",
    212: "the network is too far away",
    15: "wrong password",
}


class Wifi:
    """One Wi-Fi network, or two of which one is there.

    Args:
        wlan: MicroPython's `network.WLAN` as a station.
        ssid: Name of the network; 2.4 GHz on most chips.
        password: "" for an open network.
        limit_seconds: Longest time for joining.
        static: Address, netmask, gateway and name server; None to be given them.
        second: The settings of another network: `ssid`, `password` and `static`; attempts take turns.
        log: Takes one line of text.
        warn: Takes a line that tells of trouble; `log` when it isn't given.
    """

    def __init__(
        self,
        wlan: "Any",
        ssid: str,
        password: str,
        limit_seconds: float = 20,
        static: "list[str] | None" = None,
        second: "dict[str, Any] | None" = None,
        log: "Callable[[str], None] | None" = None,
        warn: "Callable[[str], None] | None" = None,
    ) -> None:
        self.wlan = wlan
        self.ssid = ssid
        self.password = password
        self.limit_seconds = limit_seconds
        self.static = static
        self.second = second
        self.log = log
        self.warn = warn or log
        self.failures = 0
        self.joins = 0
        self.reason: "str | None" = None
        self._busy = False
        self._was_connected = False

    async def ready(self) -> bool:
        """Whether there is a network; joins it when there is none."""
        if self.wlan.isconnected():
            self._connected()
            return True
        if self._busy:  # somebody else is joining: wait for that
            while self._busy:
                await asyncio.sleep(0.1)
            return bool(self.wlan.isconnected())
        self._busy = True
        try:
            return await self._join()
        except OSError as error:  # the radio's driver
            self._failed(str(error))
            return False
        finally:
            self._busy = False

    async def _join(self) -> bool:
        if self._was_connected and self.warn:
            self.warn("wifi: lost %s" % self.ssid)
        self._was_connected = False
        if self.failures and self.failures % 3 == 0:
            self.wlan.active(False)  # a radio that got stuck comes back this way
            await asyncio.sleep(0.5)
        if not self.wlan.active():
            self.wlan.active(True)
        else:
            try:
                self.wlan.disconnect()  # connect() is an error while an earlier one still runs
            except OSError:
                pass
        if self.static:
            self.wlan.ifconfig(tuple(self.static))
        self.wlan.connect(self.ssid, self.password or None)
        started = ticks_ms()
        while ticks_diff(ticks_ms(), started) < self.limit_seconds * 1000:
            if self.wlan.isconnected():
                self._connected()
                return True
            await asyncio.sleep(0.1)
        status = self.wlan.status()
        self._failed(REASONS.get(status, "status %s" % status))
        return False

    def _connected(self) -> None:
        if not self._was_connected:
            self.joins += 1
            if self.log:
                self.log("wifi: joined %s as %s" % (self.ssid, self.wlan.ifconfig()[0]))
        self._was_connected = True
        self.failures = 0
        self.reason = None

    def _failed(self, reason: str) -> None:
        self.failures += 1
        self.reason = reason
        if self.warn:
            self.warn("wifi: %s: %s" % (self.ssid, reason))
        if self.second:
            other = self.second
            self.second = {"ssid": self.ssid, "password": self.password, "static": self.static}
            if self.static and not other.get("static"):
                self.wlan.active(False)  # or the address of the one network would be kept in the other
            self.ssid, self.password = other["ssid"], other.get("password") or ""
            self.static = other.get("static")

    def rssi(self) -> "int | None":
        """Signal strength in dBm, None while not connected."""
        try:
            return int(self.wlan.status("rssi")) if self.wlan.isconnected() else None
        except (OSError, ValueError):
            return None
