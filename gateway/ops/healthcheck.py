"""`python -m gateway.ops.healthcheck`: whether the gateway in this container answers; for Docker's HEALTHCHECK.

It reads the environment and the settings file, as `gateway serve` without flags does, and imports nothing heavy,
because it is started every few seconds. It asks `/health/live`, not `/health/ready`: without its broker the gateway
works and says so, and a restart would not help.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
import tomllib
from collections.abc import Mapping
from typing import Any

__all__ = ["is_live"]


def is_live(environ: Mapping[str, str]) -> bool:
    """Whether `/health/live` answers with 200 within 2 s, on the port and with the TLS that is set."""
    in_file = _settings_file(environ)
    port = int(environ.get("GATEWAY_PORT") or in_file.get("port") or 8000)
    connection: http.client.HTTPConnection
    if environ.get("GATEWAY_TLS_CERT") or in_file.get("tls", {}).get("cert"):
        # it is ourselves, whatever name the certificate is for
        connection = http.client.HTTPSConnection(
            "127.0.0.1",
            port,
            timeout=2,
            context=ssl._create_unverified_context(),  # noqa: S323
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _settings_file(environ: Mapping[str, str]) -> dict[str, Any]:
    path = environ.get("GATEWAY_CONFIG") or "gateway.toml"
    try:
        with open(path, "rb") as file:  # noqa: PTH123  a module less to import
            return tomllib.load(file)
    except (OSError, ValueError):
        # there is none, or the gateway could not start with it either
        return {}


if __name__ == "__main__":
    sys.exit(not is_live(os.environ))
