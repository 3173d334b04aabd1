"""What Home Assistant is told of the board itself: a device message of its own, beside that of what it measures.

One invariant: it is loaded for one message only and makes room again, as a board's memory is small; and it names the
device by its identifier alone, so both messages are about one device, and neither has to know the other.

It leaves to others: what is measured (payloads.py), and what the values are (diag.py).

Source: Home Assistant's documentation of the MQTT integration, "Device discovery payload" and "Discovery topic": a
device's topic may have one more level before `config`.
"""

import payloads

from . import NAME, REPORT_WAKINGS, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def topic(sensor_id: str) -> str:
    """Where it stands, retained: below the board's own, for the same rights."""
    return payloads.discovery_topic(sensor_id + "/diag")


def parts(sensor_id: str, firmware: str, every: float, more: str = "") -> "list[bytes]":
    """The message, in parts; signal and charge are not in it, for they are fields of `state`.

    What grows old expires after three reports that did not come. A start's cause and a version stay true.

    Args:
        sensor_id: As in its topics.
        firmware: Name and version.
        every: Seconds between two reports; 0 for none.
        more: What the reports say besides: `uptime`, `battery_days` or nothing.
    """
    found: "dict[str, dict[str, object]]" = {"firmware": {"state_topic": payloads.meta_topic(sensor_id)}}
    if every:
        aging: "dict[str, object]" = {"expire_after": max(30, int(3 * every))}
        found["started_by"] = {}
        found["heap_free"] = dict(aging, device_class="data_size", unit_of_measurement="B")
        if more:
            unit = "s" if more == "uptime" else "d"
            found[more] = dict(aging, device_class="duration", unit_of_measurement=unit)
    text = [payloads.discovery_head(sensor_id, payloads.diag_topic(sensor_id), firmware, {})]
    between = ""
    for name in found:
        found[name].update(p="sensor", name=payloads.label(name), entity_category="diagnostic")
        found[name]["unique_id"] = "sensors_" + sensor_id + "_" + name
        found[name]["value_template"] = "{{ value_json." + name + " }}"
        text.append((between + '"' + name + '":' + payloads.json_text(found[name])).encode())
        between = ","
    text.append(b"}}")
    return text


def message(app: "Any") -> "tuple[str, list[bytes]]":
    """Topic and payload, in parts, of a board's."""
    every, more = app.settings["diag"], "uptime"
    if app.battery:
        every = app.interval * REPORT_WAKINGS if every else 0
        more = "battery_days" if app.settings["battery_mah"] else ""
    return topic(app.id), parts(app.id, NAME + " " + VERSION, every, more)
