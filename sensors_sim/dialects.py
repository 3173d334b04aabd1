"""Dialects: in which topics and payloads a device speaks.

Each foreign one follows its project's documentation, named in the class. Commands to a simulated device go to
``sensors/<id>/cmd`` whatever it speaks.
"""

# ruff: noqa: ARG002, D102  methods of a common protocol: not every dialect needs every argument, the base describes them

from __future__ import annotations

import hashlib
import json
import math
import time
from typing import TYPE_CHECKING, ClassVar

from sensors_sim import payloads
from sensors_sim.messages import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sensors_sim.electricity import Meter
    from sensors_sim.fleet import Device
    from sensors_sim.kinds import Readings


class Dialect:
    """What a device publishes, and when."""

    name: ClassVar[str]
    knows_sleep: ClassVar[bool] = False
    """Whether a battery device may leave without being thought dead."""

    def will(self, device: Device) -> Message | None:
        """What the broker publishes when the device dies."""
        raise NotImplementedError

    def birth(self, device: Device) -> list[Message]:
        """What the device says about itself each time it has connected."""
        raise NotImplementedError

    def readings(self, device: Device, readings: Readings, ts_ms: int) -> list[Message]:
        """What it says of one measurement, taken at ``ts_ms`` milliseconds since 1970."""
        raise NotImplementedError

    def description(self, device: Device) -> list[Message]:
        """What of its birth changes with its interval."""
        return []

    def sleep(self, device: Device) -> list[Message]:
        """What it says before it goes to sleep."""
        return []

    def death(self, device: Device) -> list[Message]:
        """What it says when it leaves of its own will."""
        will = self.will(device)
        return [will] if will is not None else []

    def fleet_birth(self, devices: Iterable[Device]) -> list[Message]:
        """What a bridge in front of all devices says."""
        return []

    def fleet_death(self) -> list[Message]:
        """What that bridge says when it stops."""
        return []


class Native(Dialect):
    """The project's own topics, ``sensors/<id>/…``."""

    name = "native"
    knows_sleep = True

    def will(self, device: Device) -> Message | None:
        return Message(payloads.status_topic(device.id), payloads.OFFLINE.encode(), 1, True)

    def birth(self, device: Device) -> list[Message]:
        status = Message(payloads.status_topic(device.id), payloads.ONLINE.encode(), 1, True)
        return [status, *self.description(device)]

    def description(self, device: Device) -> list[Message]:
        return [Message(payloads.meta_topic(device.id), device.meta_payload(), 1, True)]

    def readings(self, device: Device, readings: Readings, ts_ms: int) -> list[Message]:
        return [Message(device.state_topic, payloads.state_payload(readings, device.seq, device.boot, ts_ms=ts_ms), 1)]

    def sleep(self, device: Device) -> list[Message]:
        return [Message(payloads.status_topic(device.id), payloads.SLEEPING.encode(), 1, True)]


class HomeAssistant(Native):
    """The native topics, and a discovery message for Home Assistant.

    Source: Home Assistant, "MQTT", section on device discovery: ``<prefix>/device/<id>/config`` with ``dev``, ``o`` and
    ``cmps``.
    """

    name = "homeassistant"

    def description(self, device: Device) -> list[Message]:
        discovery = payloads.discovery_payload(
            device.id,
            device.spec.name,
            device.kind.model,
            "sensors-sim",
            device.interval,
            device.fields,
            always_listens=not device.sleeps,
        )
        return [Message(payloads.discovery_topic(device.id), discovery, 1, True), *super().description(device)]


