"""Kinds of device: which fields each has, and how its readings come from the world."""

import random

from sensors_sim import custom
from sensors_sim.kind import Instrument, Kind, Reader, Readings, Setting
from sensors_sim.model.electricity import Meter
from sensors_sim.model.machine import Machine
from sensors_sim.model.noise import Drifting, generator, white_noise
from sensors_sim.model.soil import Ground
from sensors_sim.model.track import Vehicle
from sensors_sim.model.weather import HOUR


def _thermometer(rng: random.Random, tolerance: float = 0.1) -> Instrument:
    return Instrument(rng, tolerance, 0.012, 0.045)


def _hygrometer(rng: random.Random, tolerance: float = 0.9) -> Instrument:
    return Instrument(rng, tolerance, 0.07, 0.2, low=0.0, high=100.0)


def _radio(rng: random.Random) -> Instrument:
    return Instrument(rng, 8, 0.8, 1.5, 60, low=-92.0, high=-32.0)


def _climate(setting: Setting) -> Reader:
    """A room sensor; tolerances are those of Sensirion's SCD41 data sheet, halved (±0.8 K, ±6 %, ±(50 ppm + 5 %))."""
    rng = setting.rng
    room = setting.world.room(setting.place, setting.room)
    temperature, humidity = _thermometer(rng, 0.3), _hygrometer(rng, 2.0)
    co2 = Instrument(rng, 18, 2.5, 6, 120, low=250.0)
    rssi = _radio(rng)

    def read(t: float) -> Readings:
        inside = room.at(t)
        return {
            "temperature": temperature.measure(inside.temperature, t),
            "humidity": humidity.measure(inside.humidity, t),
            "co2": co2.measure(inside.co2, t),
            "rssi": rssi.measure(-61, t),
        }

    return read


def _air(setting: Setting) -> Reader:
    """Air quality; PM2.5 and TVOC rise with people and cooking and decay with the room's air.

    Fine dust is the outdoor level (waves around 9 µg/m³) times 0.6, plus what CO₂ over outdoors tells of people;
    TVOC follows the same with a memory of its own.
    """
    rng = setting.rng
    room = setting.world.room(setting.place, setting.room)
    climate = _climate(setting)
    dust_outside = Drifting(rng, 3.5, 6 * HOUR)
    dust = Instrument(rng, 0.6, 0.25, 0.5, 200, low=0.3)
    tvoc = Instrument(rng, 12, 4, 18, 900, low=5.0)

    def read(t: float) -> Readings:
        inside = room.at(t)
        readings = climate(t)
        rssi = readings.pop("rssi")
        used = max(0.0, inside.co2 - 425)
        readings["tvoc"] = tvoc.measure(70 + 0.32 * used, t)
        readings["pm25"] = dust.measure(0.6 * max(2.0, 9 + dust_outside.at(t)) + 0.004 * used, t)
        readings["rssi"] = rssi
        return readings

    return read


def _thermo(setting: Setting) -> Reader:
    """A battery thermometer; tolerances are those of Sensirion's SHT41 data sheet, halved (±0.2 K, ±1.8 %)."""
    rng = setting.rng
    room = setting.world.room(setting.place, setting.room)
    temperature, humidity, rssi = _thermometer(rng), _hygrometer(rng), _radio(rng)
    battery = setting.battery("2xAA", sleep_current=0.012, wake_charge=210, wake_current=120)

    def read(t: float) -> Readings:
        inside = room.at(t)
        battery.read(t)
        return {
            "temperature": temperature.measure(inside.temperature, t),
            "humidity": humidity.measure(inside.humidity, t),
            "battery": 100 * battery.charge,
            "voltage": battery.voltage(inside.temperature),
            "rssi": rssi.measure(-68, t),
        }

    return read


def _outdoor(setting: Setting) -> Reader:
    """A weather station; tolerances are those of Bosch's BME280 data sheet, halved (±1 K, ±3 %, ±1 hPa)."""
    rng = setting.rng
    weather = setting.world.weather
    temperature, humidity = _thermometer(rng, 0.35), _hygrometer(rng, 1.5)
    pressure = Instrument(rng, 0.5, 0.02, 0.03)
    light = Instrument(rng, 0, 0, 0.03, 30)
    rssi = _radio(rng)

    def read(t: float) -> Readings:
        outside = weather.at(t)
        return {
            "temperature": temperature.measure(outside.temperature, t),
            "humidity": humidity.measure(outside.humidity, t),
            "pressure": pressure.measure(outside.pressure, t),
            "illuminance": max(0.0, outside.illuminance * light.measure(1, t)),
            "rssi": rssi.measure(-74, t),
        }

    return read


def _soil(setting: Setting) -> Reader:
    """A capacitive soil probe on a battery: in the room that it names or that others at its place do, else outdoors."""
    rng = setting.rng
    if setting.room:
        setting.world.room(setting.place, setting.room)
    ground = Ground(setting.world, setting.place, rng)
    moisture = Instrument(rng, 1.2, 0.12, 0.15, 3600, low=0.0, high=100.0)
    temperature, rssi = _thermometer(rng, 0.25), _radio(rng)
    battery = setting.battery("18650", sleep_current=0.02, wake_charge=260, wake_current=130)

    def read(t: float) -> Readings:
        wet, warm = ground.at(t)
        battery.read(t)
        return {
            "moisture": moisture.measure(wet, t),
            "temperature": temperature.measure(warm, t),
            "battery": 100 * battery.charge,
            "rssi": rssi.measure(-76, t),
        }

    return read


