"""How the board is: what `sensors/<id>/diag` says, and how long a battery may last.

One invariant: an estimate stands only beside what it was made of, and nothing is said that is not known.

It leaves to others: measuring it (hardware.py, wifi.py), and when it is said (app.py).

Source of the currents: Espressif, ESP32 Series Datasheet, "Current Consumption Characteristics": 95 to 100 mA while
receiving, up to 240 mA while sending; in deep sleep 10 µA for the chip, to which boards add their regulator and LED.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PHASES = ("sensors", "wifi", "broker", "delivery", "rest")  # of a waking, in their order
AWAKE_MA = 100.0
ASLEEP_MA = 0.15  # a board with a frugal regulator and without a LED; many take more
USABLE = 0.8  # of a cell's charge, before its voltage is too low


def quality(rssi: "int | None") -> "int | None":
    """Signal in %, from -100 dBm (0) to -50 dBm (100)."""
    return None if rssi is None else max(0, min(100, 2 * (rssi + 100)))


def battery_days(capacity_mah: float, awake_seconds: float, interval_seconds: float, percent: float = 100) -> float:
    """How long a cell lasts when the board wakes once in each interval.

    Args:
        capacity_mah: Of the full cell, in mAh.
        awake_seconds: Of one waking.
        interval_seconds: From one waking to the next.
        percent: Charge that is left.
    """
    share = min(1.0, awake_seconds / max(interval_seconds, awake_seconds, 0.001))
    current = AWAKE_MA * share + ASLEEP_MA * (1 - share)
    return capacity_mah * USABLE * percent / 100 / current / 24


def report(app: "Any") -> "dict[str, Any]":
    """What is known now; docs/sensors.md says what each member means."""
    free, used = app.board.heap()
    app.heap_lowest = min(app.heap_lowest or free, free)
    said = {
        "boot": app.boot,
        "started_by": app.board.cause(),
        "uptime": int(app.board.uptime_seconds()),
        "heap_free": free,
        "heap_used": used,
        "heap_lowest": app.heap_lowest,
        "reconnects": max(0, app.client.connects - 1),
        "dropped": app.dropped_before + app.client.ring.dropped,
    }
    ts_ms = app.clock.now_ms()
    if ts_ms is not None:
        said["ts"] = ts_ms // 1000
    if app.wifi is not None:
        said["wifi_joins"] = app.wifi.joins
        rssi = app.wifi.rssi()
        if rssi is not None:
            said["rssi"], said["wifi_quality"] = rssi, quality(rssi)
    phases = app.memory.get("phases")
    if app.battery:
        said["wakings"] = app.memory.get("wakings", 0) + 1
        if phases:
            awake_ms = sum(phases.values())
            said["awake"] = awake_ms / 1000
            said["awake_by"] = {name: phases[name] / 1000 for name in PHASES if name in phases}
            capacity = app.settings["battery_mah"]
            if capacity:
                days = battery_days(capacity, awake_ms / 1000, app.interval, app.charge)
                said["battery_days"] = int(days)
    return said
