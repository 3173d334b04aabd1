"""Stand-in for `ds18x20`: one probe at 25.0625 °C."""


class DS18X20:
    def __init__(self, wire):
        self.wire = wire

    def scan(self):
        return [bytearray(b"\x28\xff\x64\x1e\x0f\x16\x03\x5c")]

    def convert_temp(self):
        pass

    def read_scratch(self, rom):
        data = bytearray([0x91, 0x01, 0x4B, 0x46, 0x7F, 0xFF, 0x0F, 0x10])
        crc = 0
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
        return data + bytes([crc])
