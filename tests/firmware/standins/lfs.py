"""A LittleFS in memory, of which the power can fail at any write; for MicroPython."""

import gc
import os

import vfs

BLOCK = 4096


class PowerCut(BaseException):
    pass


class Flash:
    """A block device; the `fuse`-th write or erase does not happen whole, and nothing does after it."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.data = bytearray(b"\xff" * (BLOCK * blocks))
        self.fuse = -1
        self.writes = 0
        self.dead = False

    def revive(self):
        """Power is back: what the program had open is gone, and its finalisers reach nothing."""
        self.dead = True
        alive = Flash(self.blocks)
        alive.data = self.data
        mount(alive)
        gc.enable()
        gc.collect()
        return alive

    def readblocks(self, block, buffer, offset=0):
        if self.dead:
            return
        start = block * BLOCK + offset
        buffer[:] = self.data[start : start + len(buffer)]

    def _burn(self):
        self.writes += 1
        if self.fuse == 0:
            raise PowerCut
        if self.fuse > 0:
            self.fuse -= 1
            return self.fuse == 0
        return False

    def writeblocks(self, block, buffer, offset=None):
        if self.dead:
            return
        start = block * BLOCK + (offset or 0)
        if offset is None:
            self.ioctl(6, block)
        if self._burn():
            half = len(buffer) // 2
            self.data[start : start + half] = buffer[:half]
            raise PowerCut
        self.data[start : start + len(buffer)] = buffer

    def ioctl(self, op, argument):
        if op == 4:
            return self.blocks
        if op == 5:
            return BLOCK
        if op == 6 and not self.dead:
            if self._burn():
                raise PowerCut
            start = argument * BLOCK
            self.data[start : start + BLOCK] = b"\xff" * BLOCK
            return 0
        return 0


def mount(flash):
    try:
        os.chdir("/")
        vfs.umount("/flash")
    except OSError:
        pass
    vfs.mount(vfs.VfsLfs2(flash), "/flash")
    os.chdir("/flash")


def make(blocks):
    """A new one, mounted; the working directory is its root."""
    flash = Flash(blocks)
    vfs.VfsLfs2.mkfs(flash)
    mount(flash)
    return flash
