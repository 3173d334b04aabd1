"""Runs the sensor's main.py from a file system in `flash.img`, which MicroPython mounts as an ESP32 does."""

import os
import sys

import vfs

HERE = __file__.rsplit("/", 1)[0]
BLOCK_BYTES = 4096


class Flash:
    """A partition, as `esp32.Partition` gives it: extended interface, erased blocks are 0xFF."""

    def __init__(self, path, size):
        self.file = open(path, "r+b")  # noqa: SIM115 - as long as the board runs
        self.size = size

    def readblocks(self, number, buffer, offset=0):
        self.file.seek(number * BLOCK_BYTES + offset)
        count = self.file.readinto(buffer) or 0
        for position in range(count, len(buffer)):
            buffer[position] = 0xFF

    def writeblocks(self, number, buffer, offset=None):
        if offset is None:
            self.ioctl(6, number)
            offset = 0
        self.file.seek(number * BLOCK_BYTES + offset)
        self.file.write(buffer)
        self.file.flush()

    def ioctl(self, operation, argument):
        if operation == 4:
            return self.size // BLOCK_BYTES
        if operation == 5:
            return BLOCK_BYTES
        if operation == 6:
            self.file.seek(argument * BLOCK_BYTES)
            self.file.write(b"\xff" * BLOCK_BYTES)
        return 0


with open("flash-bytes") as told:
    flash = Flash("flash.img", int(told.read()))
given = None
try:
    with open("settings.json") as file:
        given = file.read()
except OSError:
    pass
vfs.mount(flash, "/board")  # raises OSError when there is no file system of this size: an ESP32 then makes a new one
os.chdir("/board")
print("mounted", sorted(os.listdir()))
if given is not None:
    with open("settings.json", "w") as file:
        file.write(given)
sys.path[:0] = [HERE]
import start  # noqa: E402, F401
