"""Settings that came by command: tried first, kept when the broker was reached with them, else forgotten.

One invariant: settings.json holds settings with which the broker was reached, or those that a cable brought; a power
failure at any moment leaves it whole, because only a rename changes it.

Changed settings lie in trial.json until then. Each start with them takes one of their tries. A certificate that comes
with them gets a file beside the one in use, so there are two at most. It leaves to others: what
good settings are (settings.py), and when the broker counts as reached (app.py).
"""

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "settings.json"
TRIAL = "trial.json"
TRIES = 3
CERTIFICATES = ("ca.pem", "ca2.pem")  # one is in use, the other one on trial
CERTIFICATE_BYTES = 4096
_MERGED = ("wifi", "wifi2", "mqtt")  # of these the members are changed that are named
_FIXED = ("update_key", "revision")


def _read(path: str) -> "dict[str, Any]":
    try:
        with open(path) as file:
            read = json.load(file)
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _write(path: str, content: "dict[str, Any]") -> None:
    _write_text(path, json.dumps(content))


def _write_text(path: str, text: str) -> None:
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def merged(present: "dict[str, Any]", change: "Any") -> "dict[str, Any]":
    """The settings with what a command changes; null gives a setting its default back.

    Raises:
        ValueError: It is no object, or changes what a command can't.
    """
    if not isinstance(change, dict) or not change:
        raise ValueError('settings takes an object such as {"name": "Kitchen"}')
    result = dict(present)
    for name in change:
        value = change[name]
        if name in _FIXED:
            raise ValueError("%s is not changed by command" % name)
        if value is None:
            result.pop(name, None)
        elif name in _MERGED and isinstance(value, dict) and isinstance(result.get(name), dict):
            inside = dict(result[name])
            inside.update(value)
            result[name] = {key: inside[key] for key in inside if inside[key] is not None}
        else:
            result[name] = value
    return result


def propose(change: "Any", by_page: bool = False) -> None:
    """Try a change with the next start.

    Args:
        change: As in a command; `ca_pem` in it is the authority's certificate that the broker's is signed with.
        by_page: It was given on the page of the access point, to which somebody waits to come back.

    Raises:
        ValueError: The settings would be no good; nothing has changed.
    """
    from .settings import check

    present = _read(FILE)
    certificate = None
    if isinstance(change, dict) and "ca_pem" in change:
        change = dict(change)
        certificate = _certificate(change.pop("ca_pem"))
        access = change.get("mqtt", {})
        if not isinstance(access, dict) or "ca" in access:
            raise ValueError("ca_pem: mqtt is an object without ca beside it")
        # the file that is in use stays as it is until the new one has proved itself, and after that for the next
        used = present.get("mqtt", {}).get("ca")
        change["mqtt"] = dict(access, ca=CERTIFICATES[used == CERTIFICATES[0]])
    wanted = merged(present, change)
    wanted["revision"] = present.get("revision", 0) + 1
    problems = check(wanted)
    if problems:
        raise ValueError("settings: " + "; ".join(problems))
    try:
        if certificate is not None:
            _write_text(wanted["mqtt"]["ca"], certificate)
        _write(TRIAL, {"left": TRIES, "settings": wanted, "page": by_page})
    except OSError as error:
        raise ValueError("settings: the board's file system: %s" % error) from None


def _certificate(text: "Any") -> str:
    """The text, when it is the certificate of an authority that a connection can be checked with.

    Raises:
        ValueError: It is something else, or too long.
    """
    from .mqtt import tls_context

    if not isinstance(text, str) or len(text) > CERTIFICATE_BYTES:
        raise ValueError("ca_pem: expected a certificate of up to %d characters" % CERTIFICATE_BYTES)
    try:
        tls_context(text.encode())
    except (OSError, ValueError):
        raise ValueError("ca_pem: expected a certificate, from BEGIN CERTIFICATE to END CERTIFICATE") from None
    return text


def begin() -> "dict[str, Any] | None":
    """The settings on trial, one of whose tries is used up now; None when there are none."""
    trial = _read(TRIAL)
    left, wanted = trial.get("left"), trial.get("settings")
    if not isinstance(left, int) or not isinstance(wanted, dict):
        return None
    if left <= 0:
        back("the broker was not reached in %d starts" % TRIES)
        return None
    trial["left"] = left - 1
    _write(TRIAL, trial)
    return wanted


def on_trial() -> bool:
    """Whether the settings of this start have not proved themselves yet."""
    return "left" in _read(TRIAL)


def by_page() -> bool:
    """Whether what is on trial, or has failed before this start, was given on the page; of a failure it tells once."""
    trial = _read(TRIAL)
    told = trial.get("page") is True
    if told and "left" not in trial:
        trial["page"] = False
        _write(TRIAL, trial)
    return told


def confirm() -> None:
    """The broker was reached with them: they are the settings."""
    trial = _read(TRIAL)
    if "left" in trial:
        _write(FILE, trial["settings"])
        os.remove(TRIAL)


def back(why: str) -> None:
    """Forget the settings on trial; the next start is with the ones before."""
    _write(TRIAL, {"failed": why[:200], "page": _read(TRIAL).get("page") is True})


def failed() -> "str | None":
    """Why the last trial ended, None when it went well or there was none."""
    why = _read(TRIAL).get("failed")
    return why if isinstance(why, str) else None
