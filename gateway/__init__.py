"""Relays messages from an MQTT broker to browsers."""

__version__ = "0.1.0"
