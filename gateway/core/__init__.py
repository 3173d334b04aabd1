"""The pure parts of the gateway: no event loop, no socket, no setting; time and calls are given by their owner."""