def _plug(setting: Setting) -> Reader:
    """A metering plug with one appliance behind it; accuracy 1 %."""
    rng = setting.rng
    load = setting.world.load(setting.place, setting.text("appliance", "fridge"))
    grid = setting.world.grid
    factor = load.appliance.power_factor
    gain = 1 + rng.gauss(0, 0.004)
    meter = setting.world.meters[setting.id] = Meter(load.watts, rng.uniform(2, 600))
    noise = Instrument(rng, 0, 0.003)
    rssi = _radio(rng)

    def read(t: float) -> Readings:
        watts = max(0.0, meter.read(t) * gain * (1 + noise.measure(0, t)))
        volts = grid.voltage(t, watts)
        return {
            "power": watts,
            "voltage": volts,
            "current": watts / volts / factor,
            "energy": meter.energy,
            "rssi": rssi.measure(-63, t),
        }

    return read


HOUSEHOLD = ("fridge", "freezer", "router", "tv", "computer", "lamp", "kettle", "oven", "washer", "dishwasher", "pump")


def _meter(setting: Setting) -> Reader:
    """A meter at the supply: base load plus all appliances of its place, those behind plugs included."""
    rng = setting.rng
    loads = [setting.world.load(setting.place, name) for name in setting.texts("appliances", HOUSEHOLD)]
    base = setting.number("base", 68.0, 0)
    grid = setting.world.grid
    hum = Drifting(rng, 2.5, 120)
    meter = Meter(lambda t: base + sum(load.watts(t) for load in loads), rng.uniform(2000, 40_000))
    setting.world.meters[setting.id] = meter
    noise = Instrument(rng, 0, 0.0015)

    def read(t: float) -> Readings:
        watts = max(0.0, meter.read(t) * (1 + noise.measure(0, t)) + hum.at(t))
        volts = grid.voltage(t, watts)
        # Heat is ohmic, motors and power supplies are not: the more power, the nearer to 1.
        factor = 0.86 + 0.13 * watts / (watts + 400)
        return {
            "power": watts,
            "voltage": volts,
            "current": watts / volts / factor,
            "power_factor": factor,
            "frequency": grid.frequency(t),
            "energy": meter.energy,
        }

    return read


def _machine(setting: Setting) -> Reader:
    """A vibration sensor on a motor's bearing."""
    rng = setting.rng
    world = setting.world
    room = world.room(setting.place, setting.room)
    machine = Machine(
        world.seed,
        setting.id,
        world.start,
        onset_hours=setting.number("onset_hours", round(rng.uniform(-40, 160), 2)),
        growth_hours=setting.number("growth_hours", 24.0, 0.1),
        rated_watts=setting.number("watts", 5500.0, 1),
    )
    heat = Drifting(rng, 0.25, 600)
    warmth = _Lag(1500.0)
    ripple = Instrument(rng, 0, 0.012)
    thermometer = _thermometer(rng, 0.3)

    def read(t: float) -> Readings:
        motion = machine.at(t)
        inside = room.at(t)

        def shown(value: float) -> float:
            return value * (1 + ripple.measure(0, t))

        return {
            "rpm": motion.rpm + (0.6 * white_noise(rng) if motion.rpm else 0.0),
            "vibration": shown(motion.vibration),
            "vibration_1x": round(shown(motion.harmonics[0]), 3),
            "vibration_2x": round(shown(motion.harmonics[1]), 3),
            "vibration_3x": round(shown(motion.harmonics[2]), 3),
            "vibration_bearing": round(shown(motion.bearing), 3),
            "acceleration": shown(motion.acceleration),
            "temperature": thermometer.measure(inside.temperature + warmth.follow(motion.heat, t) + heat.at(t), t),
            "power": max(0.0, shown(motion.watts)),
        }

    return read


