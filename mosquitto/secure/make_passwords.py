#!/usr/bin/env python3
"""Makes passwords for the gateway, for sensors and for a cluster's server, and the files that these read.

Run it again at any time: who has a password keeps it. Passwords are 24 random letters and digits (142 bits), so nobody
can guess one, whatever Mosquitto's file holds. A sensor's id is its user name.

    FOLDER/broker/passwords         for Mosquitto: names and hashes
    FOLDER/gateway/gateway.toml     for GATEWAY_CONFIG: name and password for the broker, secret for access tokens
    FOLDER/gateway/valkey.password  for the server of a cluster
    FOLDER/valkey/valkey.conf       for Valkey: the same
    FOLDER/sensors/passwords        `id:password` a line, to put onto the boards

    make_passwords.py FOLDER esp32-1 esp32-2        adds two sensors
    make_passwords.py FOLDER --new esp32-1          gives one a new password
    make_passwords.py FOLDER --remove esp32-1       takes it away
    make_passwords.py FOLDER --show esp32-1         prints it
    make_passwords.py FOLDER --simulated 10         adds sim-1 … sim-10
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import secrets
import string
import sys
import tomllib
from pathlib import Path

from whole_files import write

# PBKDF2 with SHA-512, Mosquitto's format 7. Slow hashing protects weak passwords, of which there are none here; the
# broker would pay for it at every connection of every sensor.
ROUNDS = 1_000
LETTERS = string.ascii_letters + string.digits
LENGTH = 24
GATEWAY = "gateway"


def hashed(password: str, salt: bytes | None = None, rounds: int = ROUNDS) -> str:
    """The hash of a password as Mosquitto's password file holds it."""
    salt = salt or os.urandom(12)
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds, 64)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


def is_right(password: str, text: str) -> bool:
    """Whether a hash of `hashed` is that of this password."""
    found = re.fullmatch(r"\$7\$(\d+)\$([^$]+)\$([^$]+)", text)
    if not found:
        return False
    return secrets.compare_digest(hashed(password, base64.b64decode(found[2]), int(found[1])), text)


def new_password() -> str:
    """A password that nobody will guess and that needs no quoting anywhere."""
    return "".join(secrets.choice(LETTERS) for _ in range(LENGTH))


def read(path: Path) -> dict[str, str]:
    """The names and values of a file of `name:value` lines; nothing where there is no file."""
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def gateway_password(path: Path) -> str:
    """The gateway's password, from its settings file, which is made if there is none."""
    if path.exists():
        password = tomllib.loads(path.read_text()).get("mqtt", {}).get("password")
        if not isinstance(password, str):
            raise SystemExit(f"{path}: has no [mqtt] password; put one there, or remove the file for a new one")
        return password
    password = new_password()
    text = (
        "# Made by make_passwords.py; what else you add here is kept.\n\n"
        f'[mqtt]\nusername = "{GATEWAY}"\npassword = "{password}"\n\n'
        f'[access]\nsecret = "{secrets.token_hex(32)}"\n'
    )
    write(path, text.encode(), secret=True)
    return password


def make_valkey_password(folder: Path) -> None:
    """The password of a cluster's server, as the gateway and the server read it, made if there is none."""
    path = folder / "gateway" / "valkey.password"
    if not path.exists():
        write(path, new_password().encode(), secret=True)
    configuration = folder / "valkey" / "valkey.conf"
    text = f"requirepass {path.read_text().strip()}\n"
    if not configuration.exists() or configuration.read_text() != text:
        write(configuration, text.encode(), secret=True)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where everything goes")
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids of sensors")
    parser.add_argument("--new", action="store_true", help="give them new passwords")
    parser.add_argument("--remove", action="store_true", help="take them away")
    parser.add_argument("--show", action="store_true", help="print their passwords")
    parser.add_argument("--simulated", type=int, default=0, metavar="N", help="add sim-1 … sim-N")
    arguments = parser.parse_intermixed_args(argv)
    for name in arguments.ids:
        if not re.fullmatch(r"[a-z0-9_-]{1,64}", name):
            # Mosquitto fills the name into its rules: a '/' or a wildcard in it would reach other sensors' topics
            parser.error(f"id {name!r}: must be 1 to 64 of a–z, 0–9, '_' and '-'")
        if name == GATEWAY:
            parser.error(f"id {name!r}: is the gateway's, not a sensor's")
    folder: Path = arguments.folder
    known = read(folder / "sensors" / "passwords")
    if arguments.remove:
        known = {name: value for name, value in known.items() if name not in arguments.ids}
    else:
        for name in arguments.ids:
            if name not in known or arguments.new:
                known[name] = new_password()
    for number in range(1, arguments.simulated + 1):
        known.setdefault(f"sim-{number}", new_password())
    users = {GATEWAY: gateway_password(folder / "gateway" / "gateway.toml"), **known}
    make_valkey_password(folder)
    former = read(folder / "broker" / "passwords")
    # a hash is kept while it is right, so that the file changes only when a password does
    hashes = {
        name: former[name] if is_right(password, former.get(name, "")) else hashed(password)
        for name, password in users.items()
    }
    for part, values in (("sensors", known), ("broker", hashes)):
        text = "".join(f"{name}:{value}\n" for name, value in values.items())
        write(folder / part / "passwords", text.encode(), secret=True)
    if arguments.show:
        for name in arguments.ids:
            sys.stdout.write(f"{name}:{known.get(name, '(none)')}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
