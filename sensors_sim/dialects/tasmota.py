"""How Tasmota speaks."""

# ruff: noqa: D102  the base describes the methods

import math
import time

from sensors_sim.dialects.base import Dialect, Speaker, as_float, json_bytes, mac, rounded, tidy, whole
from sensors_sim.kind import Readings
from sensors_sim.messages import Message
from sensors_sim.model.electricity import Meter
from sensors_sim.model.weather import dew_point, saturation_vapour_pressure


class Tasmota(Dialect):
    """Tasmota's telemetry with its default full topic ``%prefix%/%topic%/``.

    ``tele/<id>/LWT`` Online or Offline, retained; ``tele/<id>/SENSOR`` with an object for each chip;
    ``tele/<id>/STATE``. Of ENERGY, Total, Today (since midnight of the model's clock) and Yesterday are kWh, Period the
    Wh since the last telemetry.

    ``tasmota/discovery/<mac>/config`` and ``sensors``, retained, are what Home Assistant finds it by; the second comes
    with the first telemetry since it was switched on.

    Source: Tasmota documentation, pages MQTT, Deep Sleep (STATE), SCD40, BME280, BH1750, Power Monitoring and
    Discovery; configurations that versions 13 and 14 publish.
    """

    name = "tasmota"

    def topics(self, device: Speaker) -> list[str]:
        return [f"tele/{device.id}/#", f"{self._discovery(device)}/#"]

    def will(self, device: Speaker) -> Message | None:
        return Message(f"tele/{device.id}/LWT", b"Offline", 1, True)

    def birth(self, device: Speaker) -> list[Message]:
        is_switch = device.kind_name == "plug"
        config = {
            "ip": "192.0.2.1",
            "dn": device.name,
            "fn": [device.name, *[None] * 7],
            "hn": device.id,
            "mac": mac(device.id).upper(),
            "md": device.model,
            "ty": 0,
            "if": 0,
            "ofln": "Offline",
            "onln": "Online",
            "state": ["OFF", "ON", "TOGGLE", "HOLD"],
            "sw": "14.1.0",
            "t": device.id,
            "ft": "%prefix%/%topic%/",
            "tp": ["cmnd", "stat", "tele"],
            "rl": [int(is_switch), *[0] * 31],
            "swc": [-1] * 28,
            "swn": [None] * 28,
            "btn": [0] * 32,
            "so": dict.fromkeys(("4", "11", "13", "17", "20", "30", "68", "73", "82", "114", "117"), 0),
            "lk": 1,
            "lt_st": 0,
            "bat": int(device.runs_on_battery),
            "dslp": 0,
            "sho": [],
            "sht": [],
            "ver": 1,
        }
        online = Message(f"tele/{device.id}/LWT", b"Online", 1, True)
        return [online, Message(f"{self._discovery(device)}/config", json_bytes(config), 0, True)]

    @staticmethod
    def _discovery(device: Speaker) -> str:
        return f"tasmota/discovery/{mac(device.id).upper()}"

    def readings(self, device: Speaker, readings: Readings, ts_ms: int) -> list[Message]:
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ts_ms / 1000))
        up = device.uptime(ts_ms)
        rssi = whole(readings.get("rssi"), -61)
        state = {
            "Time": now,
            "Uptime": f"{up // 86_400}T{up % 86_400 // 3600:02}:{up % 3600 // 60:02}:{up % 60:02}",
            "UptimeSec": up,
            "Heap": 25,
            "SleepMode": "Dynamic",
            "Sleep": 50,
            "LoadAvg": 19,
            "MqttCount": 1,
            **({"POWER": "ON"} if device.kind_name == "plug" else {}),
            "Wifi": {
                "AP": 1,
                "SSId": "simulated",
                "BSSId": mac(device.id, ":"),
                "Channel": 6,
                "Mode": "11n",
                # Tasmota gives quality in %, where -50 dBm is 100 and -100 dBm is 0.
                "RSSI": min(100, max(0, 2 * (rssi + 100))),
                "Signal": rssi,
                "LinkCount": 1,
                "Downtime": "0T00:00:03",
            },
        }
        sensor = {"Time": now, **self._chips(readings, device.meter)}
        messages = [
            Message(f"tele/{device.id}/STATE", json_bytes(state)),
            Message(f"tele/{device.id}/SENSOR", json_bytes(sensor)),
        ]
        if device.seq == 0:
            found = json_bytes({"sn": sensor, "ver": 1})
            messages.append(Message(f"{self._discovery(device)}/sensors", found, 0, True))
        return messages

    @staticmethod
    def _dew_point(climate: dict[str, object]) -> float:
        share = max(1.0, as_float(climate["Humidity"])) / 100
        return dew_point(share * saturation_vapour_pressure(as_float(climate["Temperature"])))

    def _chips(self, readings: Readings, meter: Meter | None) -> dict[str, object]:
        left = {name: value for name, value in readings.items() if name not in ("rssi", "battery")}
        if "power" not in left and "battery" in readings:
            left.pop("voltage", None)
        chips: dict[str, object] = {}
        climate: dict[str, object] = {}
        if "co2" in left:
            co2 = whole(left.pop("co2"), 0)
            climate |= {"CarbonDioxide": co2, "eCO2": co2}
        for field, name, decimals in (("temperature", "Temperature", 1), ("humidity", "Humidity", 1)):
            if field in left:
                climate[name] = rounded(left.pop(field), decimals)
        if "Temperature" in climate and "Humidity" in climate:
            climate["DewPoint"] = round(self._dew_point(climate), 1)
        if "pressure" in left:
            climate["Pressure"] = rounded(left.pop("pressure"), 1)
        if climate:
            is_bare = set(climate) == {"Temperature"}
            chip = "SCD40" if "eCO2" in climate else "BME280" if "Pressure" in climate else "SHT4X"
            chips["DS18B20" if is_bare else chip] = climate
        if "illuminance" in left:
            chips["BH1750"] = {"Illuminance": whole(left.pop("illuminance"), 0)}
        if "pm25" in left:
            chips["SDS0X1"] = {"PM2.5": rounded(left.pop("pm25"), 1)}
        if "power" in left and "energy" in left:
            power, total = as_float(left.pop("power")), as_float(left.pop("energy"))
            volts, amperes = as_float(left.pop("voltage", 230.0)), as_float(left.pop("current", power / 230))
            factor = as_float(left.pop("power_factor", power / (volts * amperes) if amperes else 0.0))
            apparent = volts * amperes
            chips["ENERGY"] = {
                "TotalStartTime": "2026-01-01T00:00:00",
                "Total": round(total, 3),
                "Yesterday": round(meter.yesterday(), 3) if meter else 0.0,
                "Today": round(max(0.0, total - meter.at_midnight()), 3) if meter else 0.0,
                "Period": round(1000 * meter.gained) if meter else 0,
                "Power": round(power),
                "ApparentPower": round(apparent),
                "ReactivePower": round(math.sqrt(max(0.0, apparent**2 - power**2))),
                "Factor": round(min(1.0, factor), 2),
                "Voltage": round(volts),
                "Current": round(amperes, 3),
            }
        if left:
            chips["Simulated"] = {_camel(name): tidy(name, value) for name, value in left.items()}
        if "BME280" in chips:
            chips["PressureUnit"] = "hPa"
        if climate:
            chips["TempUnit"] = "C"
        return chips


def _camel(text: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in text.split("_"))
