"""The sensor on a battery: one waking, from a deep sleep to the next.

One invariant: whatever happens, the waking is over in `awake` seconds and what follows from them; what could not be
delivered lies in the memory that sleep keeps.

It leaves to others: what a sensor on the mains does as well (app.py). A board on the mains does not load it.
"""

import asyncio
import binascii

import payloads

from . import REPORT_WAKINGS, app, mqtt
from .ticks import const, ticks_diff, ticks_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

_RESYNC_SLEEPING_MS = const(3600_000)  # a slow clock, which counts during deep sleep, drifts by up to a few percent
_UPDATE_SECONDS = const(1800)  # that it stays awake for an update at most
_LINGER_SECONDS = 0.3  # it stays for commands that the broker kept for it
_SHORTEST_SLEEP_MS = const(1000)
_TELL_AGAIN_WAKINGS = const(50)  # what is retained may be lost although the broker keeps the session
_AP_WAKINGS, _AP_WAKINGS_AGAIN = const(10), const(100)  # without a network, before the access point opens, and again


class Waking(app.App):
    """One waking.

    Attributes:
        phases: What it has done, each with the milliseconds that it took.
    """

    def __init__(self, settings: "dict[str, Any]", board: "Any", log: "Callable[[str], None]" = print) -> None:
        app.App.__init__(self, settings, board, log)
        self.phases: "dict[str, int]" = {}
        self._phase_at = ticks_ms()

    def _end_phase(self, name: str) -> None:
        """The phase that ends now took all the time since the one before; only its first end counts."""
        if name not in self.phases:
            now = ticks_ms()
            self.phases[name] = ticks_diff(now, self._phase_at)
            self._phase_at = now

    def births(self) -> "list[mqtt.Message]":
        """What is said after the connect: not what the broker has from an earlier waking."""
        self._end_phase("broker")
        memory = self.memory
        wakings = memory.get("wakings", 0)
        checksum = binascii.crc32(self.meta().whole())
        if self.client.session_present and memory.get("meta") == checksum and wakings < _TELL_AGAIN_WAKINGS:
            messages = [self._status(payloads.ONLINE)]
            if self.settings["diag"] and wakings % REPORT_WAKINGS == 0:
                messages.append(self.diag())
            return messages
        memory.pop("meta", None)
        self._telling = checksum
        return app.App.births(self)

    async def _network(self) -> bool:
        if self.wifi is not None and not await self.wifi.ready():
            return False
        self._end_phase("wifi")
        return await app.App._network(self)

    async def run(self) -> str:
        """Measure, deliver, take what the broker has kept.

        Returns:
            SLEEP for `sleep_ms` milliseconds, or RESTART.
        """
        self._greet()
        started = self._phase_at = ticks_ms()
        awake = self.settings["awake"]
        self.board.start_watchdog(awake + 60)  # never fed: the whole waking must be over by then
        backlog = [text.encode() for text in self.memory.get("backlog", [])]
        payload = await self.measure()
        self._end_phase("sensors")
        if payload is not None:
            backlog.append(payload)
        for waiting in backlog:
            self._publish(waiting)
        link = asyncio.create_task(self._supervised("link", self.client.run()))
        if await self.client.wait_delivered(awake - ticks_diff(ticks_ms(), started) / 1000):
            self._end_phase("delivery")
            if self._telling is not None:
                self.memory["meta"], self.memory["wakings"] = self._telling, 0
            if self._time_is_old():
                await self._ask_time()
            await asyncio.sleep(_LINGER_SECONDS)
            if self.updating is not None:
                self.board.start_watchdog(_UPDATE_SECONDS)
                await self.update_task
        self.needs_portal = self._portal_is_due()
        outcome = self._outcome or app.SLEEP
        undelivered = [m.whole() for m in self.client.ring.messages]
        self.client.ring.push(self._status(payloads.SLEEPING if outcome == app.SLEEP else payloads.OFFLINE))
        if self.client.connected:
            await self.client.close(2)
        link.cancel()
        if not self.client.connects:
            self.log.trouble("link: %s" % (self.client.last_error or "no broker in time"))
        self._end_phase("rest")
        self.memory["phases"] = self.phases
        self._remember(undelivered)
        interval_ms = int(self.interval * 1000)
        self.sleep_ms = max(_SHORTEST_SLEEP_MS, interval_ms - ticks_diff(ticks_ms(), started))
        return outcome

    def _portal_is_due(self) -> bool:
        """Whether so many wakings in a row were without a network that somebody has to tell of another one."""
        if self.wifi is None or self.wifi.joins or not self.settings["ap_after"] or self._outcome is not None:
            self.memory.pop("offline", None)
            return False
        offline = self.memory["offline"] = self.memory.get("offline", 0) + 1
        return bool(self.by_page or offline == _AP_WAKINGS or offline % _AP_WAKINGS_AGAIN == 0)

    def _time_is_old(self) -> bool:
        now, synced = self.clock.now_ms(), self.memory.get("synced")
        return bool(self.clock.host) and (now is None or synced is None or now - synced > _RESYNC_SLEEPING_MS)

    def _remember(self, undelivered: "list[bytes]") -> None:
        memory = self.memory
        memory["boot"] = self.boot
        memory["seq"] = self.seq
        memory["wakings"] = memory.get("wakings", 0) + 1
        memory["dropped"] = self.dropped_before + self.client.ring.dropped
        memory["backlog"] = [payload.decode() for payload in undelivered]
        while not self.board.remember(memory) and memory["backlog"]:
            memory["backlog"].pop(0)
            memory["dropped"] += 1