class Tasmota(Dialect):
    """Tasmota's telemetry with its default full topic ``%prefix%/%topic%/``.

    ``tele/<id>/LWT`` Online or Offline, retained; ``tele/<id>/SENSOR`` with an object for each chip;
    ``tele/<id>/STATE``. Of ENERGY, Total, Today (since midnight of the model's clock) and Yesterday are kWh, Period the
    Wh since the last telemetry.

    Source: Tasmota documentation, pages MQTT, Deep Sleep (STATE), SCD40, BME280, BH1750 and Power Monitoring.
    """

    name = "tasmota"

    def will(self, device: Device) -> Message | None:
        return Message(f"tele/{device.id}/LWT", b"Offline", 1, True)

    def birth(self, device: Device) -> list[Message]:
        return [Message(f"tele/{device.id}/LWT", b"Online", 1, True)]

    def readings(self, device: Device, readings: Readings, ts_ms: int) -> list[Message]:
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ts_ms / 1000))
        up = device.uptime(ts_ms)
        rssi = _whole(readings.get("rssi"), -61)
        state = {
            "Time": now,
            "Uptime": f"{up // 86_400}T{up % 86_400 // 3600:02}:{up % 3600 // 60:02}:{up % 60:02}",
            "UptimeSec": up,
            "Heap": 25,
            "SleepMode": "Dynamic",
            "Sleep": 50,
            "LoadAvg": 19,
            "MqttCount": 1,
            "Wifi": {
                "AP": 1,
                "SSId": "simulated",
                "BSSId": _mac(device.id, ":"),
                "Channel": 6,
                "Mode": "11n",
                # Tasmota gives quality in %, where -50 dBm is 100 and -100 dBm is 0.
                "RSSI": min(100, max(0, 2 * (rssi + 100))),
                "Signal": rssi,
                "LinkCount": 1,
                "Downtime": "0T00:00:03",
            },
        }
        return [
            Message(f"tele/{device.id}/STATE", _json(state)),
            Message(f"tele/{device.id}/SENSOR", _json({"Time": now, **self._chips(readings, device.meter)})),
        ]

    def _chips(self, readings: Readings, meter: Meter | None) -> dict[str, object]:
        left = {name: value for name, value in readings.items() if name not in ("rssi", "battery")}
        if "power" not in left and "battery" in readings:
            left.pop("voltage", None)
        chips: dict[str, object] = {}
        climate: dict[str, object] = {}
        if "co2" in left:
            co2 = _whole(left.pop("co2"), 0)
            climate |= {"CarbonDioxide": co2, "eCO2": co2}
        for field, name, decimals in (("temperature", "Temperature", 1), ("humidity", "Humidity", 1)):
            if field in left:
                climate[name] = _rounded(left.pop(field), decimals)
        if "Temperature" in climate and "Humidity" in climate:
            climate["DewPoint"] = round(_dew_point(_float(climate["Temperature"]), _float(climate["Humidity"])), 1)
        if "pressure" in left:
            climate["Pressure"] = _rounded(left.pop("pressure"), 1)
        if climate:
            is_bare = set(climate) == {"Temperature"}
            chip = "SCD40" if "eCO2" in climate else "BME280" if "Pressure" in climate else "SHT4X"
            chips["DS18B20" if is_bare else chip] = climate
        if "illuminance" in left:
            chips["BH1750"] = {"Illuminance": _whole(left.pop("illuminance"), 0)}
        if "pm25" in left:
            chips["SDS0X1"] = {"PM2.5": _rounded(left.pop("pm25"), 1)}
        if "power" in left and "energy" in left:
            power, total = _float(left.pop("power")), _float(left.pop("energy"))
            volts, amperes = _float(left.pop("voltage", 230.0)), _float(left.pop("current", power / 230))
            factor = _float(left.pop("power_factor", power / (volts * amperes) if amperes else 0.0))
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
            chips["Simulated"] = {_camel(name): _tidy(name, value) for name, value in left.items()}
        if "BME280" in chips:
            chips["PressureUnit"] = "hPa"
        if climate:
            chips["TempUnit"] = "C"
        return chips


