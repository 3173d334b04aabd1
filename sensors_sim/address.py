"""The address of a broker, and how to get in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker is and how to get in."""

    host: str
    port: int
    tls: bool = False
    ca_file: str | None = None
    """PEM file of the authority to trust; None: the system's."""
    username: str | None = None
    """``{id}`` stands for the device's id."""
    password: str | None = field(default=None, repr=False)
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Password by user name, where each device has its own; wins over ``password``."""
    keepalive: int = 30
    """Seconds."""

    @classmethod
    def parse(cls, url: str, **overrides: object) -> Self:
        """Read ``mqtt://[user[:password]@]host[:port]`` or ``mqtts://…``.

        Args:
            url: The address.
            overrides: Attributes that win over what the address says; None says nothing.

        Raises:
            ValueError: It is no such address. The text has no password in it.
        """
        shown = url.rpartition("@")[2]
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"broker {shown!r}: {error}") from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"broker {shown!r}: expected mqtt://host:port or mqtts://host:port")
        tls = parts.scheme == "mqtts"
        values: dict[str, object] = {
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
        }
        values.update({name: value for name, value in overrides.items() if value is not None})
        if values.get("password") and not values.get("username"):
            raise ValueError("a password needs a user name")
        return cls(parts.hostname, port or (8883 if tls else 1883), tls, **values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"
