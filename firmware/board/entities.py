"""What Home Assistant is told of the board itself.

One invariant: it is loaded for one message only and makes room again, as a board's memory is small.

It leaves to others: what is measured (payloads.py), and what the values are (diag.py).
"""

import payloads

from . import REPORT_WAKINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def components(app: "Any") -> "dict[str, dict[str, object]]":
    """What of it is an entity in Home Assistant, each with its topic; signal and charge are, as fields of `state`.

    What grows old expires after three reports that did not come. A start's cause and a version stay true.
    """
    found: "dict[str, dict[str, object]]" = {"firmware": {"state_topic": payloads.meta_topic(app.id)}}
    if app.settings["diag"]:
        every = app.interval * REPORT_WAKINGS if app.battery else app.settings["diag"]
        aging = {"expire_after": max(30, int(3 * every))}
        found["started_by"] = {}
        found["heap_free"] = dict(aging, device_class="data_size", unit_of_measurement="B")
        if not app.battery:
            found["uptime"] = dict(aging, device_class="duration", unit_of_measurement="s")
        elif app.settings["battery_mah"]:
            found["battery_days"] = dict(aging, device_class="duration", unit_of_measurement="d")
    for name in found:
        found[name].setdefault("state_topic", payloads.diag_topic(app.id))
        found[name]["value_template"] = "{{ value_json." + name + " }}"
    return found