class Zigbee2Mqtt(Dialect):
    """Zigbee2MQTT with ``zigbee2mqtt`` as base topic.

    ``zigbee2mqtt/<id>`` with one object, ``zigbee2mqtt/<id>/availability`` and ``zigbee2mqtt/bridge/state`` with
    ``{"state": …}``, retained, and the retained list ``zigbee2mqtt/bridge/devices``. Voltage of a battery is in mV.

    Source: Zigbee2MQTT documentation, "MQTT Topics and Messages", "Device-Availability", and pages of devices
    (WSDCGQ11LM: battery, temperature, humidity, pressure, voltage, linkquality).
    """

    name = "zigbee2mqtt"

    _NAMES: ClassVar[dict[str, str]] = {
        "moisture": "soil_moisture",
        "tvoc": "voc",
        "frequency": "ac_frequency",
    }

    def will(self, device: Device) -> Message | None:
        return Message(f"zigbee2mqtt/{device.id}/availability", b'{"state":"offline"}', 1, True)

    def birth(self, device: Device) -> list[Message]:
        return [Message(f"zigbee2mqtt/{device.id}/availability", b'{"state":"online"}', 1, True)]

    def readings(self, device: Device, readings: Readings, ts_ms: int) -> list[Message]:
        state: dict[str, object] = {}
        runs_on_battery = "battery" in readings
        for name, value in readings.items():
            if name == "rssi":
                continue
            if name == "voltage" and runs_on_battery:
                state["voltage"] = round(_float(value) * 1000)
            elif name == "occupancy":
                continue
            elif name == "motion":
                state["occupancy"] = bool(value)
            else:
                state[self._NAMES.get(name, name)] = _tidy(name, value)
        state["linkquality"] = min(255, max(0, round((_whole(readings.get("rssi"), -65) + 100) * 3.6)))
        return [Message(f"zigbee2mqtt/{device.id}", _json(state))]

    def fleet_birth(self, devices: Iterable[Device]) -> list[Message]:
        known: list[object] = [
            {
                "ieee_address": "0x00124b0012014400",
                "type": "Coordinator",
                "network_address": 0,
                "supported": False,
                "friendly_name": "Coordinator",
                "endpoints": {},
                "definition": None,
                "power_source": None,
                "date_code": None,
                "model_id": None,
                "scenes": [],
                "interviewing": False,
                "interview_completed": True,
            }
        ]
        for number, device in enumerate(devices, 1):
            known.append(
                {
                    "ieee_address": "0x00158d00" + _mac(device.id)[4:],
                    "type": "EndDevice" if device.kind.sleeps else "Router",
                    "network_address": number,
                    "supported": True,
                    "friendly_name": device.id,
                    "endpoints": {"1": {"bindings": [], "configured_reportings": [], "clusters": {}}},
                    "definition": {
                        "model": device.kind.model,
                        "vendor": "Simulated",
                        "description": device.spec.name,
                        "options": [],
                        "exposes": [self._exposed(field, meta or {}) for field, meta in device.fields.items()],
                    },
                    "power_source": "Battery" if "battery" in device.fields else "Mains (single phase)",
                    "date_code": "",
                    "model_id": device.kind.name,
                    "scenes": [],
                    "interviewing": False,
                    "interview_completed": True,
                }
            )
        return [
            Message("zigbee2mqtt/bridge/state", b'{"state":"online"}', 1, True),
            Message("zigbee2mqtt/bridge/devices", _json(known), 1, True),
        ]

    def fleet_death(self) -> list[Message]:
        return [Message("zigbee2mqtt/bridge/state", b'{"state":"offline"}', 1, True)]

    def _exposed(self, field: str, differences: Mapping[str, object]) -> dict[str, object]:
        meta = payloads.field_meta(field, dict(differences))
        name = {"rssi": "linkquality", "motion": "occupancy"}.get(field, self._NAMES.get(field, field))
        # access 1: published in the state
        exposed: dict[str, object] = {"access": 1, "name": name, "property": name, "label": _label(name)}
        if field == "motion":
            return exposed | {"type": "binary", "value_on": True, "value_off": False}
        exposed["type"] = "numeric"
        if field == "rssi":
            return exposed | {"unit": "lqi", "value_min": 0, "value_max": 255}
        if "unit" in meta:
            exposed["unit"] = meta["unit"]
        return exposed


