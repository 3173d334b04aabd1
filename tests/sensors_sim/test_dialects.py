"""Each dialect against examples from its own project's documentation.

An example stands for a form: the same topics, retained or not, the same members with values of the same type.
"""

import json
import re
from typing import Any

import pytest

from sensors_sim import cli
from sensors_sim.dialects import DIALECTS
from sensors_sim.fleet import SEEDED_START, Device, DeviceSpec, Fleet, FleetSpec
from sensors_sim.messages import Message

TS_MS = 1_685_304_267_000  # 2023-05-28T20:04:27Z

CLIMATE = {"temperature": 23.8123, "humidity": 61.12, "co2": 618.4, "rssi": -57.0}
BATTERY = {"temperature": 19.81, "humidity": 42.22, "battery": 87.4, "voltage": 2.948, "rssi": -65.0}
PLUG = {"power": 106.31, "voltage": 230.31, "current": 0.6671, "energy": 0.267813, "rssi": -60.0}
OUTDOOR = {"temperature": 5.04, "humidity": 81.0, "pressure": 1003.5, "illuminance": 79.3, "rssi": -70.0}
MOTION = {"motion": 1, "occupancy": 2, "illuminance": 120.0}


def device(kind: str = "climate", dialect: str = "native", id: str = "kitchen-1") -> Device:  # noqa: A002
    spec = FleetSpec((DeviceSpec(id, kind, "Kitchen", place="kitchen"),))
    fleet = Fleet(spec, 7, SEEDED_START, dialect=dialect)
    fleet.world.ts_offset = TS_MS / 1000 - SEEDED_START - 66_972
    return fleet.devices[id]


def spoken(one: Device, readings: dict[str, Any]) -> dict[str, Message]:
    messages = one.dialect.readings(one, dict(readings), TS_MS)
    assert len({message.topic for message in messages}) == len(messages)
    return {message.topic: message for message in messages}


def births(one: Device) -> dict[str, Message]:
    return {message.topic: message for message in one.dialect.birth(one)}


def has_form_of(value: Any, example: Any, where: str = "") -> None:
    """The members and types of an example; whole numbers may stand where it has fractions."""
    if isinstance(example, dict):
        assert isinstance(value, dict), where
        assert list(value) == list(example), where
        for name in example:
            has_form_of(value[name], example[name], f"{where}.{name}")
    elif isinstance(example, list):
        assert isinstance(value, list), where
        assert len(value) == len(example), where
        for one, other in zip(value, example, strict=True):
            has_form_of(one, other, where)
    elif isinstance(example, bool) or example is None:
        assert value is example or isinstance(value, type(example)), where
    elif isinstance(example, float):
        assert isinstance(value, (int, float)), where
        assert not isinstance(value, bool), where
    else:
        assert type(value) is type(example), where


def test_the_command_line_offers_exactly_the_dialects() -> None:
    assert tuple(DIALECTS) == cli.DIALECTS


@pytest.mark.parametrize("name", list(DIALECTS))
def test_every_dialect_can_tell_of_every_kind(name: str) -> None:
    kinds = ["climate", "air", "thermometer", "outdoor", "soil", "plug", "meter", "machine", "motion", "tracker"]
    specs = tuple(DeviceSpec(f"d-{kind}", kind, kind) for kind in kinds)
    fleet = Fleet(FleetSpec(specs), 7, SEEDED_START, interval=1, dialect=name)
    events = [event for event in fleet.take(SEEDED_START + 3) if isinstance(event.what, Message)]
    assert {event.device.id for event in events} == {f"d-{kind}" for kind in kinds}
    for one in fleet.devices.values():
        will, birth, death = one.dialect.will(one), one.dialect.birth(one), one.dialect.death(one)
        assert will is not None
        assert will.retain
        assert will.topic in {message.topic for message in birth}
        assert [message.topic for message in death] == [will.topic]
        assert will.payload not in {message.payload for message in birth if message.topic == will.topic}


def test_native_is_that_of_the_design() -> None:
    one = device()
    (state,) = spoken(one, CLIMATE).values()
    assert state == Message(
        "sensors/kitchen-1/state",
        b'{"ts":1685304267.000,"seq":0,"boot":%d,"temperature":23.81,"humidity":61.1,"co2":618,"rssi":-57}' % one.boot,
        1,
        False,
    )
    assert one.dialect.will(one) == Message("sensors/kitchen-1/status", b"offline", 1, True)
    assert births(one)["sensors/kitchen-1/status"].payload == b"online"


