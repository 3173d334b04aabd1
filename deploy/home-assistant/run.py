"""Starts the gateway as an app of Home Assistant: its options become settings, its broker is asked of the Supervisor.

Invariant: nothing is decided here that the gateway decides: each option is one of its settings, and what is wrong with
one the gateway says. Who may read is who comes over Ingress, whom Home Assistant names; with `access_secret` also who
shows a token. Needs only Python's standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUPERVISOR = "http://supervisor"
INGRESS = "172.30.32.2"
"""Where Ingress comes from, and nobody else: the Supervisor's documentation says so."""

USER_HEADERS = "X-Remote-User-Name, X-Remote-User-Id, X-Hass-Source"
"""Who has logged in, as the Supervisor says it: by name, where he has none by his id, which is no one else's; a display
name may be. Where the Supervisor doesn't know, by Home Assistant's word that it has let somebody in."""

ROLE = "home_assistant"
SETTINGS = {
    "mqtt_url": "GATEWAY_MQTT_URL",
    "mqtt_username": "GATEWAY_MQTT_USERNAME",
    "mqtt_password": "GATEWAY_MQTT_PASSWORD",
    "topics": "GATEWAY_MQTT_TOPICS",
    "archive_bytes": "GATEWAY_ARCHIVE_BYTES",
    "access_secret": "GATEWAY_ACCESS_SECRET",
    "origins": "GATEWAY_ACCESS_ORIGINS",
    "log_level": "GATEWAY_LOG_LEVEL",
}
"""Options that are settings as they are; the others are in `settings_of`."""


def broker_of(supervisor: str, token: str) -> dict[str, Any] | None:
    """The broker that the Supervisor knows (the Mosquitto app's, mostly); None where there is none."""
    request = urllib.request.Request(f"{supervisor}/services/mqtt", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            data: dict[str, Any] = json.load(answer)["data"]
            return data or None
    except urllib.error.HTTPError as error:
        with error:
            return None  # it says 400 where no app provides one
    except (OSError, ValueError, KeyError) as error:
        print(f"the Supervisor can't be asked for its broker: {error}", file=sys.stderr)  # noqa: T201
        return None


def settings_of(options: Mapping[str, Any], broker: Mapping[str, Any] | None) -> dict[str, str]:
    """The gateway's settings, as variables.

    Args:
        options: of the app, as the user set them.
        broker: what the Supervisor says; counts where no option names one.
    """
    found = {
        "GATEWAY_HOST": "0.0.0.0",
        "GATEWAY_PORT": "8000",
        "GATEWAY_FORWARDED_ALLOW_IPS": INGRESS,
        "GATEWAY_ACCESS_USER_HEADER": USER_HEADERS,
        "GATEWAY_ACCESS_USER_ROLE": ROLE,
        "GATEWAY_VIEW_TOPIC": "gateway/views",
        "GATEWAY_MQTT_DISCOVERY": "homeassistant",
        "GATEWAY_ALERT_DISCOVERY": "homeassistant" if options.get("alerts_as_sensors") else "none",
    }
    publish = ["#"] if options.get("may_publish") else []
    found["GATEWAY_ROLES"] = json.dumps({ROLE: {"subscribe": ["#"], "publish": publish}})
    if broker is not None and not options.get("mqtt_url"):
        scheme = "mqtts" if broker.get("ssl") else "mqtt"
        found["GATEWAY_MQTT_URL"] = f"{scheme}://{broker['host']}:{broker['port']}"
        for name in ("username", "password"):
            if broker.get(name):
                found[f"GATEWAY_MQTT_{name.upper()}"] = str(broker[name])
    for option, variable in SETTINGS.items():
        value = options.get(option)
        if value:
            found[variable] = json.dumps(value) if isinstance(value, list) else str(value)
    return found


def main() -> None:
    """Becomes the gateway."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("/data"), help="where options.json is, and history goes")
    parser.add_argument("--config", type=Path, default=Path("/config"), help="where gateway.toml may be")
    parser.add_argument("--supervisor", default=SUPERVISOR)
    parser.add_argument("--user", type=int, help="the id of the user that the gateway runs as")
    arguments = parser.parse_args()
    options = json.loads((arguments.data / "options.json").read_text(encoding="utf-8"))
    broker = broker_of(arguments.supervisor, os.environ.pop("SUPERVISOR_TOKEN", ""))
    if broker is None and not options.get("mqtt_url"):
        print("no broker: install the Mosquitto app, or set mqtt_url", file=sys.stderr)  # noqa: T201
    settings = settings_of(options, broker)
    history = arguments.data / "history"
    history.mkdir(mode=0o700, exist_ok=True)
    settings["GATEWAY_ARCHIVE_FILE"] = str(history / "archive.db")
    if (arguments.config / "gateway.toml").exists():
        settings["GATEWAY_CONFIG"] = str(arguments.config / "gateway.toml")
    if arguments.user is not None:
        for path in (history, *history.iterdir()):
            os.chown(path, arguments.user, arguments.user)
        os.setgroups([])
        os.setgid(arguments.user)
        os.setuid(arguments.user)
    command = [sys.executable, "-m", "gateway", "serve"]
    os.execve(command[0], command, {**os.environ, **settings})  # noqa: S606


if __name__ == "__main__":
    main()
