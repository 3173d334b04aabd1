"""How Shelly speaks."""

# ruff: noqa: D102  the base describes the methods

from sensors_sim.dialects.base import Dialect, Speaker, as_float, json_bytes, rounded, tidy, whole
from sensors_sim.kind import Readings
from sensors_sim.messages import Message
from sensors_sim.model.electricity import Meter


class Shelly(Dialect):
    """Shelly's second generation: status of each component and notifications of its RPC.

    ``<id>/online`` true or false, retained; ``<id>/status/<component>:0`` with the component's status;
    ``<id>/events/rpc`` with ``NotifyStatus``. Energy is in Wh, its last minutes in mWh.

    Source: Shelly API documentation, generation 2: Mqtt, Notifications, Switch, Temperature, Humidity, DevicePower,
    Illuminance, and a message of a Shelly Plus H&T.
    """

    name = "shelly"

    def topics(self, device: Speaker) -> list[str]:
        return [f"{device.id}/online", f"{device.id}/status/#", f"{device.id}/events/#"]

    def will(self, device: Speaker) -> Message | None:
        return Message(f"{device.id}/online", b"false", 1, True)

    def birth(self, device: Speaker) -> list[Message]:
        return [Message(f"{device.id}/online", b"true", 1, True)]

    def readings(self, device: Speaker, readings: Readings, ts_ms: int) -> list[Message]:
        components = self._components(readings, ts_ms, device.meter)
        messages = [
            Message(f"{device.id}/status/{component}", json_bytes(status), 1)
            for component, status in components.items()
        ]
        notification = {
            "src": device.id,
            "dst": f"{device.id}/events",
            "method": "NotifyStatus",
            "params": {"ts": ts_ms // 10 / 100, **components},
        }
        messages.append(Message(f"{device.id}/events/rpc", json_bytes(notification), 1))
        return messages

    def _components(self, readings: Readings, ts_ms: int, meter: Meter | None) -> dict[str, dict[str, object]]:
        left = {name: value for name, value in readings.items() if name != "rssi"}
        components: dict[str, dict[str, object]] = {}
        if "power" in left:
            power = as_float(left.pop("power"))
            volts = as_float(left.pop("voltage", 230.0))
            amperes = as_float(left.pop("current", power / volts))
            switch: dict[str, object] = {
                "id": 0,
                "source": "init",
                "output": True,
                "apower": round(power, 1),
                "voltage": round(volts, 1),
                "current": round(amperes, 3),
            }
            if "frequency" in left:
                switch["freq"] = round(as_float(left.pop("frequency")), 1)
            if "power_factor" in left:
                switch["pf"] = round(as_float(left.pop("power_factor")), 2)
            if "energy" in left:
                minutes = (meter.last_minutes() if meter else None) or (power / 60_000,) * 3
                switch["aenergy"] = {
                    "total": round(as_float(left.pop("energy")) * 1000, 3),
                    "by_minute": [round(minute * 1e6, 3) for minute in minutes],
                    "minute_ts": ts_ms // 60_000 * 60,
                }
            inside = as_float(left.pop("temperature", 38.0 + power / 250))
            switch["temperature"] = {"tC": round(inside, 1), "tF": round(inside * 1.8 + 32, 1)}
            components["switch:0"] = switch
        if "battery" in left:
            components["devicepower:0"] = {
                "id": 0,
                "battery": {
                    "V": round(as_float(left.pop("voltage", 3.0)), 2),
                    "percent": whole(left.pop("battery"), 0),
                },
                "external": {"present": False},
            }
        if "temperature" in left:
            celsius = as_float(left.pop("temperature"))
            components["temperature:0"] = {"id": 0, "tC": round(celsius, 1), "tF": round(celsius * 1.8 + 32, 1)}
        if "humidity" in left:
            components["humidity:0"] = {"id": 0, "rh": rounded(left.pop("humidity"), 1)}
        if "illuminance" in left:
            lux = whole(left.pop("illuminance"), 0)
            level = "dark" if lux < 30 else "twilight" if lux < 200 else "bright"
            components["illuminance:0"] = {"id": 0, "lux": lux, "illumination": level}
        if "motion" in left:
            components["input:0"] = {"id": 0, "state": bool(left.pop("motion"))}
        # What no component is made for is a number component, as users add them.
        for number, (name, value) in enumerate(left.items(), 200):
            components[f"number:{number}"] = {"value": tidy(name, value), "source": name}
        return components
