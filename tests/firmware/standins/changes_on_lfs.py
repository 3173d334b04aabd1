"""Runs under MicroPython: board/changes.py on a LittleFS in memory, whose power can fail at any write."""

import gc
import json
import sys

sys.path[:] = ["", ".frozen"]
import lfs  # noqa: E402
from board import changes, mqtt, settings  # noqa: E402, F401 - found before the working directory is the LittleFS

OLD = {
    "mqtt": {"url": "mqtt://h"},
    "wifi": {"ssid": "home", "password": "x" * 63},
    "name": "old " * 20,
    "interval": 5,
    "sensors": [{"driver": "fake", "label": f"label_{number}"} for number in range(20)],  # more than LittleFS inlines
}


def succeed():
    """From the command to the broker's answer."""
    changes.propose({"name": "new " * 20, "interval": 7})
    changes.begin()
    changes.confirm()


def fail():
    """A change with which the broker is not reached."""
    changes.propose({"name": "new " * 20, "interval": 7})
    for _ in range(changes.TRIES):
        changes.begin()
    assert changes.begin() is None


def kept():
    """Which settings lie in flash: whole ones, or there is an exception."""
    with open(changes.FILE) as file:
        read = json.load(file)
    name = read["name"].split(" ")[0]
    assert read["name"] == (name + " ") * 20
    assert read["interval"] == {"old": 5, "new": 7}[name]
    assert read["sensors"] == OLD["sensors"]
    return name


def start():
    """What a start takes its settings from, as app.py does it."""
    given = changes.begin()
    if given is None:
        return kept()
    assert given["name"] == "new " * 20
    assert given["interval"] == 7
    assert given["sensors"] == OLD["sensors"]
    return "trial"


def tell(what, life):
    """Cut the power at each write of a life, and once more while the board starts after that."""
    flash = lfs.make(16)
    with open(changes.FILE, "w") as file:
        json.dump(OLD, file)
    before, flash.writes = bytes(flash.data), 0
    life()
    total, end = flash.writes, kept()
    counts = {"old": 0, "trial": 0, "new": 0, "broken": 0}
    for cut in range(1, total + 1):
        flash.data[:] = before
        flash = flash.revive()
        gc.disable()
        flash.fuse = cut
        try:
            life()
        except lfs.PowerCut:
            pass
        flash = flash.revive()
        gc.disable()
        flash.fuse = 1 + cut % 5
        try:
            start()
        except lfs.PowerCut:
            pass
        flash = flash.revive()
        try:
            proved = kept()
            if start() == "trial":
                counts["trial"] += 1
            for _ in range(changes.TRIES):  # the broker is not reached with them: the ones that have proved themselves
                start()
            counts[proved if start() == kept() == proved else "broken"] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is
            sys.print_exception(error)
            counts["broken"] += 1
    print(json.dumps({"what": what, "end": end, "cuts": total, "counts": counts}))


tell("succeed", succeed)
tell("fail", fail)
