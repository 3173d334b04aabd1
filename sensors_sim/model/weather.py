"""The weather of a site, and the formulas of moist air and of the sun.

Time is local time in seconds since 1970, as a wall clock shows it (no zones, no leap seconds).
"""

import math
from typing import NamedTuple

from sensors_sim.model.noise import Waves, generator

DAY = 86_400.0


HOUR = 3_600.0


def saturation_vapour_pressure(temperature: float) -> float:
    """Saturation vapour pressure over water, in hPa, at ``temperature`` in °C.

        e_s = 6.1094 · exp(17.625·T / (T + 243.04))

    Within 0.4 % from -40 to 50 °C.

    Source: the Magnus form with the coefficients of Alduchov and Eskridge, Journal of Applied Meteorology 35 (1996).
    """
    return 6.1094 * math.exp(17.625 * temperature / (temperature + 243.04))


def relative_humidity(temperature: float, vapour_pressure: float) -> float:
    """Relative humidity in %, 0 to 100, from °C and hPa."""
    return min(100.0, max(0.0, 100.0 * vapour_pressure / saturation_vapour_pressure(temperature)))


def dew_point(vapour_pressure: float) -> float:
    """Dew point in °C of air with ``vapour_pressure`` hPa (over 0): the Magnus form solved for T."""
    x = math.log(vapour_pressure / 6.1094)
    return 243.04 * x / (17.625 - x)


def vapour_density(temperature: float, vapour_pressure: float) -> float:
    """Water in the air in g/m³: ρ = 216.7·e/T, the ideal gas law with e in hPa and T in kelvin."""
    return 216.7 * vapour_pressure / (temperature + 273.15)


def vapour_pressure_of(temperature: float, density: float) -> float:
    """Vapour pressure in hPa of ``density`` g/m³ at ``temperature`` °C: ``vapour_density`` solved for e."""
    return density * (temperature + 273.15) / 216.7


def sine_of_sun_height(t: float, latitude: float) -> float:
    """Sine of the sun's height over the horizon, with solar time taken as local time.

        sin h = sin φ·sin δ + cos φ·cos δ·cos ω,  δ = 23.45°·sin(360°·(284+n)/365)

    Source: Cooper, Solar Energy 12 (1969), for the declination δ on day n of the year.
    """
    day = (t / DAY) % 365.2425 + 1
    declination = math.radians(23.45) * math.sin(2 * math.pi * (284 + day) / 365)
    hour_angle = 2 * math.pi * ((t % DAY) / DAY - 0.5)
    phi = math.radians(latitude)
    return math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(hour_angle)


def clear_sky_irradiance(sine_of_height: float) -> float:
    """Global horizontal irradiance under a clear sky, in W/m².

        G = 1098 · sin h · exp(−0.059 / sin h)

    Source: Haurwitz, Journal of Meteorology 2 (1945), as given in Sandia report SAND2012-2389.
    """
    if sine_of_height <= 0.01:
        return 0.0
    return 1098.0 * sine_of_height * math.exp(-0.059 / sine_of_height)


class Outside(NamedTuple):
    """Weather at one moment."""

    temperature: float
    """°C."""
    vapour_pressure: float
    """hPa."""
    pressure: float
    """hPa at the site."""
    cloud: float
    """Share of the sky that is covered, 0 to 1."""
    irradiance: float
    """W/m² on the ground."""

    @property
    def humidity(self) -> float:
        """Relative humidity in %."""
        return relative_humidity(self.temperature, self.vapour_pressure)

    @property
    def illuminance(self) -> float:
        """Lux, at 115 lm/W of daylight (Littlefair, Lighting Research & Technology 17, 1985)."""
        return 115.0 * self.irradiance


