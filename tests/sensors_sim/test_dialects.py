"""Each dialect against examples from its own project's documentation.

An example stands for a form: the same topics, retained or not, the same members with values of the same type.
"""

import itertools
import json
import re
from typing import Any

import pytest

from sensors_sim import cli
from sensors_sim.dialects.all import DIALECTS
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
    # Home Assistant, MQTT integration, "Device discovery payload": topic <prefix>/device/<object id>/config
    example: dict[str, Any] = {
        "dev": {"ids": "ea334450945afc", "name": "Kitchen", "mf": "Bla electronics", "mdl": "xya", "sw": "1.0"},
        "o": {"name": "bla2mqtt", "sw": "2.1"},
        "cmps": {
            "some_unique_component_id1": {
                "p": "sensor", "device_class": "temperature", "unit_of_measurement": "°C",
                "value_template": "{{ value_json.temperature}}", "unique_id": "temp01ae_t",
            },
            "some_unique_id2": {
                "p": "sensor", "device_class": "humidity", "unit_of_measurement": "%",
                "value_template": "{{ value_json.humidity}}", "unique_id": "temp01ae_h",
            },
        },
        "state_topic": "sensorBedroom/state",
        "qos": 2,
    }  # fmt: skip
    one = device(dialect="homeassistant")
    message = births(one)["homeassistant/device/kitchen-1/config"]
    assert message.retain
    config = json.loads(message.payload)
    assert set(config) - set(example) == {"availability"}
    assert set(config["dev"]) == set(example["dev"])
    assert set(config["o"]) == set(example["o"])
    # ids is a text or a list of texts
    assert all(isinstance(value, str) for name, value in config["dev"].items() if name != "ids")
    assert isinstance(config["qos"], int)
    for documented in example["cmps"].values():
        field = documented["device_class"]
        ours = config["cmps"][field]
        assert ours["unique_id"]
        for name in ("p", "device_class", "unit_of_measurement", "value_template"):
            assert ours[name].replace(" ", "") == documented[name].replace(" ", "")
    assert len({component["unique_id"] for component in config["cmps"].values()}) == len(config["cmps"])
    state = json.loads(spoken(one, CLIMATE)[config["state_topic"]].payload)
    for component in config["cmps"].values():
        # a platform and, for what becomes an entity, a unique id are required of each component
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


def test_tasmota_is_found_by_its_discovery() -> None:
    # Members, in their order, of what a plug with Tasmota 13.1 retains at tasmota/discovery/<mac>/config
    members = "ip dn fn hn mac md ty if ofln onln state sw t ft tp rl swc swn btn so lk lt_st bat dslp sho sht ver"
    one = device("plug", "tasmota")
    (topic,) = [topic for topic in births(one) if topic.startswith("tasmota/discovery/")]
    message = births(one)[topic]
    config = json.loads(message.payload)
    assert list(config) == members.split()
    assert message.retain
    assert topic == f"tasmota/discovery/{config['mac']}/config"
    assert re.fullmatch(r"[0-9A-F]{12}", config["mac"])
    assert (len(config["fn"]), len(config["rl"]), len(config["swc"]), len(config["swn"])) == (8, 32, 28, 28)
    assert config["rl"][0] == 1, "a plug has a relay"
    # Who reads it puts the topics together from ft, tp and t.
    state = config["ft"].replace("%prefix%", config["tp"][2]).replace("%topic%", config["t"])
    said = spoken(one, PLUG)
    assert json.loads(said[f"{state}STATE"].payload)["POWER"] == config["state"][1]
    sensors = said[f"tasmota/discovery/{config['mac']}/sensors"]
    assert sensors.retain
    assert json.loads(sensors.payload) == {"sn": json.loads(said[f"{state}SENSOR"].payload), "ver": 1}
    climate = device("climate", "tasmota")
    assert "POWER" not in json.loads(spoken(climate, CLIMATE)["tele/kitchen-1/STATE"].payload)