def test_home_assistant_discovery_has_the_documented_form() -> None:
    # Home Assistant, MQTT, "Device discovery payload": topic <prefix>/device/<object id>/config; dev (ids, name, mf,
    # mdl, sw), o (name), cmps with p, device_class, unit_of_measurement, value_template and unique_id; state_topic.
    one = device(dialect="homeassistant")
    message = births(one)["homeassistant/device/kitchen-1/config"]
    assert message.retain
    config = json.loads(message.payload)
    assert {"dev", "o", "cmps", "state_topic"} <= set(config)
    assert {"ids", "name", "mf", "mdl", "sw"} <= set(config["dev"])
    assert config["o"]["name"]
    state = json.loads(spoken(one, CLIMATE)[config["state_topic"]].payload)
    for component in config["cmps"].values():
        assert component["p"] in ("sensor", "button")
        assert component["unique_id"]
        if component["p"] == "sensor":
            template = re.fullmatch(r"{{ value_json\.(\w+) }}", component["value_template"])
            assert template
            assert template[1] in state
    assert config["cmps"]["co2"]["device_class"] == "carbon_dioxide"


def test_tasmota_with_a_scd40() -> None:
    # Tasmota documentation, SCD4x
    example = json.loads(
        '{"Time":"2023-05-28T20:04:27","SCD40":{"CarbonDioxide":618,"eCO2":623,"Temperature":23.8,"Humidity":61.1,'
        '"DewPoint":15.8},"TempUnit":"C"}'
    )
    sensor = json.loads(spoken(device(dialect="tasmota"), CLIMATE)["tele/kitchen-1/SENSOR"].payload)
    has_form_of(sensor, example)
    assert sensor["Time"] == example["Time"]
    assert sensor["SCD40"]["DewPoint"] == pytest.approx(example["SCD40"]["DewPoint"], abs=0.2)
    assert sensor["SCD40"]["CarbonDioxide"] == 618


def test_tasmota_state_and_lwt() -> None:
    # Tasmota documentation, Deep Sleep (console output at start) and MQTT ("LWT Topic")
    example = json.loads(
        '{"Time":"2021-06-27T15:03:44","Uptime":"0T00:00:13","UptimeSec":13,"Heap":28,"SleepMode":"Dynamic","Sleep":50,'
        '"LoadAvg":19,"MqttCount":1,"Wifi":{"AP":1,"SSId":"DEMOAP","BSSId":"XX:XX:XX:XX:XX:XX","Channel":1,'
        '"Mode":"11n","RSSI":86,"Signal":-57,"LinkCount":1,"Downtime":"0T00:00:07"}}'
    )
    one = device(dialect="tasmota")
    state = json.loads(spoken(one, CLIMATE)["tele/kitchen-1/STATE"].payload)
    has_form_of(state, example)
    assert (state["Uptime"], state["UptimeSec"]) == ("0T18:36:12", 66_972)
    assert (state["Wifi"]["Signal"], state["Wifi"]["RSSI"]) == (-57, 86)
    assert births(one)["tele/kitchen-1/LWT"] == Message("tele/kitchen-1/LWT", b"Online", 1, True)
    assert one.dialect.will(one) == Message("tele/kitchen-1/LWT", b"Offline", 1, True)


def test_tasmota_with_bme280_and_bh1750_and_energy() -> None:
    # Tasmota documentation, BH1750: {"Time":"2019-11-03T20:45:37","BH1750":{"Illuminance":79}}
    sensor = json.loads(spoken(device("outdoor", "tasmota"), OUTDOOR)["tele/kitchen-1/SENSOR"].payload)
    assert sensor["BH1750"] == {"Illuminance": 79}
    assert set(sensor["BME280"]) == {"Temperature", "Humidity", "DewPoint", "Pressure"}
    assert (sensor["PressureUnit"], sensor["TempUnit"]) == ("hPa", "C")
    # Tasmota documentation, Power Monitoring and Home Assistant: names of ENERGY
    energy = json.loads(spoken(device("plug", "tasmota"), PLUG)["tele/kitchen-1/SENSOR"].payload)["ENERGY"]
    assert list(energy) == [
        "TotalStartTime", "Total", "Yesterday", "Today", "Power", "ApparentPower", "ReactivePower", "Factor", "Voltage",
        "Current",
    ]  # fmt: skip
    assert energy["Power"] == 106
    assert energy["ApparentPower"] ** 2 == pytest.approx(energy["Power"] ** 2 + energy["ReactivePower"] ** 2, rel=0.02)


def test_zigbee2mqtt_sensor_and_availability() -> None:
    # Zigbee2MQTT documentation, WSDCGQ11LM: battery, temperature, humidity, voltage (mV), linkquality (0 to 255)
    one = device("thermometer", "zigbee2mqtt")
    state = json.loads(spoken(one, BATTERY)["zigbee2mqtt/kitchen-1"].payload)
    assert state == {"temperature": 19.81, "humidity": 42.2, "battery": 87, "voltage": 2948, "linkquality": 126}
    # "MQTT Topics and Messages": zigbee2mqtt/FRIENDLY_NAME/availability {"state":"online"}, retained
    assert births(one)["zigbee2mqtt/kitchen-1/availability"] == Message(
        "zigbee2mqtt/kitchen-1/availability", b'{"state":"online"}', 1, True
    )
    # "MQTT Topics and Messages": a body sensor RTCGQ01LM tells occupancy as a boolean
    assert (
        json.loads(spoken(device("motion", "zigbee2mqtt"), MOTION)["zigbee2mqtt/kitchen-1"].payload)["occupancy"]
        is True
    )


