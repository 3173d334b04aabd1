"""What the firmware makes of the radio; whole outages are in test_on_micropython.py."""

from __future__ import annotations

import pytest

from firmware.board.wifi import Wifi


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (210, "another kind of security"),
        (211, "security is weaker"),
        (212, "too far away"),
        (202, "wrong password"),
        (1000, "no answer: wrong password"),
        (1001, "no answer: wrong password"),
    ],
)
async def test_each_state_of_the_radio_is_told_by_name(status: int, text: str) -> None:
    class Radio:
        def active(self, on: bool | None = None) -> bool:
            return True

        def disconnect(self) -> None: ...

        def connect(self, ssid: str, password: str | None) -> None: ...

        def isconnected(self) -> bool:
            return False

        def status(self) -> int:
            return status

    wifi = Wifi(Radio(), "home", "12345678", limit_seconds=0)
    assert not await wifi.ready()
    assert text in str(wifi.reason)
    assert str(status) not in str(wifi.reason)
