"""What the dashboard offers to draw of the payloads of each dialect of the simulator, for tests of both languages.

`python -m tests.support.offered` writes `tests/offered.json` anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.core.fields import numbers_of
from gateway.core.messages import Message as Arrival
from gateway.core.paths import path_text
from sensors_sim.dialects.all import DIALECTS
from sensors_sim.fleet import SEEDED_START, DeviceSpec, Fleet, FleetSpec
from sensors_sim.messages import Message

FILE = Path(__file__).parents[1] / "offered.json"
KINDS = ("climate", "air", "thermometer", "outdoor", "soil", "plug", "meter", "machine", "motion", "tracker")
MAX_DEPTH, MAX_ITEMS, MAX_FIELDS = 6, 16, 64
"""Those of `web/dashboard/src/core/values.ts`: what is deeper or wider the gateway takes, and no page offers."""


def payloads() -> list[dict[str, Any]]:
    """One payload of each topic of a device of each kind in each dialect, those that offer the same left out."""
    found: list[dict[str, Any]] = []
    seen = set()
    for dialect in DIALECTS:
        specs = tuple(DeviceSpec(f"d-{kind}", kind, kind) for kind in KINDS)
        fleet = Fleet(FleetSpec(specs), 7, SEEDED_START, interval=1, dialect=dialect)
        messages = [event.what for event in fleet.take(SEEDED_START + 3) if isinstance(event.what, Message)]
        messages += [message for device in fleet.devices.values() for message in device.dialect.birth(device)]
        for message in messages:
            offered = offered_of(message.payload)
            if offered and tuple(offered) not in seen:
                seen.add(tuple(offered))
                payload = message.payload.decode()
                found.append({"dialect": dialect, "topic": message.topic, "payload": payload, "offered": offered})
    return found


def offered_of(payload: bytes) -> list[str]:
    """The paths of a payload that the dashboard offers."""
    value = Arrival.arrived(1, "t", payload, 0).value()
    paths = [path for path, _ in numbers_of(value, with_states=True) if len(path) <= MAX_DEPTH and "" not in path]
    narrow = [path for path in paths if not any(isinstance(step, int) and step >= MAX_ITEMS for step in path)]
    return [path_text(path) for path in narrow[:MAX_FIELDS]]


if __name__ == "__main__":
    FILE.write_text("[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in payloads()) + "\n]\n", "utf-8")