def test_zigbee2mqtt_bridge() -> None:
    # "MQTT Topics and Messages", zigbee2mqtt/bridge/devices
    example = {
        "ieee_address": "0x00158d00018255df", "type": "Router", "network_address": 29159, "supported": True,
        "friendly_name": "my_plug", "endpoints": {"1": {"bindings": [], "configured_reportings": [], "clusters": {}}},
        "definition": {"model": "ZNCZ02LM", "vendor": "Xiaomi", "description": "Mi", "options": [], "exposes": []},
        "power_source": "Mains (single phase)", "date_code": "02-28-2017", "model_id": "lumi.plug", "scenes": [],
        "interviewing": False, "interview_completed": True,
    }  # fmt: skip
    one = device(dialect="zigbee2mqtt")
    messages = {message.topic: message for message in one.dialect.fleet_birth([one])}
    assert messages["zigbee2mqtt/bridge/state"].payload == b'{"state":"online"}'
    listed = json.loads(messages["zigbee2mqtt/bridge/devices"].payload)
    assert listed[0]["type"] == "Coordinator"
    (_, known) = listed
    exposes = known["definition"]["exposes"]
    known["definition"]["exposes"] = []
    has_form_of(known, example)
    assert re.fullmatch(r"0x[0-9a-f]{16}", known["ieee_address"])
    state = json.loads(spoken(one, CLIMATE)["zigbee2mqtt/kitchen-1"].payload)
    assert {item["property"] for item in exposes} == set(state)
    assert {item["type"] for item in exposes} == {"numeric"}
    assert all(message.retain for message in messages.values())
    assert one.dialect.fleet_death()[0].payload == b'{"state":"offline"}'


def test_esphome_defaults() -> None:
    # ESPHome documentation, MQTT Client Component: <prefix>/status retained; <prefix>/sensor/<name>/state with QoS 0,
    # retained
    one = device("plug", "esphome")
    assert one.dialect.will(one) == Message("kitchen-1/status", b"offline", 0, True)
    said = spoken(one, PLUG)
    assert said["kitchen-1/sensor/power/state"] == Message("kitchen-1/sensor/power/state", b"106.3", 0, True)
    configs = [message for topic, message in births(one).items() if topic.startswith("homeassistant/sensor/kitchen-1/")]
    assert {json.loads(message.payload)["stat_t"] for message in configs} == set(said)
    moved = spoken(device("motion", "esphome"), MOTION)
    assert moved["kitchen-1/binary_sensor/motion/state"].payload == b"ON"


def test_homie_5_describes_what_it_publishes() -> None:
    # The Homie Convention 5: ids of a-z, 0-9 and -, $state and $description retained, datatypes, format min:max
    one = device(dialect="homie", id="kitchen_1")
    order = [(message.topic, message.payload) for message in one.dialect.birth(one)]
    assert [payload for topic, payload in order if topic == "homie/5/kitchen-1/$state"] == [b"init", b"ready"]
    description = json.loads(births(one)["homie/5/kitchen-1/$description"].payload)
    assert description["homie"] == "5.0"
    assert isinstance(description["version"], int)
    (node_id,) = description["nodes"]
    properties = description["nodes"][node_id]["properties"]
    assert properties["temperature"] == {
        "name": "Temperature", "datatype": "float", "format": "-10:60", "unit": "°C",
    }  # fmt: skip
    said = spoken(one, CLIMATE)
    assert set(said) == {f"homie/5/kitchen-1/{node_id}/{name}" for name in properties}
    assert all(message.retain and message.qos > 0 for message in said.values())
    assert said[f"homie/5/kitchen-1/{node_id}/co2"].payload == b"618"
    assert one.dialect.will(one) == Message("homie/5/kitchen-1/$state", b"lost", 1, True)
    assert one.dialect.death(one)[0].payload == b"disconnected"
    for topic in [*said, *(topic for topic, _ in order)]:
        assert re.fullmatch(r"homie/5/[a-z0-9-]+/(\$state|\$description|[a-z0-9-]+/[a-z0-9-]+)", topic)


def test_homie_motion_is_a_boolean_and_sleep_is_known() -> None:
    one = device("motion", "homie")
    assert spoken(one, MOTION)["homie/5/kitchen-1/readings/motion"].payload == b"true"
    assert one.dialect.sleep(one)[0].payload == b"sleeping"


