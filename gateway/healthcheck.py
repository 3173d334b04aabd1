"""`python -m gateway.healthcheck`: whether the gateway in this container answers; for Docker's HEALTHCHECK.

It reads the environment only and imports nothing heavy, because it is started every few seconds. It asks
`/health/live`, not `/health/ready`: without its broker the gateway works and says so, and a restart would not help.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from collections.abc import Mapping


def is_live(environ: Mapping[str, str]) -> bool:
    """Whether `/health/live` answers with 200 within 2 s, on the port and with the TLS that these variables set."""
    port = int(environ.get("GATEWAY_PORT") or 8000)
    connection: http.client.HTTPConnection
    if environ.get("GATEWAY_TLS_CERT"):
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


if __name__ == "__main__":
    sys.exit(not is_live(os.environ))