def test_tasmota_with_bme280_and_bh1750_and_energy() -> None:
    # Tasmota documentation, BH1750: {"Time":"2019-11-03T20:45:37","BH1750":{"Illuminance":79}}
    sensor = json.loads(spoken(device("outdoor", "tasmota"), OUTDOOR)["tele/kitchen-1/SENSOR"].payload)
    assert sensor["BH1750"] == {"Illuminance": 79}
    assert set(sensor["BME280"]) == {"Temperature", "Humidity", "DewPoint", "Pressure"}
    assert (sensor["PressureUnit"], sensor["TempUnit"]) == ("hPa", "C")
    # A telemetry message of a Tasmota plug; Period is there in telemetry, and not in the answer to Status 10
    example = {
        "TotalStartTime": "2022-03-20T15:20:48", "Total": 514.153, "Yesterday": 1.495, "Today": 0.537, "Period": 0,
        "Power": 56, "ApparentPower": 92, "ReactivePower": 73, "Factor": 0.61, "Voltage": 234, "Current": 0.392,
    }  # fmt: skip
    energy = json.loads(spoken(device("plug", "tasmota"), PLUG)["tele/kitchen-1/SENSOR"].payload)["ENERGY"]
    has_form_of(energy, example)
    assert energy["Power"] == 106
    assert energy["ApparentPower"] ** 2 == pytest.approx(energy["Power"] ** 2 + energy["ReactivePower"] ** 2, rel=0.02)


def test_tasmota_counts_the_energy_of_today_and_yesterday() -> None:
    spec = DeviceSpec("a", "plug", "A", options={"appliance": "fridge"})
    start = SEEDED_START - 7 * 3600 + 15 * 3600  # Monday, 15:00
    fleet = Fleet(FleetSpec((spec,)), 7, start, interval=300, dialect="tasmota")
    told = [
        json.loads(event.what.payload)["ENERGY"]
        for event in fleet.take(start + 2.3 * 86_400)
        if isinstance(event.what, Message) and event.what.topic.endswith("SENSOR")
    ]
    # A fridge of 82 W with a duty of 0.34 takes 0.67 kWh a day; at 15:00 it has taken five eighths of that.
    assert told[0]["Today"] == pytest.approx(0.42, rel=0.2)
    assert told[0]["Yesterday"] == pytest.approx(0.67, rel=0.15)
    falls = [(before, after) for before, after in itertools.pairwise(told) if after["Today"] < before["Today"]]
    assert len(falls) == 2, "at each midnight, and never else"
    for before, after in falls:
        assert after["Yesterday"] == pytest.approx(before["Today"], abs=0.01)
        assert after["Today"] < 0.01
    for before, after in itertools.pairwise(told):
        assert after["Period"] == pytest.approx(1000 * (after["Total"] - before["Total"]), abs=1.01)
        if after["Yesterday"] == before["Yesterday"]:
            assert after["Today"] - before["Today"] == pytest.approx(after["Total"] - before["Total"], abs=0.0021)


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
    # Members and types of Zigbee2MQTTDevice in the API of Zigbee2MQTT 2
    example: dict[str, Any] = {
        "ieee_address": "0x00158d00018255df", "type": "Router", "network_address": 29159, "supported": True,
        "disabled": False, "friendly_name": "my_plug",
        "endpoints": {
            "1": {"bindings": [], "configured_reportings": [], "clusters": {"input": [], "output": []}, "scenes": []}
        },
        "definition": {
            "source": "native", "model": "ZNCZ02LM", "vendor": "Xiaomi", "description": "Mi", "supports_ota": False,
            "options": [], "exposes": [],
        },
        "manufacturer": "LUMI", "power_source": "Mains (single phase)", "software_build_id": None,
        "date_code": "02-28-2017", "model_id": "lumi.plug", "interviewing": False, "interview_completed": True,
        "interview_state": "SUCCESSFUL",
    }  # fmt: skip
    one = device(dialect="zigbee2mqtt")
    messages = {message.topic: message for message in one.dialect.fleet_birth([one])}
    assert messages["zigbee2mqtt/bridge/state"].payload == b'{"state":"online"}'
    listed = json.loads(messages["zigbee2mqtt/bridge/devices"].payload)
    assert listed[0]["type"] == "Coordinator"
    (_, known) = listed
    exposes = known["definition"]["exposes"]
    clusters = known["endpoints"]["1"]["clusters"]
    assert {"genBasic", "msTemperatureMeasurement", "msRelativeHumidity", "msCO2"} == set(clusters["input"])
    known["definition"]["exposes"] = clusters["input"] = clusters["output"] = []
    has_form_of(known, example)
    assert set(listed[0]) == set(known)
    info = json.loads(messages["zigbee2mqtt/bridge/info"].payload)
    # Members of "bridge/info" there
    assert set(info) == {
        "version", "commit", "zigbee_herdsman_converters", "zigbee_herdsman", "coordinator", "network", "log_level",
        "permit_join", "restart_required", "config", "config_schema",
    }  # fmt: skip
    assert set(info["network"]) == {"channel", "pan_id", "extended_pan_id"}
    assert info["coordinator"]["ieee_address"] == listed[0]["ieee_address"]
    assert info["config"]["devices"] == {known["ieee_address"]: {"friendly_name": "kitchen-1"}}
    assert re.fullmatch(r"0x[0-9a-f]{16}", known["ieee_address"])
    state = json.loads(spoken(one, CLIMATE)["zigbee2mqtt/kitchen-1"].payload)
    assert {item["property"] for item in exposes} == set(state)
    assert {item["type"] for item in exposes} == {"numeric"}
    assert all(message.retain for message in messages.values())
    assert one.dialect.fleet_death()[0].payload == b'{"state":"offline"}'


