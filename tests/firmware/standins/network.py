"""Stand-in for `network`."""

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


def WLAN(interface):
    if interface == STA_IF and not exists("wifi-networks"):
        return Station()
    import standin_world  # loaded when it is needed, for it lives in the program's memory

    return standin_world.AccessPoint() if interface == AP_IF else standin_world.StationAmong()


class Station:
    def __init__(self):
        self._active = False
        self._wanted = None

    def active(self, on=None):
        if on is None:
            return self._active
        self._active = on
        self._wanted = self._wanted if on else None

    def connect(self, ssid, password=None):
        if not self._active:
            raise OSError("STA must be active")
        self._wanted = ssid, password

    def disconnect(self):
        self._wanted = None

    def scan(self):
        return [
            (b"home", b"\x02\x00\x00\x00\x00\x01", 6, -61, 3, False),
            (b"home", b"\x02\x00\x00\x00\x00\x02", 11, -48, 3, False),
            ("Café".encode(), b"\x02\x00\x00\x00\x00\x03", 1, -80, 0, False),
            (b"", b"\x02\x00\x00\x00\x00\x04", 1, -82, 3, True),
        ]

    def isconnected(self):
        return self._wanted is not None and not exists("wifi-down")

    def status(self, what=None):
        if what == "rssi":
            return -61
        with open("wifi-down") as file:
            return int(file.read() or 201)

    def ifconfig(self):
        return ("192.0.2.7", "255.255.255.0", "192.0.2.1", "192.0.2.1")
