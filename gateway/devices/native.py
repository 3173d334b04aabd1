"""This project's own sensors: `sensors/<id>/meta`, and without it what stands in `sensors/<id>/state`.

Invariant: a sensor that says nothing of itself is a device all the same, named by its id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.devices.model import (
    AnnouncementError,
    Availability,
    Command,
    CommandKind,
    Field,
    FieldKind,
    Known,
    Part,
    Presence,
    Problem,
    StateTopic,
    label_of,
    text_of,
)
from gateway.devices.quantities import quantity_of

__all__ = ["NAME", "claim", "owner", "read"]

NAME = "meta"

STATES = (
    ("online", Presence.ONLINE),
    ("offline", Presence.OFFLINE),
    ("sleeping", Presence.SLEEPING),
)
BOOKKEEPING = frozenset({"ts", "seq", "boot"})
STATE_FIELDS = frozenset({"motion", "occupied", "contact"})
DIAGNOSTIC = frozenset({"rssi", "battery", "voltage"})
MAX_FIELDS = 200


def claim(levels: list[str]) -> tuple[str, bool] | None:
    """The sensor that a topic belongs to, and whether only the form of its messages matters."""
    if len(levels) == 3 and levels[0] == "sensors" and levels[2] in ("meta", "state"):
        return levels[1], levels[2] == "state"
    return None


def owner(levels: list[str]) -> str | None:
    """The key of the sensor whose topic it is."""
    return f"sensors_{levels[1]}" if len(levels) == 3 and levels[0] == "sensors" else None


def read(key: str, known: Known) -> Iterator[Part | Problem | None]:
    """The sensor of that id, of its meta and its newest state."""
    base = f"sensors/{key}"
    meta = known.value(f"{base}/meta")
    if meta is not None and not isinstance(meta, dict):
        raise AnnouncementError(f"expected an object, got {type(meta).__name__}")
    described = (meta or {}).get("fields")
    if described is not None and not isinstance(described, dict):
        raise AnnouncementError("fields: expected an object")
    state = known.value(f"{base}/state")
    if meta is None and not isinstance(state, dict):
        return
    names: dict[str, Any] = dict(described or {})
    if not described and isinstance(state, dict):
        names = {name: None for name, value in state.items() if isinstance(value, (int, float, str))}
    fields = [_field(base, name, about) for name, about in names.items() if name not in BOOKKEEPING]
    interval = (meta or {}).get("interval")
    silence = None
    if isinstance(interval, (int, float)) and not isinstance(interval, bool) and 0 < interval <= 86_400:
        silence = max(30.0, 3.0 * interval)
    meta = meta or {}
    commands: tuple[Command, ...] = ()
    if "interval" in meta:
        commands = (
            Command(
                "interval",
                "Interval",
                CommandKind.NUMBER,
                f"{base}/cmd",
                before='{"interval":',
                after="}",
                least=0.01,
                most=86_400,
                unit="s",
            ),
            Command("reboot", "Restart", CommandKind.BUTTON, f"{base}/cmd", (("press", '{"reboot":true}'),)),
        )
    yield Part(
        NAME,
        f"{base}/meta" if meta else f"{base}/state",
        (f"sensors_{key}",),
        name=text_of(meta.get("name")) or key,
        model=text_of(meta.get("model")),
        area=text_of(meta.get("area") or meta.get("place")),
        version=text_of(meta.get("firmware")),
        fields=tuple(fields[:MAX_FIELDS]),
        commands=commands,
        availability=Availability((StateTopic(f"{base}/status", STATES),), silence_seconds=silence),
    )


def _field(base: str, name: str, about: Any) -> Field:
    about = about if isinstance(about, dict) else {}
    known = quantity_of(name)
    return Field(
        text_of(name),
        text_of(about.get("name")) or label_of(name),
        f"{base}/state",
        (name,),
        text_of(about.get("unit"), 20),
        text_of(about.get("device_class")) or (known.device_class if known else ""),
        FieldKind.STATE if name in STATE_FIELDS else FieldKind.NUMBER,
        is_diagnostic=name in DIAGNOSTIC,
    )
