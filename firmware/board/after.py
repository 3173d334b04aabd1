"""What comes after a life without a network: room is made, and the access point opens.

One invariant: nothing of a life is used here, and none follows in the same start.

It leaves to others: the page (portal.py), and when a life ends so (app.py).
"""

import gc
import sys

from . import app

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable


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
    _forget_life()
    from . import portal

    def propose(change: "dict[str, Any]") -> None:
        app._changes("propose", change, True)
        app._forget("settings")

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
        log("access point: " + app.mqtt.describe(error))
        return False


def _forget_life() -> None:
    """Make room: forget what a life is made of, for none follows in this start."""
    for name in [name for name in sys.modules if name.startswith(app.drivers.__name__ + ".")]:
        app._forget("drivers" + name[len(app.drivers.__name__) :])
    for name in ("outputs", "drivers", "diag", "clock", "logs"):
        app._forget(name)
    sys.modules.pop("payloads", None)
    for name in ("App", "Source", "Progress", "Clock", "Log", "make_sources", "payloads", "drivers", "diag"):
        delattr(app, name)
    gc.collect()
