"""Stand-in for `dht`: 21.4 °C, 55.2 %."""

import os


def _exists(name):
    try:
        os.stat(name)
    except OSError:
        return False
    return True


class DHT22:
    def __init__(self, pin):
        self.buf = bytearray(5)

    def measure(self):
        while _exists("dht22-hangs"):
            pass
        if _exists("dht22-broken"):
            raise OSError(110)  # ETIMEDOUT
        self.buf[:] = bytes([0x02, 0x28, 0x00, 0xD6, 0x00])
        self.buf[4] = sum(self.buf[:4]) & 0xFF
