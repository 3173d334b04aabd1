"""What comes after a life without a network: room is made, and the access point opens.

One invariant: nothing of a life is used here, and none follows in the same start.

It leaves to others: the page (portal.py), and when a life ends so (app.py).
"""

import asyncio
import gc
import sys

from . import app, mqtt
from .ticks import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable


_AWAKE_SECONDS = const(180)  # that a battery sensor's is open while nobody uses it


def opening(life: "Any") -> "dict[str, Any]":
    """What the access point has to know of a life that has ended, before that makes room."""
    return {
        "sensor_id": life.id,
        "title": life.settings["name"] or life.id,
        "notes": ["%s: %s" % (name, life.notes[name]) for name in life.notes],
        "limit_seconds": _AWAKE_SECONDS if life.battery else life.settings["reboot_after"],
    }


async def open_portal(
    settings: "dict[str, Any]",
    board: "Any",
    log: "Callable[[str], None]",
    sensor_id: str,
    title: str,
    notes: "list[str]",
    limit_seconds: float,
) -> bool:
    """Open the access point; whether settings were given there."""
    await asyncio.sleep(0.1)  # what the life was doing ends
    _forget_life()
    from . import portal

    def propose(change: "dict[str, Any]") -> None:
        app._changes("propose", change, True)
        app.forget("settings")

    page = portal.Portal(
        board.access_point(),
        app.make_wifi(settings, board, sensor_id, log, log),
        portal.name_of(sensor_id),
        portal.password_of(settings, sensor_id),
        propose,
        settings,
        log,
        notes,
        title,
        board.feed,
    )
    try:
        return await page.run(limit_seconds)
    except OSError as error:  # the radio's driver
        log("access point: " + mqtt.describe(error))
        return False


def _forget_life() -> None:
    """Make room: forget what a life is made of, for none follows in this start."""
    package = __name__.rpartition(".")[0] + "."
    for name in [name for name in sys.modules if name.startswith(package + "drivers.")]:
        app.forget(name[len(package) :])
    for name in ("battery", "outputs", "drivers", "clock", "logs"):
        app.forget(name)
    sys.modules.pop("payloads", None)
    for name in ("App", "Source", "Progress", "Clock", "Log", "make_sources", "make_app", "payloads", "drivers"):
        delattr(app, name)
    gc.collect()