def test_esphome_defaults() -> None:
    # ESPHome documentation, "MQTT Client Component": birth and will on <prefix>/status, retained, QoS 0; state on
    # <prefix>/<component>/<object id>/state with QoS 0, retained; discovery on
    # homeassistant/<component>/<node>/<object id>/config, retained. Members as its MQTT component writes them.
    one = device("plug", "esphome")
    assert one.dialect.will(one) == Message("kitchen-1/status", b"offline", 0, True)
    assert births(one)["kitchen-1/status"] == Message("kitchen-1/status", b"online", 0, True)
    said = spoken(one, PLUG)
    assert said["kitchen-1/sensor/power/state"] == Message("kitchen-1/sensor/power/state", b"106.3", 0, True)
    configs = [message for topic, message in births(one).items() if topic.startswith("homeassistant/sensor/kitchen-1/")]
    assert all(message.retain and message.qos == 0 for message in configs)
    assert {json.loads(message.payload)["stat_t"] for message in configs} == set(said)
    config = json.loads(births(one)["homeassistant/sensor/kitchen-1/power/config"].payload)
    mac = config["dev"]["ids"]
    assert re.fullmatch(r"[0-9a-f]{12}", mac)
    example: dict[str, Any] = {
        "dev_cla": "power", "unit_of_meas": "W", "stat_cla": "measurement", "name": "Power",
        "stat_t": "kitchen-1/sensor/power/state", "avty_t": "kitchen-1/status",
        # generator "mac": address, component, 32-bit FNV-1 of the name
        "uniq_id": f"{mac}-sensor-{fnv1('Power')}",
        "dev": {
            "ids": mac, "name": "Kitchen", "sw": "sensors-sim", "mdl": "Metering plug 16 A", "mf": "Simulated",
            "cns": [["mac", mac]],
        },
    }  # fmt: skip
    assert config == example
    moved = spoken(device("motion", "esphome"), MOTION)
    assert moved["kitchen-1/binary_sensor/motion/state"].payload == b"ON"


def fnv1(text: str) -> str:
    # draft-eastlake-fnv: offset 0x811c9dc5, prime 0x01000193, multiply and then exclusive-or; of "a" it is 050c5d7e
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value * 0x01000193) % 2**32
        value ^= byte
    return f"{value:08x}"


