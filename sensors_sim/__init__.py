"""Simulated sensors: a pure, seeded fleet model and its MQTT publishers."""
