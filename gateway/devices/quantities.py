"""What a name of a member or a level measures, where everybody calls it so: `humidity`, `PM2.5`, `co2`.

Invariant: a unit stands here only where there is but one in use. That of a temperature is not known by its name.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Quantity", "quantity_of"]


class Quantity(NamedTuple):
    """A quantity.

    Attributes:
        device_class: in Home Assistant's words; "" where it has none.
        unit: the one in use; "" where there are several, or none.
    """

    device_class: str
    unit: str = ""


_TABLE: dict[str, Quantity] = {
    "temperature": Quantity("temperature"),
    "temp": Quantity("temperature"),
    "dewpoint": Quantity("temperature"),
    "devicetemperature": Quantity("temperature"),
    "humidity": Quantity("humidity", "%"),
    "hum": Quantity("humidity", "%"),
    "pressure": Quantity("atmospheric_pressure"),
    "sealevelpressure": Quantity("atmospheric_pressure"),
    "co2": Quantity("carbon_dioxide", "ppm"),
    "eco2": Quantity("carbon_dioxide", "ppm"),
    "carbondioxide": Quantity("carbon_dioxide", "ppm"),
    "co": Quantity("carbon_monoxide", "ppm"),
    "tvoc": Quantity("volatile_organic_compounds_parts", "ppb"),
    "voc": Quantity("volatile_organic_compounds"),
    "pm1": Quantity("pm1", "µg/m³"),
    "pm25": Quantity("pm25", "µg/m³"),
    "pm10": Quantity("pm10", "µg/m³"),
    "aqi": Quantity("aqi"),
    "illuminance": Quantity("illuminance", "lx"),
    "illuminancelux": Quantity("illuminance", "lx"),
    "lux": Quantity("illuminance", "lx"),
    "moisture": Quantity("moisture", "%"),
    "soilmoisture": Quantity("moisture", "%"),
    "battery": Quantity("battery", "%"),
    "batterylevel": Quantity("battery", "%"),
    "batteryvoltage": Quantity("voltage"),
    "voltage": Quantity("voltage"),
    "current": Quantity("current"),
    "power": Quantity("power", "W"),
    "apparentpower": Quantity("apparent_power", "VA"),
    "reactivepower": Quantity("reactive_power", "var"),
    "powerfactor": Quantity("power_factor"),
    "factor": Quantity("power_factor"),
    "energy": Quantity("energy"),
    "frequency": Quantity("frequency", "Hz"),
    "acfrequency": Quantity("frequency", "Hz"),
    "rssi": Quantity("signal_strength", "dBm"),
    "wifisignal": Quantity("signal_strength", "dBm"),
    "linkquality": Quantity("", "lqi"),
    "soundpressure": Quantity("sound_pressure", "dB"),
    "noise": Quantity("sound_pressure", "dB"),
    "distance": Quantity("distance"),
    "speed": Quantity("speed"),
    "windspeed": Quantity("wind_speed"),
    "winddirection": Quantity("wind_direction", "°"),
    "rainfall": Quantity("precipitation"),
    "precipitation": Quantity("precipitation"),
    "uvindex": Quantity(""),
    "irradiance": Quantity("irradiance", "W/m²"),
    "flow": Quantity("volume_flow_rate"),
    "weight": Quantity("weight"),
    "ph": Quantity("ph"),
    "conductivity": Quantity("conductivity"),
    "motion": Quantity("motion"),
    "occupancy": Quantity("occupancy"),
    "contact": Quantity("opening"),
}

_DROPPED = str.maketrans("", "", "_-. ")


def quantity_of(name: str) -> Quantity | None:
    """The quantity of that name, in any of the usual spellings (`PM2.5`, `pm_2_5`, `Pm25`); None where it is none."""
    if len(name) > 32:
        return None
    return _TABLE.get(name.translate(_DROPPED).lower())
