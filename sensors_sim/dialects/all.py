"""All dialects by name."""

from sensors_sim.dialects.base import Dialect
from sensors_sim.dialects.esphome import EspHome
from sensors_sim.dialects.homie import Homie
from sensors_sim.dialects.native import HomeAssistant, Native
from sensors_sim.dialects.senml import SenML
from sensors_sim.dialects.shelly import Shelly
from sensors_sim.dialects.tasmota import Tasmota
from sensors_sim.dialects.zigbee2mqtt import Zigbee2Mqtt

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