class Weather:
    """The weather of one site, a pure function of seed and time.

    Temperature is the yearly cycle (warmest about 20 July), the daily cycle (warmest at 15:00, flatter under cloud) and
    waves of two to nine days for passing fronts. The dew point follows the day's mean. Clouds weaken the sun by
    1 − 0.75·N^3.4 (Kasten and Czeplak, Solar Energy 24, 1980). Pressure has fronts and the tide of twelve hours.

    Args:
        seed: Of the fleet.
        latitude: Degrees north.
        mean: Yearly mean temperature in °C.
        yearly: Half the yearly swing in K.
        daily: Half the daily swing under a clear sky in K.
        altitude: Metres over the sea; pressure falls by 0.115 hPa a metre.
    """

    def __init__(
        self,
        seed: int,
        *,
        latitude: float = 50.0,
        mean: float = 10.5,
        yearly: float = 9.0,
        daily: float = 5.5,
        altitude: float = 110.0,
    ) -> None:
        rng = generator(seed, "weather")
        self.latitude = latitude
        self._mean = mean
        self._yearly = yearly
        self._daily = daily
        self._altitude = altitude
        self._fronts = Waves(rng, 2.1 * DAY, 9 * DAY)
        self._gusts = Waves(rng, 0.15 * HOUR, 2 * HOUR)
        self._clouds = Waves(rng, 0.7 * HOUR, 3 * DAY, 8)
        self._moisture = Waves(rng, 8 * HOUR, 5 * DAY)
        self._pressure = Waves(rng, 2.5 * DAY, 8 * DAY)
        self._memo: dict[float, Outside] = {}

    def at(self, t: float) -> Outside:
        """The weather at ``t``."""
        known = self._memo.get(t)
        if known is not None:
            return known
        if len(self._memo) > 512:
            self._memo.clear()
        cloud = min(1.0, max(0.0, 0.55 + 0.35 * self._clouds.at(t)))
        day = (t / DAY) % 365.2425
        mean = self._mean + self._yearly * math.cos(2 * math.pi * (day - 200) / 365.2425) + 2.5 * self._fronts.at(t)
        hour = (t % DAY) / HOUR
        swing = self._daily * (1 - 0.6 * cloud) * (0.65 + 0.35 * math.cos(2 * math.pi * (day - 185) / 365.2425))
        # A second harmonic makes the morning rise steeper than the evening fall.
        daily = math.cos(2 * math.pi * (hour - 15) / 24) + 0.18 * math.cos(4 * math.pi * (hour - 14.2) / 24)
        temperature = mean + swing * daily + 0.15 * self._gusts.at(t)
        dew = mean - 3.6 + 1.4 * self._moisture.at(t) + 2.0 * (cloud - 0.5)
        vapour_pressure = min(saturation_vapour_pressure(dew), 0.985 * saturation_vapour_pressure(temperature))
        irradiance = clear_sky_irradiance(sine_of_sun_height(t, self.latitude)) * (1 - 0.75 * cloud**3.4)
        pressure = 1015.0 - 0.115 * self._altitude + 5.5 * self._pressure.at(t)
        pressure += 0.6 * math.cos(4 * math.pi * (hour - 10) / 24)
        outside = Outside(temperature, vapour_pressure, pressure, cloud, irradiance)
        self._memo[t] = outside
        return outside

    def soil(self, t: float) -> float:
        """Temperature in °C of the ground two metres down at ``t``.

            T = T_mean + A·exp(−z/d)·cos(2π·(day − 200)/365.2425 − z/d),  d = sqrt(2·α/ω)

        with z = 2 m, α = 6·10⁻⁷ m²/s (moist loam) and ω of a year: d is 2.5 m, so that the yearly swing shrinks to 44 %
        and comes seven weeks late.

        Source: Kusuda and Achenbach, ASHRAE Transactions 71 (1965).
        """
        depth = 2.0 / math.sqrt(6e-7 * 365.2425 * DAY / math.pi)
        angle = 2 * math.pi * ((t / DAY) % 365.2425 - 200) / 365.2425
        return self._mean + self._yearly * math.exp(-depth) * math.cos(angle - depth)
