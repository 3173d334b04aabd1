"""Stand-in for `network`."""

import json
import os

STA_IF, AP_IF = 0, 1


def hostname(name):
    if len(name) > 32:
        raise ValueError


def exists(name):
    try:
        os.stat(name)
    except OSError:
        return False
    return True


def networks():
    """The networks in reach by name, when the world says which; None when every name is one."""
    try:
        with open("wifi-networks") as file:
            return json.load(file)
    except OSError:
        return None


def WLAN(interface):
    if interface == STA_IF:
        return Station()
    from standin_ap import AccessPoint  # loaded when it is needed, for it lives in the program's memory

    return AccessPoint()


class Station:
    def __init__(self):
        self._active = False
        self._wanted = None
        self._key = None

    def active(self, on=None):
        if on is None:
            return self._active
        self._active = on
        self._wanted = self._wanted if on else None

    def connect(self, ssid, password=None):
        if not self._active:
            raise OSError("STA must be active")
        self._wanted, self._key = ssid, password

    def disconnect(self):
        self._wanted = None

    def scan(self):
        there = networks()
        if there is not None:
            names = [name for name in there if not there[name].get("hidden")]
            return [(name.encode(), b"\x02\x00\x00\x00\x00\x05", 6, -60, 3, False) for name in names]
        return [
            (b"home", b"\x02\x00\x00\x00\x00\x01", 6, -61, 3, False),
            (b"home", b"\x02\x00\x00\x00\x00\x02", 11, -48, 3, False),
            ("Café".encode(), b"\x02\x00\x00\x00\x00\x03", 1, -80, 0, False),
            (b"", b"\x02\x00\x00\x00\x00\x04", 1, -82, 3, True),
        ]

    def isconnected(self):
        return self._wanted is not None and not exists("wifi-down") and self._refusal() is None

    def _refusal(self):
        """The radio's status when the network that is wanted is not there, or has another password."""
        there = networks()
        if there is None:
            return None
        if self._wanted not in there:
            return 201
        return None if there[self._wanted].get("password") == self._key else 202

    def status(self, what=None):
        if what == "rssi":
            return -61
        if not exists("wifi-down"):
            return self._refusal()
        with open("wifi-down") as file:
            return int(file.read() or 201)

    def ifconfig(self):
        return ("192.0.2.7", "255.255.255.0", "192.0.2.1", "192.0.2.1")
