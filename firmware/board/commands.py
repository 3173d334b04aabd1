"""What `sensors/<id>/cmd` asks for.

One invariant: it is loaded for one command and makes room again, as a board's memory is small; and a command with a
mistake changes nothing, and is told in `meta`.

It leaves to others: reading JSON (payloads.py), and what each part does with what it is told.
"""

import payloads

from .app import RESTART, forget, once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .app import App


def take(life: "App", payload: bytes, retained: bool) -> bool:
    """Do what a command asks for; `meta` has to be published then.

    Returns:
        Whether Home Assistant must know of it, too.
    """
    outputs = life.outputs
    try:
        also = ("log", "update", "settings", "tune") + (("set",) if outputs is not None else ())
        command: "dict[str, Any]" = payloads.parse_command(payload, also=also)
        if command.get("update", True) is not True:
            raise ValueError("update takes true, not " + payloads.json_text(command["update"]))
        if "log" in command and command["log"] not in payloads.LOG_LEVELS:
            levels = ", ".join(payloads.LOG_LEVELS)
            raise ValueError("log takes one of %s, not %s" % (levels, payloads.json_text(command["log"])))
        if "tune" in command:
            _tune(life, command["tune"])
        wanted = outputs.check(command["set"]) if "set" in command else {}
        if "settings" in command and not retained:
            _change(life, command["settings"])
    except ValueError as error:
        life.log.trouble("command: %s" % error)
        life.notes["cmd"] = str(error)
        return False
    life.notes.pop("cmd", None)
    if "interval" in command:
        life.interval = command["interval"]
        life.board.save_interval(life.interval)
        life.log("command: interval %g s" % life.interval)
        life.retime.set()
    if "log" in command:
        life.log.level = str(command["log"])
        life.log("command: log %s" % life.log.level)
    if command.get("update"):
        if retained:
            life.log("command: a retained update is ignored")
        else:
            from . import update  # it makes room again with the restart that follows

            update.start(life)
    if wanted and retained:  # it would undo the safe values after every restart
        life.log("command: a retained set is ignored")
    elif wanted:
        outputs.set(wanted)
        life.log("command: set " + payloads.json_text(wanted))
        life.retime.set()  # what the pins say now is published at once
    if command.get("reboot"):
        if retained:  # it would come again after every restart
            life.log("command: a retained reboot is ignored")
        else:
            life.log("command: reboot")
            life.finish(RESTART)
    return "interval" in command


def _tune(life: "App", wanted: "Any") -> None:
    """Hand on what sensors are to change in themselves: {"scd41": {"altitude": 500}}."""
    known = {source.name: source.sensor for source in life.sources}
    if not isinstance(wanted, dict) or not wanted:
        raise ValueError('tune takes an object such as {"scd41": {"altitude": 500}}')
    for name in wanted:
        if name not in known:
            raise ValueError("tune: there is no sensor '%s': known are %s" % (name, ", ".join(sorted(known))))
    for name in wanted:
        known[name].tune(wanted[name])
    life.retime.set()


def _change(life: "App", change: "Any") -> None:
    """Try other settings with the next start.

    Raises:
        ValueError: They are no good.
    """
    if life.trial or life.changed:
        raise ValueError("settings: an earlier change is on trial")
    once("changes", "propose", change)
    forget("settings")
    life.notes.pop("settings", None)
    life.log("command: settings " + ", ".join(change))  # names alone: passwords are among the values
    if isinstance(change.get("interval"), (int, float)):
        life.board.save_interval(change["interval"])  # or an earlier command would win
    life.finish(RESTART)
