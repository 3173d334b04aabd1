"""The program of a sensor board: this folder is copied to the board as it is, beside main.py and payloads.py.

Runs on MicroPython 1.24 or later on an ESP32 of any kind with Wi-Fi; what is hardware stands in hardware.py alone.
"""

NAME = "gateway-sensor"
VERSION = "1.0.0"

# stands on the console before the first reading that the broker has acknowledged; `sensors-flash` waits for it
DELIVERED = "the broker has the first reading: "

REPORT_WAKINGS = 10  # from one report of a sensor on a battery to the next