class _Lag:
    """Follows a value with a time constant, such as metal that warms up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._t: float | None = None
        self._value = 0.0

    def follow(self, value: float, t: float) -> float:
        """Where it is at ``t`` when ``value`` has pulled since the last call; the first call is settled."""
        if self._t is None:
            self._value = value
        else:
            self._value += (value - self._value) * min(1.0, (t - self._t) / self._seconds)
        self._t = t
        return self._value


def _motion(setting: Setting) -> Reader:
    """A motion detector with a light sensor: people who sit still are missed now and then."""
    rng = setting.rng
    room = setting.world.room(setting.place, setting.room)
    weather = setting.world.weather
    daylight = rng.uniform(0.008, 0.02)
    lamps = rng.uniform(140, 320)
    light = Instrument(rng, 0, 0.004, 0.015, 60)

    def read(t: float) -> Readings:
        people = room.people(t)
        lux = daylight * weather.at(t // 30 * 30).illuminance
        is_night = t % 86_400 > 23 * HOUR or t % 86_400 < 6 * HOUR
        if people and lux < 120 and not is_night:
            lux += lamps
        moves = people > 0 and rng.random() < (0.04 if is_night else 1 - 0.35**people)
        return {
            "motion": int(moves),
            "occupancy": people,
            "illuminance": max(0.0, lux * light.measure(1, t)),
        }

    return read


def _tracker(setting: Setting) -> Reader:
    """A GPS tracker in a vehicle."""
    rng = setting.rng
    site = setting.world.site
    vehicle = Vehicle(
        rng,
        setting.number("latitude", site.latitude + rng.uniform(-0.02, 0.02), -90, 90),
        setting.number("longitude", site.longitude + rng.uniform(-0.03, 0.03), -181, 181),
        radius=setting.number("radius", 2500.0, 50, 100_000),
        cruise=setting.number("speed", 42.0, 1, 1000),
        altitude=site.altitude,
    )
    battery = setting.battery("18650", sleep_current=3, wake_charge=90, wake_current=180)
    rssi = Instrument(rng, 6, 2, 6, 120, low=-113.0, high=-51.0)

    def read(t: float) -> Readings:
        fix = vehicle.at(t)
        battery.read(t)
        return {
            "latitude": fix.latitude,
            "longitude": fix.longitude,
            "altitude": fix.altitude,
            "speed": fix.speed,
            "heading": fix.heading,
            "battery": 100 * battery.charge,
            "rssi": rssi.measure(-83, t),
        }

    return read


_VELOCITY = {"unit": "mm/s", "min": 0, "max": 100}

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "climate",
            "ESP32 + SCD41",
            {"temperature": {"min": -10, "max": 60}, "humidity": None, "co2": {"max": 5000}, "rssi": None},
            _climate,
        ),
        Kind(
            "air",
            "ESP32 + SCD41 + SPS30 + SGP41",
            {
                "temperature": {"min": -10, "max": 60},
                "humidity": None,
                "co2": {"max": 5000},
                "tvoc": None,
                "pm25": None,
                "rssi": None,
            },
            _air,
        ),
        Kind(
            "thermometer",
            "ESP32-C3 + SHT41",
            {"temperature": None, "humidity": None, "battery": None, "voltage": {"max": 3.6}, "rssi": None},
            _thermo,
            interval=300.0,
            options=frozenset({"charge"}),
            sleeps=True,
        ),
        Kind(
            "outdoor",
            "ESP32 + BME280 + BH1750",
            {"temperature": None, "humidity": None, "pressure": None, "illuminance": None, "rssi": None},
            _outdoor,
            interval=60.0,
        ),
        Kind(
            "soil",
            "ESP32-C3 + capacitive probe",
            {"moisture": None, "temperature": None, "battery": None, "rssi": None},
            _soil,
            room="",
            interval=600.0,
            options=frozenset({"charge"}),
            sleeps=True,
        ),
        Kind(
            "plug",
            "Metering plug 16 A",
            {"power": {"max": 3680}, "voltage": {"max": 260}, "current": {"max": 16}, "energy": None, "rssi": None},
            _plug,
            options=frozenset({"appliance"}),
        ),
        Kind(
            "meter",
            "DIN-rail meter",
            {
                "power": {"max": 25_000},
                "voltage": {"max": 260},
                "current": {"max": 100},
                "power_factor": None,
                "frequency": {"min": 45, "max": 55},
                "energy": None,
            },
            _meter,
            options=frozenset({"appliances", "base"}),
        ),
        Kind(
            "machine",
            "ESP32 + ADXL355 + PT1000",
            {
                "rpm": {"max": 3000},
                "vibration": {"max": 20},
                "vibration_1x": _VELOCITY,
                "vibration_2x": _VELOCITY,
                "vibration_3x": _VELOCITY,
                "vibration_bearing": _VELOCITY,
                "acceleration": {"max": 16},
                "temperature": {"min": -40, "max": 150},
                "power": None,
            },
            _machine,
            room="hall",
            interval=5.0,
            options=frozenset({"onset_hours", "growth_hours", "watts"}),
        ),
        Kind(
            "motion",
            "ESP32 + HC-SR501 + BH1750",
            {"motion": None, "occupancy": {"unit": "persons"}, "illuminance": None},
            _motion,
            interval=15.0,
        ),
        Kind(
            "tracker",
            "ESP32 + NEO-M9N",
            {
                "latitude": None,
                "longitude": None,
                "altitude": None,
                "speed": {"max": 200},
                "heading": None,
                "battery": None,
                "rssi": None,
            },
            _tracker,
            interval=5.0,
            options=frozenset({"latitude", "longitude", "radius", "speed", "charge"}),
        ),
        Kind(
            "custom",
            "Simulated",
            {},
            custom.make,
            options=frozenset({"stream", "status", "constant", "units", "vary"}),
            dialect="raw",
            fields_from=custom.fields_of,
        ),
    )
}


def setting_generator(seed: int, device_id: str) -> random.Random:
    """The generator that belongs to one device."""
    return generator(seed, "device", device_id)
