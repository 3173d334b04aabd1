"""What the devices of a fleet share: the weather, the rooms, the loads and the grid of one site."""

from dataclasses import dataclass

from sensors_sim.model.climate import PROFILES, Room
from sensors_sim.model.electricity import APPLIANCES, Grid, Load, Meter
from sensors_sim.model.weather import Weather


@dataclass(frozen=True, slots=True)
class Site:
    """Where a fleet is."""

    latitude: float = 50.0
    longitude: float = 8.6
    altitude: float = 110.0
    """m."""
    mean: float = 10.5
    """Yearly mean temperature, °C."""
    yearly: float = 9.0
    """Half the yearly swing, K."""
    daily: float = 5.5
    """Half the daily swing under a clear sky, K."""


class World:
    """What devices share: the weather, the rooms, the loads and the grid of one fleet.

    Args:
        seed: Of the fleet.
        start: Model time of the start.
        site: Where it is; None takes a town in the middle of Europe.
    """

    def __init__(self, seed: int, start: float = 0.0, site: Site | None = None) -> None:
        self.seed = seed
        self.start = start
        self.ts_offset = 0.0
        """Seconds to add to model time for the ``ts`` of readings."""
        self.site = site or Site()
        self.weather = Weather(
            seed,
            latitude=self.site.latitude,
            mean=self.site.mean,
            yearly=self.site.yearly,
            daily=self.site.daily,
            altitude=self.site.altitude,
        )
        self.grid = Grid(seed)
        self.meters: dict[str, Meter] = {}
        """Device to the meter that counts its energy."""
        self._rooms: dict[str, Room] = {}
        self._loads: dict[tuple[str, str], Load] = {}

    def room(self, place: str, profile: str) -> Room:
        """The room at ``place``, made on first use.

        Raises:
            ValueError: No such profile.
        """
        room = self._rooms.get(place)
        if room is None:
            if profile not in PROFILES:
                raise ValueError(f"unknown room {profile!r}: known are {', '.join(PROFILES)}")
            room = self._rooms[place] = Room(place, PROFILES[profile], self.weather, self.seed)
        return room

    def room_at(self, place: str) -> Room | None:
        """The room at ``place``, if a device has made one."""
        return self._rooms.get(place)

    def load(self, place: str, appliance: str) -> Load:
        """The appliance of that name at ``place``: one, whoever measures it.

        Raises:
            ValueError: No such appliance.
        """
        load = self._loads.get((place, appliance))
        if load is None:
            if appliance not in APPLIANCES:
                raise ValueError(f"unknown appliance {appliance!r}: known are {', '.join(APPLIANCES)}")
            load = Load(self.seed, f"{place}/{appliance}", APPLIANCES[appliance], self.weather)
            self._loads[place, appliance] = load
        return load