# RFC 8428 §12.1 and RFC 8798 §4: units that a pack may hold.
SENML_UNITS = (
    "m kg g s A K cd mol Hz rad sr N Pa J W C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s m/s2 m3/s l/s W/m2 "
    "cd/m2 bit bit/s lat lon pH dB dBW Bspl count / % %RH %EL EL 1/s 1/min beat/min beats S/m B VA VAs var vars J/m "
    "kg/m3 deg ms min h MHz kW kVA kvar Ah Wh kWh varh kvarh kVAh Wh/km KiB GB Mbit/s B/s MB/s mV mA dBm ug/m3 mm/h "
    "m/h ppm /100 /1000 hPa mm cm km km/h"
)


def test_senml_is_a_pack_of_rfc_8428() -> None:
    # §5.1.3: [{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,…,"n":"voltage","u":"V","v":120.1},
    #          {"n":"current","t":-5,"v":1.2}, …]
    one = device("plug", "senml")
    message = spoken(one, PLUG)["sensors/kitchen-1/senml"]
    pack = json.loads(message.payload)
    assert list(pack[0])[:2] == ["bn", "bt"]
    assert re.fullmatch(r"urn:dev:mac:[0-9a-f]{16}:", pack[0]["bn"])
    assert pack[0]["bt"] == TS_MS / 1000
    assert [record["n"] for record in pack] == list(PLUG)
    for record in pack:
        # §4.3: names of A-Z a-z 0-9 - : . / _; §4.2: exactly one value
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*", pack[0]["bn"] + record["n"])
        assert len({"v", "vb", "vs", "vd"} & set(record)) == 1
        assert record.get("u", "W") in SENML_UNITS.split()
    assert pack[1] == {"n": "voltage", "u": "V", "v": 230.31}


def test_senml_converts_what_has_no_unit() -> None:
    machine = {"vibration": 2.8, "acceleration": 0.5, "rpm": 1480.0, "temperature": 30.0}
    pack = json.loads(spoken(device("machine", "senml"), machine)["sensors/kitchen-1/senml"].payload)
    values = {record["n"]: (record["u"], record["v"]) for record in pack}
    assert values["vibration"] == ("m/s", 0.0028)
    assert values["acceleration"] == ("m/s2", pytest.approx(4.903, abs=0.001))
    assert values["rpm"] == ("1/min", 1480)
    assert {unit for unit, _ in values.values()} <= set(SENML_UNITS.split())
    assert json.loads(spoken(device("motion", "senml"), MOTION)["sensors/kitchen-1/senml"].payload)[0]["vb"] is True


def test_shelly_plug() -> None:
    # Shelly API documentation, generation 2, Switch; a Plus Plug answers
    example = json.loads(
        '{"id":0,"source":"WS_in","output":false,"apower":0.0,"voltage":123.3,"current":0.000,'
        '"aenergy":{"total":0.000,"by_minute":[0.000,0.000,0.000],"minute_ts":1680536525},'
        '"temperature":{"tC":44.4,"tF":112.0}}'
    )
    one = device("plug", "shelly")
    said = spoken(one, PLUG)
    switch = json.loads(said["kitchen-1/status/switch:0"].payload)
    has_form_of(switch, example)
    assert switch["aenergy"]["total"] == pytest.approx(267.813), "Wh"
    assert switch["aenergy"]["by_minute"][0] == pytest.approx(106.31 * 1000 / 60, abs=0.01), "mWh"
    assert switch["aenergy"]["minute_ts"] % 60 == 0
    # Notifications: src, dst, method, params with ts and the components
    notified = json.loads(said["kitchen-1/events/rpc"].payload)
    assert (notified["src"], notified["dst"], notified["method"]) == ("kitchen-1", "kitchen-1/events", "NotifyStatus")
    assert notified["params"] == {"ts": TS_MS / 1000, "switch:0": switch}
    assert births(one)["kitchen-1/online"] == Message("kitchen-1/online", b"true", 1, True)
    assert one.dialect.will(one) == Message("kitchen-1/online", b"false", 1, True)


def test_shelly_battery_thermometer() -> None:
    # A message of a Shelly Plus H&T
    example = {
        "devicepower:0": {"id": 0, "battery": {"V": 0.43, "percent": 0}, "external": {"present": True}},
        "temperature:0": {"id": 0, "tC": 19.8, "tF": 67.6},
        "humidity:0": {"id": 0, "rh": 42.2},
    }
    said = spoken(device("thermometer", "shelly"), BATTERY)
    for component, status in example.items():
        has_form_of(json.loads(said[f"kitchen-1/status/{component}"].payload), status)
    assert json.loads(said["kitchen-1/status/temperature:0"].payload) == {"id": 0, "tC": 19.8, "tF": 67.7}
