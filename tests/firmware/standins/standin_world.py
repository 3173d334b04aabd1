"""Stand-ins for `network.WLAN` where the world says which networks there are, and as an access point."""

import json
import os

from network import Station, exists


def networks():
    """The networks in reach by name."""
    with open("wifi-networks") as file:
        return json.load(file)


class StationAmong(Station):
    """Joins those alone that the world has; an address that it was told stays until it is switched off."""

    def __init__(self):
        Station.__init__(self)
        self._static = None

    def active(self, on=None):
        if on is False:
            self._static = None
        return Station.active(self, on)

    def ifconfig(self, addresses=None):
        self._static = addresses or self._static
        return self._static or Station.ifconfig(self)

    def scan(self):
        there = networks()
        names = [name for name in there if not there[name].get("hidden")]
        return [(name.encode(), b"\x02\x00\x00\x00\x00\x05", 6, -60, 3, False) for name in names]

    def isconnected(self):
        return Station.isconnected(self) and self._refusal() is None

    def _refusal(self):
        """The radio's status when the network that is wanted is not there, or has another password."""
        there = networks()
        name, key = self._wanted or (None, None)
        if name not in there:
            return 201
        return None if there[name].get("password") == key else 202

    def status(self, what=None):
        if what == "rssi" or exists("wifi-down"):
            return Station.status(self, what)
        return self._refusal()


class AccessPoint:
    """What it was told stands in the file `ap` while it is open; somebody is connected while `ap-used` is there."""

    def active(self, on):
        if on:
            with open("ap", "w") as file:
                file.write("{}")
        elif exists("ap"):
            os.remove("ap")

    def config(self, **wanted):
        if not exists("ap"):
            raise OSError("AP must be active")
        with open("ap", "w") as file:
            file.write(json.dumps(wanted))

    def isconnected(self):
        return exists("ap-used")

    def ifconfig(self):
        return ("192.168.4.1", "255.255.255.0", "192.168.4.1", "0.0.0.0")
