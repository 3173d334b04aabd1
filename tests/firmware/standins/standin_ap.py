"""Stand-in for `network.WLAN` as an access point."""

import json
import os

from network import exists


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
