"""Runs under MicroPython: drivers on wires that answer what asked.json says, and what they make of it."""

import asyncio
import json
import sys

sys.path[:0] = ["", "standins"]
sys.modules["machine"] = __import__("standin_machine")
from board import drivers  # noqa: E402
from board.drivers import hx711  # noqa: E402
from board.hardware import Clocked  # noqa: E402


class Wire:
    """An I²C device: answers one after the other, or a memory of registers."""

    def __init__(self, answers, memory):
        self.answers = [bytes.fromhex(each) for each in answers]
        self.memory = bytes.fromhex(memory)
        self.written = []

    def i2c(self, scl, sda):
        return self

    def writeto(self, address, data):
        self.written.append(bytes(data).hex())

    def readfrom(self, address, count):
        answer = self.answers.pop(0)
        assert len(answer) == count
        return answer

    def readfrom_into(self, address, buffer):
        buffer[:] = self.readfrom(address, len(buffer))

    def readfrom_mem(self, address, register, count):
        return self.memory[register : register + count]

    def writeto_mem(self, address, register, data):
        self.written.append(bytes([register, data[0]]).hex())


class Cell:
    """An HX711: the highest bit first, each after a rising edge, and ready again after the 25th."""

    def __init__(self, count):
        self.count = count & 0xFFFFFF
        self.pulses = 0
        self.level = 0

    def clock(self, level):
        if level and not self.level:
            self.pulses += 1
        self.level = level

    def data(self):
        after = self.pulses % 25
        return self.count >> 24 - after & 1 if after else 0


async def measure(sensor):
    await sensor.start()
    return await sensor.read()


with open("asked.json") as file:
    asked = json.load(file)
found = {}
for kind in asked["i2c"]:
    given = asked["i2c"][kind]
    wire = Wire(given.get("answers", ()), given.get("memory", ""))
    sensor = drivers.create({"driver": kind, "scl": 22, "sda": 21}, wire)
    values = asyncio.run(measure(sensor))
    found[kind] = {"values": values, "written": wire.written, "left": len(wire.answers), "model": sensor.model}
cell = Cell(asked["hx711"])
weight = asyncio.run(measure(hx711.Hx711(Clocked(cell.clock, cell.data))))
found["hx711"] = {"values": weight, "pulses": cell.pulses}
print(json.dumps(found))
