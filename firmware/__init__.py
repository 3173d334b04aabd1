"""Firmware for sensor boards: `board/` runs on them under MicroPython, `flash.py` puts it there.

The folders `esphome/` and `arduino/` hold the same sensor for those who come from there; docs/firmware.md tells of all.
"""
