"""Dialects: in which topics and payloads a device speaks, a module each."""