def test_esphome_ids_are_unique_in_a_fleet() -> None:
    assert fnv1("a") == "050c5d7e"
    ids = [
        json.loads(message.payload)["uniq_id"]
        for name in ("a", "b", "c")
        for topic, message in births(device("climate", "esphome", id=name)).items()
        if topic.endswith("/config")
    ]
    assert len(set(ids)) == len(ids) == 12


def test_homie_5_describes_what_it_publishes() -> None:
    # The Homie Convention 5: ids of a-z, 0-9 and -, $state and $description retained, datatypes, format min:max.
    # Required of $description are homie and version; settable (false) and retained (true) are left at their defaults.
    known: dict[str, dict[str, type]] = {
        "device": {"homie": str, "version": int, "name": str, "root": str, "parent": str, "children": list,
                   "extensions": list, "nodes": dict},
        "node": {"name": str, "type": str, "properties": dict},
        "property": {"name": str, "datatype": str, "settable": bool, "retained": bool, "unit": str, "format": str},
    }  # fmt: skip
    one = device(dialect="homie", id="kitchen_1")
    order = [(message.topic, message.payload) for message in one.dialect.birth(one)]
    assert [payload for topic, payload in order if topic == "homie/5/kitchen-1/$state"] == [b"init", b"ready"]
    description = json.loads(births(one)["homie/5/kitchen-1/$description"].payload)
    assert description["homie"] == "5.0"
    assert isinstance(description["version"], int)
    (node_id,) = description["nodes"]
    properties = description["nodes"][node_id]["properties"]
    for level, objects in (
        ("device", [description]),
        ("node", list(description["nodes"].values())),
        ("property", list(properties.values())),
    ):
        for described in objects:
            for name, value in described.items():
                assert type(value) is known[level][name], name
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


@pytest.mark.parametrize("kind", ["climate", "plug", "machine", "tracker"])
def test_homie_values_are_of_their_datatype_and_within_their_format(kind: str) -> None:
    # The Homie Convention 5, "Payload": an integer has digits and a sign only, a float may have a point; neither is
    # empty, and a property with a format never has another value.
    one = device(kind, "homie")
    description = json.loads(births(one)["homie/5/kitchen-1/$description"].payload)
    properties = description["nodes"]["readings"]["properties"]
    forms = {"integer": r"-?\d+", "float": r"-?\d+(\.\d+)?"}
    for second in range(0, 7200, 60):
        for message in one.dialect.readings(one, one._read(SEEDED_START + second), TS_MS):
            described = properties[message.topic.rsplit("/", 1)[-1]]
            assert re.fullmatch(forms[described["datatype"]], message.payload.decode()), message
            low, high = described["format"].split(":")
            assert float(low) <= float(message.payload) <= float(high)


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


