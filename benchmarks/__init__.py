"""Benchmarks: the gateway and Mosquitto's own WebSocket listener, side by side on one machine.

`python -m benchmarks` (or `make bench`) runs the scenarios and prints ratios; `python -m benchmarks.micro` counts what
the pure parts execute, without a socket. docs/performance.md explains both. Linux only: processor time is in /proc.
"""