class EspHome(Dialect):
    """ESPHome's MQTT component with its defaults: the node's name as prefix.

    ``<id>/status`` online or offline, retained; ``<id>/sensor/<name>/state`` with the bare number, QoS 0, retained;
    discovery messages for Home Assistant, retained, with abbreviations. Unique ids are those of its generator ``mac``
    (address, component, FNV-1 hash of the name), for those of ``legacy`` differ only inside one device.

    Source: ESPHome documentation, "MQTT Client Component".
    """

    name = "esphome"

    def will(self, device: Device) -> Message | None:
        return Message(f"{device.id}/status", b"offline", 0, True)

    def birth(self, device: Device) -> list[Message]:
        messages = [Message(f"{device.id}/status", b"online", 0, True)]
        mac = _mac(device.id)
        about = {
            "ids": mac,
            "name": device.spec.name,
            "sw": "sensors-sim",
            "mdl": device.kind.model,
            "mf": "Simulated",
            "cns": [["mac", mac]],
        }
        for field, differences in device.fields.items():
            component, name = self._component(field), self._object_id(field)
            meta = payloads.field_meta(field, dict(differences or {}))
            config: dict[str, object] = {}
            if "device_class" in meta and component == "sensor":
                config["dev_cla"] = meta["device_class"]
            if component == "binary_sensor":
                config["dev_cla"] = "motion"
            else:
                if "unit" in meta:
                    config["unit_of_meas"] = meta["unit"]
                config["stat_cla"] = "total_increasing" if field == "energy" else "measurement"
            config |= {
                "name": _label(name),
                "stat_t": f"{device.id}/{component}/{name}/state",
                "avty_t": f"{device.id}/status",
                "uniq_id": f"{mac}-{component}-{_fnv1(_label(name)):08x}",
                "dev": about,
            }
            topic = f"homeassistant/{component}/{device.id}/{name}/config"
            messages.append(Message(topic, _json(config), 0, True))
        return messages

    def readings(self, device: Device, readings: Readings, ts_ms: int) -> list[Message]:
        messages = []
        for name, value in readings.items():
            if name == "motion":
                payload = b"ON" if value else b"OFF"
            else:
                payload = _plain(name, value)
            topic = f"{device.id}/{self._component(name)}/{self._object_id(name)}/state"
            messages.append(Message(topic, payload, 0, True))
        return messages

    @staticmethod
    def _component(field: str) -> str:
        return "binary_sensor" if field == "motion" else "sensor"

    @staticmethod
    def _object_id(field: str) -> str:
        return {"rssi": "wifi_signal", "pm25": "pm_2_5"}.get(field, field)


class Homie(Dialect):
    """Homie 5: every property a retained topic, the device described in ``$description``.

    ``homie/5/<id>/$state`` init, ready, sleeping, disconnected or, by will, lost. Ids have no underscore.

    Source: The Homie Convention, version 5, sections on topic ids, device attributes, life cycle, properties and units.
    """

    name = "homie"
    knows_sleep = True
    NODE = "readings"

    def will(self, device: Device) -> Message | None:
        return Message(f"{self._base(device)}/$state", b"lost", 1, True)

    def birth(self, device: Device) -> list[Message]:
        properties: dict[str, object] = {}
        for field, differences in device.fields.items():
            meta = payloads.field_meta(field, dict(differences or {}))
            known: dict[str, object] = {"name": _label(field), "datatype": self._datatype(field)}
            if field != "motion":
                if "min" in meta and "max" in meta:
                    known["format"] = f"{meta['min']}:{meta['max']}"
                if "unit" in meta:
                    known["unit"] = "#" if meta["unit"] == "persons" else meta["unit"]
            properties[_homie_id(field)] = known
        description: dict[str, object] = {
            "homie": "5.0",
            "version": 1,
            "name": device.spec.name,
            "nodes": {self.NODE: {"name": "Readings", "properties": properties}},
        }
        # A new version whenever it changes; the text itself tells that.
        description["version"] = int(hashlib.sha256(_json(description)).hexdigest()[:8], 16)
        base = self._base(device)
        return [
            Message(f"{base}/$state", b"init", 1, True),
            Message(f"{base}/$description", _json(description), 1, True),
            Message(f"{base}/$state", b"ready", 1, True),
        ]

    def readings(self, device: Device, readings: Readings, ts_ms: int) -> list[Message]:
        base = f"{self._base(device)}/{self.NODE}"
        messages = []
        for name, value in readings.items():
            payload = (b"true" if value else b"false") if name == "motion" else _plain(name, value)
            messages.append(Message(f"{base}/{_homie_id(name)}", payload, 1, True))
        return messages

    def sleep(self, device: Device) -> list[Message]:
        return [Message(f"{self._base(device)}/$state", b"sleeping", 1, True)]

    def death(self, device: Device) -> list[Message]:
        return [Message(f"{self._base(device)}/$state", b"disconnected", 1, True)]

    @staticmethod
    def _base(device: Device) -> str:
        return f"homie/5/{_homie_id(device.id)}"

    @staticmethod
    def _datatype(field: str) -> str:
        if field == "motion":
            return "boolean"
        return "integer" if field in payloads.FIELDS and payloads.FIELDS[field][4] == 0 else "float"


