"""Sensors behind one small interface: `create` makes them from the settings, `start` and `read` use them.

One invariant: a driver raises when it has no trustworthy reading (`OSError` from the bus, `SensorError` for what the
sensor said); it never returns a value that failed its checksum or its range.

It leaves to others: when to read, what to do about errors, and how the fields are published.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = (
    "adc",
    "aht20",
    "battery",
    "bh1750",
    "bme280",
    "bme680",
    "dht11",
    "dht22",
    "ds18b20",
    "fake",
    "gpio",
    "hx711",
    "pms5003",
    "pulse",
    "scd30",
    "scd41",
    "sht3x",
    "sht4x",
    "soil",
)


class SensorError(Exception):
    """The sensor answered, but not with a reading that one may believe."""


class Sensor:
    """What every driver is.

    Attributes:
        kind: The driver's name in the settings.
        model: What is built in, for people.
        fields: Names of the values that `read` returns at most.
        minimum_interval_seconds: Reading more often gives nothing new, or disturbs the measurement.
        limit_seconds: After this time a reading counts as failed.
        tuned: What `tune` has changed, as the sensor itself tells it.
        simulated: True when no instrument stands behind the readings.
    """

    kind = "?"
    model = "?"
    fields: "tuple[str, ...]" = ()
    minimum_interval_seconds = 0.0
    limit_seconds = 5.0
    simulated = False
    tuned: "dict[str, float] | None" = None

    async def start(self) -> None:
        """Find and set up the sensor; called before the first `read` and again after a failed one."""

    def changed(self) -> None:
        """Called by a driver that has something to say before its time; the program puts its own here."""

    def tune(self, wanted: "Any") -> None:  # noqa: ARG002
        """Take a command that adjusts the sensor itself; it is carried out with the next reading.

        Raises:
            ValueError: The sensor has no such thing, or not with this value.
        """
        raise ValueError("tune: %s has nothing to tune" % self.kind)

    async def read(self) -> "dict[str, float]":
        """One measurement: field to value, in the units of payloads.FIELDS."""
        raise NotImplementedError


def create(spec: "dict[str, Any]", board: "Any") -> Sensor:
    """Make the sensor that an entry of the settings describes; only its driver is loaded.

    Args:
        spec: One entry of "sensors", checked by settings.py.
        board: Gives buses and pins, see hardware.py.
    """
    kind = spec["driver"]
    if kind not in KINDS:
        raise ValueError("no driver '%s'" % kind)
    package = __name__ + "." + kind
    module = __import__(package, None, None, ("create",))
    sensor: Sensor = module.create(spec, board)
    return sensor


def crc8(data: "bytes | bytearray", polynomial: int, initial: int = 0, reflected: bool = False) -> int:
    """CRC of eight bits: Sensirion's is (0x31, 0xFF), Maxim's 1-Wire one (0x31, 0, reflected)."""
    crc = initial
    for byte in data:
        if reflected:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x8C if crc & 1 else 0)  # 0x31 with its bits in the other order
        else:
            crc ^= byte
            for _ in range(8):
                crc = (crc << 1 ^ (polynomial if crc & 0x80 else 0)) & 0xFF
    return crc
