"""Stand-in for an I²C bus with a BME280."""

import os
import struct


def _exists(name):
    try:
        os.stat(name)
    except OSError:
        return False
    return True


# The trimming values and raw measurements of the BMP280 data sheet's example (25.08 °C, 100653 Pa); the humidity part
# is one of a real BME280.
_LOW = struct.pack(
    "<HhhHhhhhhhhhbB", 27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000, 0, 75
)
_HIGH = bytes([0x6D, 0x01, 0x00, 0x13, 0x2A, 0x03, 0x1E])
_DATA = bytes([0x65, 0x5A, 0xC0, 0x7E, 0xED, 0x00, 0x6E, 0x00])


class Bus:
    """A bus with a BME280 at 0x76."""

    def __init__(self):
        self.registers = bytearray(256)
        self.registers[0xD0] = 0x60
        self.registers[0x88 : 0x88 + 26] = _LOW
        self.registers[0xE1 : 0xE1 + 7] = _HIGH
        self.registers[0xF7 : 0xF7 + 8] = _DATA

    def readfrom_mem(self, address, register, count):
        if address != 0x76 or _exists("bme280-broken"):
            raise OSError(19)  # ENODEV
        return bytes(self.registers[register : register + count])

    def writeto_mem(self, address, register, data):
        if address != 0x76 or _exists("bme280-broken"):
            raise OSError(19)