def resolved(pack: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """RFC 8428 §4.6: base fields, which hold from their record on, worked into each record."""
    base: dict[str, Any] = {}
    records = []
    for record in pack:
        base |= {name: value for name, value in record.items() if name in ("bn", "bt", "bu", "bv")}
        name = base.get("bn", "") + record.get("n", "")
        # §4.5.1: names of A-Z a-z 0-9 - : . / _, and the first a letter or digit; §4.2: exactly one value
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*", name)
        values: dict[str, Any] = {label: record[label] for label in ("v", "vb", "vs", "vd") if label in record}
        assert len(values) == 1
        unit = record.get("u", base.get("bu"))
        assert unit is None or unit in SENML_UNITS.split()
        read: dict[str, Any] = {"n": name, "u": unit, "t": base.get("bt", 0) + record.get("t", 0)}
        records.append(read | values)
        assert set(record) <= {"bn", "bt", "bu", "bv", "bver", "n", "u", "t", "v", "vb", "vs", "vd"}
    return records


def test_senml_is_a_pack_of_rfc_8428() -> None:
    # §5.1.3, whose first records are a relative humidity and a position under one base name, time and unit
    example: list[dict[str, Any]] = [
        {"bn": "urn:dev:ow:10e2073a01080063", "bt": 1.320067464e09, "bu": "%RH", "v": 20},
        {"u": "lon", "v": 24.30621},
        {"u": "lat", "v": 60.07965},
        {"t": 60, "v": 20.3},
    ]
    read = resolved(example)
    assert read[2] == {"n": "urn:dev:ow:10e2073a01080063", "u": "lat", "t": 1.320067464e09, "v": 60.07965}
    assert read[3] == {"n": "urn:dev:ow:10e2073a01080063", "u": "%RH", "t": 1.320067524e09, "v": 20.3}
    # §5.1.2: two measurements of one device, whose names are added to the base name
    assert resolved(
        [
            {"bn": "urn:dev:ow:10e2073a01080063:", "n": "voltage", "u": "V", "v": 120.1},
            {"n": "current", "u": "A", "v": 1.2},
        ]
    )[1] == {"n": "urn:dev:ow:10e2073a01080063:current", "u": "A", "t": 0, "v": 1.2}
    # The same reader understands what the simulator writes.
    one = device("plug", "senml")
    message = spoken(one, PLUG)["senml/kitchen-1"]
    pack = json.loads(message.payload)
    assert list(pack[0])[:2] == ["bn", "bt"]
    assert re.fullmatch(r"urn:dev:mac:[0-9a-f]{16}:", pack[0]["bn"])
    records = resolved(pack)
    assert [record["n"].rsplit(":", 1)[-1] for record in records] == list(PLUG)
    assert {record["t"] for record in records} == {TS_MS / 1000}
    assert records[1] == {"n": pack[0]["bn"] + "voltage", "u": "V", "t": TS_MS / 1000, "v": 230.31}
    position = {"latitude": 60.07965, "longitude": 24.30621, "humidity": 20.0}
    told = resolved(json.loads(spoken(device("tracker", "senml"), position)["senml/kitchen-1"].payload))
    assert [(record["u"], record["v"]) for record in told] == [("lat", 60.07965), ("lon", 24.30621), ("%RH", 20)]


def test_senml_converts_what_has_no_unit() -> None:
    machine = {"vibration": 2.8, "acceleration": 0.5, "rpm": 1480.0, "temperature": 30.0}
    pack = json.loads(spoken(device("machine", "senml"), machine)["senml/kitchen-1"].payload)
    values = {record["n"]: (record["u"], record["v"]) for record in pack}
    assert values["vibration"] == ("m/s", 0.0028)
    assert values["acceleration"] == ("m/s2", pytest.approx(4.903, abs=0.001))
    assert values["rpm"] == ("1/min", 1480)
    assert {unit for unit, _ in values.values()} <= set(SENML_UNITS.split())
    assert json.loads(spoken(device("motion", "senml"), MOTION)["senml/kitchen-1"].payload)[0]["vb"] is True


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


def test_shelly_minutes_are_those_of_its_counter() -> None:
    spec = DeviceSpec("a", "plug", "A", options={"appliance": "fridge"})
    fleet = Fleet(FleetSpec((spec,)), 7, SEEDED_START, interval=10, dialect="shelly")
    counted: dict[int, float] = {}
    compared = 0
    for event in fleet.take(SEEDED_START + 3600):
        if isinstance(event.what, Message) and event.what.topic == "a/status/switch:0":
            energy = json.loads(event.what.payload)["aenergy"]
            if energy["minute_ts"] - 60 in counted and energy["minute_ts"] not in counted:
                # Wh on the counter, read up to ten seconds after the turn of the minute, against mWh
                gained = 1000 * (energy["total"] - counted[energy["minute_ts"] - 60])
                assert energy["by_minute"][0] == pytest.approx(gained, abs=1000 * 240 * 10 / 3600)
                compared += 1
            counted.setdefault(energy["minute_ts"], energy["total"])
    assert compared >= 50


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
