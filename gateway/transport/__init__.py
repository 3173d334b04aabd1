"""Sockets, TLS and the subclasses of uvicorn's protocols."""