class SenML(Native):
    """Sensor Measurement Lists as JSON on ``sensors/<id>/senml``; status and meta as in the native dialect.

    A pack begins with a record that has the base name ``urn:dev:mac:…:`` and the base time in seconds; names are the
    fields, units those of the SenML registry, into which values are converted where it has no unit of ours. MQTT topics
    are not part of the standard.

    Source: RFC 8428, sections 4.1, 4.3, 5 and 12.1; secondary units of RFC 8798; names of devices of RFC 9039.
    """

    name = "senml"

    UNITS: ClassVar[dict[str, tuple[str, float]]] = {
        "°C": ("Cel", 1),
        "hPa": ("hPa", 1),
        "ppm": ("ppm", 1),
        "lx": ("lx", 1),
        "dB": ("dB", 1),
        "V": ("V", 1),
        "A": ("A", 1),
        "W": ("W", 1),
        "kWh": ("kWh", 1),
        "Hz": ("Hz", 1),
        "dBm": ("dBm", 1),
        "m": ("m", 1),
        "mm": ("mm", 1),
        "km/h": ("km/h", 1),
        "µg/m³": ("ug/m3", 1),
        "mm/s": ("m/s", 0.001),
        "g": ("m/s2", 9.80665),
        "rpm": ("1/min", 1),
        "persons": ("count", 1),
        "mV": ("mV", 1),
        "L/min": ("l/s", 1 / 60),
    }
    """Our unit to the registry's, and by what to multiply."""

    BY_FIELD: ClassVar[dict[str, tuple[str, float]]] = {
        "humidity": ("%RH", 1),
        "battery": ("%EL", 1),
        "moisture": ("/100", 1),
        "latitude": ("lat", 1),
        "longitude": ("lon", 1),
        "heading": ("rad", math.pi / 180),
        "tvoc": ("ppm", 0.001),
        "power_factor": ("/", 1),
    }

    def readings(self, device: Device, readings: Readings, ts_ms: int) -> list[Message]:
        pack: list[dict[str, object]] = []
        for name, value in readings.items():
            record: dict[str, object] = {"n": name}
            if name == "motion":
                record["vb"] = bool(value)
            elif isinstance(value, bool):
                record["vb"] = value
            elif isinstance(value, (int, float)):
                unit, factor = self._unit(name, device)
                if unit:
                    record["u"] = unit
                tidy = _tidy(name, value)
                record["v"] = tidy if factor == 1 else float(f"{_float(value) * factor:.6g}")
            else:
                record["vs"] = str(value)
            pack.append(record)
        if pack:
            pack[0] = {"bn": f"urn:dev:mac:{_eui64(device.id)}:", "bt": ts_ms / 1000, **pack[0]}
        return [Message(f"sensors/{device.id}/senml", _json(pack), 1)]

    def _unit(self, field: str, device: Device) -> tuple[str, float]:
        if field in self.BY_FIELD:
            return self.BY_FIELD[field]
        meta = payloads.field_meta(field, dict(device.fields.get(field) or {}))
        return self.UNITS.get(str(meta.get("unit")), ("", 1))


