"""SenML (RFC 8428): records of measurements, of JSON or, behind `cbor` or `msgpack`, with numbers for labels.

A pack becomes `{"values":{…},"units":{…},"times":{…}}`, each by the record's name: `n` alone where all records have the
same base name, which then stands as `base`. Units, times and sums are there where records have some. Times are seconds;
those below 2^28 count from when the message came (§4.5.3), so they stay relative. Of several records of one name the
one with the latest time is shown, the others are in `earlier`, in their order.

Invariant: base values are worked in as §4.6 says; nothing of a pack is left out in silence.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from gateway.decoders.failures import DecodeError

__all__ = ["SenML"]

MAX_BYTES = 64 * 1024
MAX_RECORDS = 1_600
"""12 ms."""

_LABELS = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
"""What the numbers of CBOR stand for (§6)."""

_VERSION = 10


class SenML:
    """One pack."""

    max_bytes = MAX_BYTES
    is_plain = False

    def decode(self, _topic: str, data: Any) -> Any:
        """Its values by name."""
        if isinstance(data, bytes):
            try:
                data = msgspec.json.decode(data)
            except (msgspec.MsgspecError, UnicodeError) as error:
                raise DecodeError(f"it is not valid JSON: {error}") from None
        if not isinstance(data, list) or not data:
            raise DecodeError("a pack is an array of records")
        if len(data) > MAX_RECORDS:
            raise DecodeError(f"it has more than {MAX_RECORDS} records")
        return _shown(_resolved(data))


def _resolved(pack: list[Any]) -> list[dict[str, Any]]:
    """The records with base values worked in; `bn` is what is left of the base name."""
    base: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    for number, record in enumerate(pack, start=1):
        if not isinstance(record, dict):
            raise DecodeError(f"record {number} is no object")
        record = {_LABELS.get(label, label): value for label, value in record.items()}
        base |= {label: value for label, value in record.items() if label in ("bn", "bt", "bu", "bv", "bs", "bver")}
        if _number(base, "bver", _VERSION, number) > _VERSION:
            raise DecodeError(f"record {number}: version {base['bver']} is not known")
        for label in record:
            if isinstance(label, str) and label.endswith("_"):
                raise DecodeError(f"record {number}: {label[:40]!r} has to be understood, and is not known")
        values = [label for label in ("v", "vs", "vb", "vd") if label in record]
        has_sum = "s" in record or "bs" in base
        if not values and not has_sum and "bv" not in base:
            continue  # base values for those behind it
        name, start = record.get("n", ""), base.get("bn", "")
        if not isinstance(name, str) or not isinstance(start, str) or not name + start:
            raise DecodeError(f"record {number} has no name")
        if len(values) > 1:
            raise DecodeError(f"record {number} has {len(values)} values")
        one: dict[str, Any] = {"bn": start, "n": name}
        if (unit := record.get("u", base.get("bu"))) is not None:
            one["unit"] = unit
        if "t" in record or "bt" in base:
            one["time"] = _number(base, "bt", 0, number) + _number(record, "t", 0, number)
        if values and values[0] != "v":
            one["value"] = record[values[0]]
        elif values or "bv" in base:
            one["value"] = _number(base, "bv", 0, number) + _number(record, "v", 0, number)
        if has_sum:
            one["sum"] = _number(base, "bs", 0, number) + _number(record, "s", 0, number)
        found.append(one)
    return found


def _number(record: dict[str, Any], label: str, default: float, number: int) -> float:
    value = record.get(label, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DecodeError(f"record {number}: {label} is no number")
    return value


def _shown(records: list[dict[str, Any]]) -> dict[str, Any]:
    bases = {record["bn"] for record in records}
    # a record that is named by its base alone has no shorter name
    is_short = len(bases) == 1 and bases != {""} and all(record["n"] for record in records)
    newest: dict[str, dict[str, Any]] = {}
    for record in records:
        record["name"] = record.pop("n") if is_short else record["bn"] + record.pop("n")
        known = newest.get(record["name"])
        if known is None or record.get("time", 0) >= known.get("time", 0):
            newest[record["name"]] = record
    shown: dict[str, Any] = {"base": bases.pop()} if is_short else {}
    shown["values"] = {name: record.get("value") for name, record in newest.items()}
    for member, title in (("unit", "units"), ("time", "times"), ("sum", "sums")):
        if some := {name: record[member] for name, record in newest.items() if member in record}:
            shown[title] = some
    kept = {id(record) for record in newest.values()}
    if earlier := [
        {member: value for member, value in record.items() if member != "bn"}
        for record in records
        if id(record) not in kept
    ]:
        shown["earlier"] = earlier
    return shown
