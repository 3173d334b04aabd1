"""The messages that are published during a benchmark, and how they are found again in a stream of bytes.

Message number `i` of a run goes to device `i % devices` and is that device's `i // devices`-th. Both counts travel in
the payload with a fixed width, and so does the time of publishing; a receiver can therefore prove that nothing was lost
or came twice, and can read the delay, without parsing JSON or frames. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import re

COUNT_BASE = 1_000_000_000
"""Added to every count, so that it always has ten digits."""

NUMBER = re.compile(rb'"n":(\d{10})')
"""Finds the run-wide number of each message."""

DEVICE_COUNT = re.compile(rb'"seq":(\d{10}),')
"""Finds each message's count at its device. An envelope's own `seq` is shorter and is not found."""

NUMBER_WITH_TIME = re.compile(rb'"ts":(\d{10}\.\d{6}),"seq":\d{10},"boot":17,"n":(\d{10})')
DEVICE_COUNT_WITH_TIME = re.compile(rb'"ts":(\d{10}\.\d{6}),"seq":(\d{10}),"boot":17,"n":\d{10}')


def width_of(pattern: re.Pattern[bytes]) -> int:
    """Return how many bytes a match of one of the expressions above has; it is always the same."""
    match = pattern.search(payload(1_790_000_000.123456, 0, 0))
    if match is None:
        raise ValueError(f"{pattern.pattern!r} finds nothing in a payload")
    return len(match[0])


def topic(device: int) -> str:
    """Return the topic of a device's readings."""
    return f"sensors/{device}/state"


def payload(published_at: float, device_count: int, number: int) -> bytes:
    """Return a reading of about 130 bytes in the form of DESIGN.md §5.

    Args:
        published_at: seconds since 1970; six decimals are kept.
        device_count: messages that the same device published before this one.
        number: messages that all devices published before this one.
    """
    return (
        b'{"ts":%.6f,"seq":%d,"boot":17,"n":%d,"temperature":%d.53,"humidity":44.1,"co2":612,"pressure":1013.2,"rssi":-61}'
        % (published_at, COUNT_BASE + device_count, COUNT_BASE + number, 20 + number % 10)
    )


def short_payload(number: int) -> bytes:
    """Return a reading of 16 bytes, which has its number and nothing else; see `payload`."""
    return b'{"n":%d}' % (COUNT_BASE + number)


def messages_of_device(device: int, devices: int, published: int) -> int:
    """Return how many of the first `published` messages of a run went to one device."""
    return (published - device + devices - 1) // devices
