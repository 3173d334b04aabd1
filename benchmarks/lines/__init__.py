"""Lines that lose packets: our clients and others side by side, each behind a line of its own.

`python -m benchmarks.lines` gives every client a network namespace whose only way to the servers delays and loses
packets, is cut, and comes back with another address; servers are restarted. What a client heard is then counted against
what was published. docs/performance.md explains it. Linux only, as root.
"""
