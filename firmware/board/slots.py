"""Which program starts: the one that was flashed, or one that came over the air, in its folder `a` or `b`.

One invariant: what starts is a program whose files were all there and had their hashes when it was chosen, and a power
failure at any moment leaves either the old choice or the new one. For the choice stands in one small file, and only a
rename changes it, which LittleFS does in one step (its DESIGN.md, "Atomic moves").

A new program is on trial: each start takes one of its tries, and when none is left, or it fails before it has run, the
one before it starts again. It leaves to others: bringing files (update.py), and saying that a trial went well (app.py).

This file and main.py stay as they were flashed.
"""

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "slot.json"
FLASHED = ""  # the program that a cable brought lies beside this file
SLOTS = ("a", "b")
TRIES = 3


def load() -> "dict[str, Any]":
    """What was chosen.

    `now` is the slot and `build` its program, None when no update told; `serial` is the number of the last update. On
    trial there are `left`, the tries, and `old` and `old_build`, which it goes back to. After a trial that failed there
    is `failed`, why. A file that says something else is as good as none.
    """
    try:
        with open(FILE) as file:
            choice = json.load(file)
        known = (FLASHED,) + SLOTS
        if choice["now"] in known and choice.get("old", FLASHED) in known and choice["serial"] >= 0:
            choice.setdefault("build", None)
            return dict(choice)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {"now": FLASHED, "serial": 0, "build": None}


def save(choice: "dict[str, Any]") -> None:
    """Choose, in one step."""
    beside = FILE + ".new"
    with open(beside, "w") as file:
        file.write(json.dumps(choice))
    os.rename(beside, FILE)


def begin() -> str:
    """The slot whose program is to start now; one of its tries is used up when it is on trial."""
    choice = load()
    if "left" in choice:
        if choice["left"] <= 0:
            return back("it did not reach the broker in %d starts" % TRIES)
        choice["left"] -= 1
        save(choice)
    slot: str = choice["now"]
    return slot


def on_trial() -> bool:
    """Whether the program that runs has not proved itself yet."""
    return "left" in load()


def other() -> str:
    """The slot that is free for a new program."""
    choice = load()
    return "b" if choice["now"] == "a" or ("left" in choice and choice.get("old") == "a") else "a"


def switch(slot: str, serial: int, build: str) -> None:
    """Start the program of `slot` from now on, on trial."""
    choice = load()
    save(
        {
            "now": slot,
            "serial": serial,
            "build": build,
            "left": TRIES,
            "old": choice["now"],
            "old_build": choice["build"],
        }
    )


def same(serial: int, build: str) -> None:
    """The program that runs is the one of this update."""
    choice = load()
    choice["serial"], choice["build"] = serial, build
    choice.pop("failed", None)
    save(choice)


def confirm() -> None:
    """The program on trial has proved itself."""
    choice = load()
    if "left" in choice:
        save({"now": choice["now"], "serial": choice["serial"], "build": choice["build"]})


def back(why: str) -> str:
    """Give the trial up: the slot of the program before it, which starts from now on."""
    choice = load()
    if "left" not in choice:
        slot: str = choice["now"]
        return slot
    old: str = choice.get("old", FLASHED)
    save({"now": old, "serial": choice["serial"], "build": choice.get("old_build"), "failed": why[:100]})
    return old


def failed() -> "str | None":
    """Why the last trial ended, None when it went well."""
    why = load().get("failed")
    return why if isinstance(why, str) else None
