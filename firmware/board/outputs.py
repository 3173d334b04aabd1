"""What a board switches and dims: relays, lights, and whatever takes pulses of a width.

One invariant: an output is at its safe value from the moment its pin is an output until a command says otherwise, and
what is told of it is read back from the pin, not remembered.

It leaves to others: which commands come, and when the state is published (app.py).

Source: MicroPython documentation, "Quick reference for the ESP32", GPIO and PWM; Home Assistant's documentation of MQTT
Switch, Light ("Default schema") and Number.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FULL = 65535


class Output:
    """One of them.

    Args:
        spec: One entry of "outputs", checked by settings.py.
        board: Gives pins, see hardware.py.
    """

    def __init__(self, spec: "dict[str, Any]", board: "Any") -> None:
        self.name = spec["name"]
        self.kind = spec["output"]
        self.inverted: bool = spec.get("inverted", False)
        self.safe = int(spec.get("safe", 0))
        self.safe_after = spec.get("safe_after", 0)
        self.highest = 1 if self.kind == "relay" else 100
        if self.kind == "relay":
            self.pin = board.output(spec["pin"], self._level(self.safe))
        else:
            self.pin = board.pwm(spec["pin"], spec.get("frequency", 1000), self._level(self.safe))

    def _level(self, value: int) -> int:
        """What the pin gets for a value; its own inverse."""
        full = 1 if self.kind == "relay" else _FULL
        level = (value * full + self.highest // 2) // self.highest
        return full - level if self.inverted else level

    def check(self, value: "Any") -> int:
        """The value that a command gives.

        Raises:
            ValueError: It is none.
        """
        if self.kind == "relay" and (value is True or value is False):
            return int(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= self.highest:
            expected = "0, 1, false or true" if self.kind == "relay" else "a number from 0 to 100"
            raise ValueError("set: %s takes %s" % (self.name, expected))
        if self.kind == "relay" and value not in (0, 1):
            raise ValueError("set: %s takes 0, 1, false or true" % self.name)
        return int(value + 0.5)

    def put(self, value: int) -> None:
        """Drive the pin."""
        if self.kind == "relay":
            self.pin(self._level(value))
        else:
            self.pin.duty_u16(self._level(value))

    def value(self) -> int:
        """What the pin says."""
        if self.kind == "relay":
            level: int = self.pin()
            return level ^ self.inverted
        duty: int = self.pin.duty_u16()
        return ((_FULL - duty if self.inverted else duty) * self.highest + _FULL // 2) // _FULL

    def component(self) -> "dict[str, object]":
        """It, as Home Assistant's discovery takes it, but for its name and topic."""
        shown = "{{ value_json.%s }}" % self.name
        if self.kind == "pwm":
            return {
                "p": "number",
                "min": 0,
                "max": 100,
                "unit_of_measurement": "%",
                "value_template": shown,
                "command_template": '{"set":{"%s":{{ value }}}}' % self.name,
            }
        on, off = ['{"set":{"%s":%d}}' % (self.name, value) for value in (self.highest, 0)]
        if self.kind == "relay":
            return {
                "p": "switch",
                "payload_on": on,
                "payload_off": off,
                "state_on": "1",
                "state_off": "0",
                "value_template": shown,
            }
        return {
            "p": "light",
            "payload_on": on,
            "payload_off": off,
            "state_value_template": "{{ '%s' if value_json.%s > 0 else '%s' }}" % (on, self.name, off),
            "brightness_scale": 100,
            "brightness_value_template": shown,
            "brightness_command_template": '{"set":{"%s":{{ value }}}}' % self.name,
            "on_command_type": "brightness",
        }


class Outputs:
    """All of a board.

    Args:
        specs: "outputs" of the settings.
        board: Gives pins, see hardware.py.
    """

    def __init__(self, specs: "list[dict[str, Any]]", board: "Any") -> None:
        self.all = {spec["name"]: Output(spec, board) for spec in specs}

    def check(self, wanted: "Any") -> "dict[str, int]":
        """What a command `set` asks for.

        Raises:
            ValueError: No object, an unknown name, or a value that its output does not take.
        """
        if not isinstance(wanted, dict) or not wanted:
            raise ValueError('set takes an object such as {"pump": 1}')
        for name in wanted:
            if name not in self.all:
                raise ValueError("set: there is no output '%s': known are %s" % (name, ", ".join(sorted(self.all))))
        return {name: self.all[name].check(wanted[name]) for name in wanted}

    def set(self, values: "dict[str, int]") -> None:
        """Drive the pins of what `check` gave."""
        for name in values:
            self.all[name].put(values[name])

    def readings(self) -> "dict[str, object]":
        """Name to what its pin says."""
        return {name: self.all[name].value() for name in self.all}

    def fields(self) -> "dict[str, dict[str, Any]]":
        """Name to what `meta` says of it."""
        described = {}
        for output in self.all.values():
            described[output.name] = {"min": 0, "max": output.highest, "output": output.kind}
            if output.kind != "relay":
                described[output.name]["unit"] = "%"
        return described

    def components(self) -> "dict[str, dict[str, object]]":
        """Name to its part of Home Assistant's discovery."""
        return {name: self.all[name].component() for name in self.all}

    def make_safe(self, silent_seconds: float) -> "list[str]":
        """Put back to its safe value what has been without the broker for too long; the names of what changed."""
        changed = []
        for output in self.all.values():
            if output.safe_after and silent_seconds > output.safe_after and output.value() != output.safe:
                output.put(output.safe)
                changed.append(output.name)
        return changed