class Shelly(Dialect):
    """Shelly's second generation: status of each component and notifications of its RPC.

    ``<id>/online`` true or false, retained; ``<id>/status/<component>:0`` with the component's status;
    ``<id>/events/rpc`` with ``NotifyStatus``. Energy is in Wh, its last minutes in mWh.

    Source: Shelly API documentation, generation 2: Mqtt, Notifications, Switch, Temperature, Humidity, DevicePower,
    Illuminance, and a message of a Shelly Plus H&T.
    """

    name = "shelly"

    def will(self, device: Device) -> Message | None:
        return Message(f"{device.id}/online", b"false", 1, True)

    def birth(self, device: Device) -> list[Message]:
        return [Message(f"{device.id}/online", b"true", 1, True)]

    def readings(self, device: Device, readings: Readings, ts_ms: int) -> list[Message]:
        components = self._components(readings, ts_ms, device.meter)
        messages = [
            Message(f"{device.id}/status/{component}", _json(status), 1) for component, status in components.items()
        ]
        notification = {
            "src": device.id,
            "dst": f"{device.id}/events",
            "method": "NotifyStatus",
            "params": {"ts": ts_ms // 10 / 100, **components},
        }
        messages.append(Message(f"{device.id}/events/rpc", _json(notification), 1))
        return messages

    def _components(self, readings: Readings, ts_ms: int, meter: Meter | None) -> dict[str, dict[str, object]]:
        left = {name: value for name, value in readings.items() if name != "rssi"}
        components: dict[str, dict[str, object]] = {}
        if "power" in left:
            power = _float(left.pop("power"))
            volts = _float(left.pop("voltage", 230.0))
            amperes = _float(left.pop("current", power / volts))
            switch: dict[str, object] = {
                "id": 0,
                "source": "init",
                "output": True,
                "apower": round(power, 1),
                "voltage": round(volts, 1),
                "current": round(amperes, 3),
            }
            if "frequency" in left:
                switch["freq"] = round(_float(left.pop("frequency")), 1)
            if "power_factor" in left:
                switch["pf"] = round(_float(left.pop("power_factor")), 2)
            if "energy" in left:
                minutes = (meter.last_minutes() if meter else None) or (power / 60_000,) * 3
                switch["aenergy"] = {
                    "total": round(_float(left.pop("energy")) * 1000, 3),
                    "by_minute": [round(minute * 1e6, 3) for minute in minutes],
                    "minute_ts": ts_ms // 60_000 * 60,
                }
            inside = _float(left.pop("temperature", 38.0 + power / 250))
            switch["temperature"] = {"tC": round(inside, 1), "tF": round(inside * 1.8 + 32, 1)}
            components["switch:0"] = switch
        if "battery" in left:
            components["devicepower:0"] = {
                "id": 0,
                "battery": {
                    "V": round(_float(left.pop("voltage", 3.0)), 2),
                    "percent": _whole(left.pop("battery"), 0),
                },
                "external": {"present": False},
            }
        if "temperature" in left:
            celsius = _float(left.pop("temperature"))
            components["temperature:0"] = {"id": 0, "tC": round(celsius, 1), "tF": round(celsius * 1.8 + 32, 1)}
        if "humidity" in left:
            components["humidity:0"] = {"id": 0, "rh": _rounded(left.pop("humidity"), 1)}
        if "illuminance" in left:
            lux = _whole(left.pop("illuminance"), 0)
            level = "dark" if lux < 30 else "twilight" if lux < 200 else "bright"
            components["illuminance:0"] = {"id": 0, "lux": lux, "illumination": level}
        if "motion" in left:
            components["input:0"] = {"id": 0, "state": bool(left.pop("motion"))}
        # What no component is made for is a number component, as users add them.
        for number, (name, value) in enumerate(left.items(), 200):
            components[f"number:{number}"] = {"value": _tidy(name, value), "source": name}
        return components


def _float(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _whole(value: object, default: int) -> int:
    return round(value) if isinstance(value, (int, float)) and math.isfinite(value) else default


def _rounded(value: object, decimals: int) -> float:
    return round(_float(value), decimals)


def _tidy(field: str, value: object) -> object:
    """A number with as many decimals as the field has, everything else as it is."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and field in payloads.FIELDS:
        decimals = payloads.FIELDS[field][4]
        return round(value, decimals) if decimals else round(value)
    return value


def _plain(field: str, value: object) -> bytes:
    """A value as text without JSON around it."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and field in payloads.FIELDS:
        return payloads.number_text(value, payloads.FIELDS[field][4]).encode()
    return payloads.json_text(value).encode()


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _mac(device_id: str, separator: str = "") -> str:
    """A made-up, locally administered address for a device."""
    digest = bytearray(hashlib.sha256(device_id.encode()).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return separator.join(f"{byte:02X}" for byte in digest) if separator else digest.hex()


def _fnv1(text: str) -> int:
    """The 32-bit hash of Fowler, Noll and Vo, first variant."""
    value = 2_166_136_261
    for byte in text.encode():
        value = value * 16_777_619 & 0xFFFF_FFFF ^ byte
    return value


def _eui64(device_id: str) -> str:
    mac = _mac(device_id)
    return f"{mac[:6]}fffe{mac[6:]}"


def _homie_id(text: str) -> str:
    return text.replace("_", "-")


def _label(text: str) -> str:
    words = text.replace("_", " ")
    return words[:1].upper() + words[1:]


def _camel(text: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in text.split("_"))


def _dew_point(temperature: float, humidity: float) -> float:
    x = math.log(max(humidity, 1.0) / 100) + 17.625 * temperature / (243.04 + temperature)
    return 243.04 * x / (17.625 - x)


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Native(),
        HomeAssistant(),
        Tasmota(),
        Zigbee2Mqtt(),
        EspHome(),
        Homie(),
        SenML(),
        Shelly(),
    )
}
