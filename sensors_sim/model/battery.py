"""Batteries that run down."""

import itertools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """A kind of battery."""

    name: str
    capacity: float
    """mAh."""
    resistance: float
    """Ω inside, at half charge."""
    curve: tuple[tuple[float, float], ...]
    """Share of the charge left and open-circuit voltage, falling."""


CELLS = {
    cell.name: cell
    for cell in (
        # Curves follow the discharge figures in the data sheets of Panasonic NCR18650B, two Energizer E91 in series,
        # and Energizer CR2032.
        Cell(
            "18650", 3200, 0.05,
            ((1, 4.18), (0.9, 4.06), (0.8, 3.97), (0.6, 3.82), (0.4, 3.70), (0.2, 3.57), (0.1, 3.45), (0.05, 3.30),
             (0, 2.90)),
        ),
        Cell(
            "2xAA", 2600, 0.35,
            ((1, 3.16), (0.9, 2.92), (0.8, 2.80), (0.6, 2.62), (0.4, 2.48), (0.2, 2.30), (0.1, 2.12), (0, 1.80)),
        ),
        Cell(
            "CR2032", 225, 14.0,
            ((1, 3.02), (0.9, 2.98), (0.5, 2.92), (0.2, 2.82), (0.1, 2.70), (0.05, 2.50), (0, 2.0)),
        ),
    )
}  # fmt: skip


class Battery:
    """A battery under the load of a sensor.

        q(t) = q₀ − (I_sleep·(t − t₀) + N·Q_wake) / C,   U = U_oc(q) − I_wake·R

    after N readings, however far apart: a command may change the interval at any time. Below 20 °C, R grows by 2 %/K
    and U_oc falls by 0.4 mV/K. An empty battery is replaced: q starts again at 1.

    Args:
        cell: Which.
        charge: q₀, share of the charge left at the start, 0 to 1.
        start: t₀.
        sleep_current: I_sleep in mA.
        wake_charge: Q_wake in mA·s that one reading with its transmission takes.
        wake_current: I_wake in mA while transmitting, when the voltage is measured.
    """

    __slots__ = ("_cell", "_sag", "_sleep", "_t", "_wake", "charge")

    def __init__(
        self,
        cell: Cell,
        charge: float,
        start: float,
        *,
        sleep_current: float,
        wake_charge: float,
        wake_current: float,
    ) -> None:
        self._cell = cell
        self._t = start
        self._sleep = sleep_current / 3600 / cell.capacity
        self._wake = wake_charge / 3600 / cell.capacity
        self._sag = wake_current / 1000 * cell.resistance
        self.charge = charge
        """Share of the charge that is left, over 0 to 1."""

    def read(self, t: float) -> None:
        """Take the charge of a reading at ``t``, and of the sleep since the last one."""
        left = self.charge - self._sleep * max(0.0, t - self._t) - self._wake
        self._t = t
        self.charge = left if left > 0 else 1 - (-left) % 1

    def voltage(self, temperature: float = 20.0) -> float:
        """Volts at its terminals during a transmission, at ``temperature`` in °C."""
        left = self.charge
        curve = self._cell.curve
        open_circuit = curve[-1][1]
        for (above, high), (below, low) in itertools.pairwise(curve):
            if left >= below:
                open_circuit = low + (high - low) * min(1.0, (left - below) / (above - below))
                break
        return open_circuit - self._sag * (1 + 0.02 * max(0.0, 20 - temperature)) - 0.0004 * max(0.0, 20 - temperature)
