"""ESPHome's actions as C++ for this computer: the example's own lambdas, run by stand-ins (esphome/README.md).

One invariant: what is published, and with which topic, QoS and retain, comes from the configuration alone.

It leaves to others: whether ESPHome accepts the configuration (ESPHome itself, in test_esphome.py).
"""

from __future__ import annotations

import json
from typing import Any

LOGGED = "uint8_t level, const char *tag, const char *message"
BOARD = """
struct Bme {
  bool warning = false;
  void update() {
    warning = getenv("NO_BME280") != nullptr;
    if (warning) return;
    temperature.set(21.456f);
    humidity.set(getenv("NO_HUMIDITY") ? NAN : 44.14f);
    pressure.set(1006.5327f);
  }
  bool is_failed() const { return false; }
  bool status_has_warning() const { return warning; }
};
struct Signal : Sensor {
  void update() { set(-61); }
};
"""


def program(config: dict[str, Any]) -> str:
    """A whole program; `config` is the configuration with its substitutions made."""
    mqtt = config["mqtt"]
    scripts = {script["id"]: script["then"] for script in config["script"]}
    lines = ['#include "host.h"', "namespace example {", "static Sensor temperature, humidity, pressure;", BOARD]
    lines += ["static Bme bme;", "static Signal signal;", "static Clock network_time;"]
    for variable in config["globals"]:
        value = variable.get("initial_value", "")
        lines.append(f"static {variable['type']} {variable['id']}{{{value}}};")
    lines += [f"static void run_{name}();\nstatic Script {name}{{run_{name}}};" for name in scripts]
    lines += [f"static void run_{name}() {{\n{actions(then)}}}" for name, then in scripts.items()]
    (message,) = mqtt["on_json_message"]
    birth = mqtt["birth_message"]
    value = f"{birth['topic']}\\t{birth['qos']}\\t{int(birth['retain'])}\\t{birth['payload']}\\n"
    lines += [
        f"static void on_boot() {{\n{actions(config['esphome']['on_boot']['then'])}}}",
        f"static void on_wifi() {{\n{actions(config['wifi']['on_connect'])}}}",
        f'static void birth() {{ printf("{value}"); }}',
        f"static void on_connect() {{\n{actions(mqtt['on_connect'])}}}",
        f"static void on_command(const Value &x) {{\n{actions(message['then'])}}}",
        f"static void on_interval() {{\n{actions(config['interval'][0]['then'])}}}",
        f"static void on_message({LOGGED}) {{\n(void)tag;\n{actions(config['logger']['on_message']['then'])}}}",
        "}",
        f"static void on_log({LOGGED}) {{ example::on_message(level, tag, message); }}",
        "using namespace example;",
        '#include "main.h"',
    ]
    return "\n".join(lines)


def actions(steps: list[dict[str, Any]]) -> str:
    """Statements that do these actions one after the other; a loop is gone through once, for the host goes on."""
    return "".join(_statement(name, given) for step in steps for name, given in step.items())


def _statement(name: str, given: Any) -> str:
    match name:
        case "lambda":
            return f"[&]() {{\n{given}\n}}();\n"
        case "script.execute":
            return f"{given}.execute();\n"
        case "component.update":
            return f"{given}.update();\n"
        case "delay":
            text = str(given).removeprefix("!lambda ")
            return f"delay({_lambda(text) if text.startswith('return') else text.removesuffix('ms')});\n"
        case "while":
            return actions(given["then"])
        case "if":
            return f"if ({_lambda(given['condition']['lambda'])}) {{\n{actions(given['then'])}}}\n"
        case "mqtt.publish_json":
            where = f"{json.dumps(given['topic'])}, {given.get('qos', 0)}, {json.dumps(given.get('retain', False))}"
            return f"{{\nValue root;\n[&]() {{\n{given['payload']}\n}}();\npublish({where}, root);\n}}\n"
    raise NotImplementedError(f"the action {name}: teach lambdas.py what it does")


def _lambda(code: str) -> str:
    return f"[&]() {{ {code} }}()"
