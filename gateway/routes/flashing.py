"""`/flash/…`: images that the page writes to boards, the broker that it may give them, and the keys of their updates.

Invariant: an image is the same for everybody and holds no secret, so everyone may fetch it; the broker's user and
password go only to somebody who may publish all that a sensor does, and never to an anonymous client of a gateway that
asks for tokens. Who may have those may leave a board's key here; nobody is ever given one.

It leaves to others: making a key (the page), and signing with it (`sensors-flash update`, which reads the same file:
firmware/keys.py).
"""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from gateway.access.grants import AccessError, Principal
from gateway.core.topics import covers
from gateway.door.refusals import payer_of, principal_of
from gateway.routes.request import ApiError, json_body
from gateway.runtime import Gateway

__all__ = ["SENSOR_TOPICS", "broker_for_sensors", "flash_file", "keep_key"]

logger = logging.getLogger(__name__)

SENSOR_TOPICS = "sensors/#"
"""What a sensor publishes to: the leave to do the same is the leave to set one up."""

MAX_BODY_BYTES = 1_000
MAX_FILE_BYTES = 1_000_000
"""Of keys: some 9,000 boards."""

_ID = re.compile(r"[a-z0-9_-]{1,64}")
_KEY = re.compile(r"[0-9a-f]{64}")
_TURN = threading.Lock()
_NAME = re.compile(r"[\w-][\w.-]*\.(json|bin)")


async def flash_file(request: Request) -> Response:
    """`/flash/NAME`: the manifest, the tables of pins, or an image, of the folder that `GATEWAY_FLASH_FOLDER` names."""
    gateway: Gateway = request.app.state.gateway
    name = request.path_params["name"]
    folder = gateway.flash_folder
    if folder is None:
        raise ApiError(404, "bad_request", "there are no images here: GATEWAY_FLASH_FOLDER is not set")
    path = folder / name
    if _NAME.fullmatch(name) is None or not await run_in_threadpool(_is_inside, path, folder):
        raise ApiError(404, "bad_request", f"there is no image {name!r} here")
    media_type = "application/json" if name.endswith(".json") else "application/octet-stream"
    return FileResponse(path, media_type=media_type, headers={"Cache-Control": "no-cache"})


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether it is a file of this folder, also where a link leads elsewhere."""
    try:
        return path.is_file() and path.resolve().parent == folder.resolve()
    except (OSError, ValueError):
        return False


async def broker_for_sensors(request: Request) -> Response:
    """`/flash/broker`: the broker as boards see it, with a user and a password for them."""
    gateway: Gateway = request.app.state.gateway
    principal = principal_of(request.scope)
    if gateway.flash_broker is None:
        raise ApiError(404, "bad_request", "no broker is offered to boards here: GATEWAY_FLASH_BROKER_URL is not set")
    _require_set_up(gateway, principal)
    return JSONResponse(gateway.flash_broker, headers={"Cache-Control": "no-store"})


class _Key(msgspec.Struct, forbid_unknown_fields=True):
    key: str


async def keep_key(request: Request) -> Response:
    """`POST /flash/keys/{id}` with `key`: keeps the key that signs updates of a board."""
    gateway: Gateway = request.app.state.gateway
    principal = principal_of(request.scope)
    board: str = request.path_params["id"]
    path = gateway.flash_keys_file
    if path is None:
        raise ApiError(404, "bad_request", "no keys are kept here: GATEWAY_FLASH_KEYS_FILE is not set")
    _require_set_up(gateway, principal)
    gateway.take_publish(payer_of(request.scope))
    # what was read of it may be the key, so nothing of it is said
    given = await json_body(request, _Key, MAX_BODY_BYTES, problem="the body is an object with a key")
    if _ID.fullmatch(board) is None or _KEY.fullmatch(given.key) is None:
        raise ApiError(400, "bad_request", "id has 1 to 64 of a-z, 0-9, _ and -; key has 64 hexadecimal digits")
    try:
        is_kept = await run_in_threadpool(_append, path, board.encode(), given.key.encode())
    except OSError as error:
        raise ApiError(503, "internal", f"the key could not be written to its file: {error.strerror}") from None
    if not is_kept:
        raise ApiError(503, "limit", f"the file of keys is full: it has {MAX_FILE_BYTES} bytes at most")
    logger.info("%s leaves the key of %s here", principal.name, board)
    return JSONResponse({"id": board}, 201, headers={"Cache-Control": "no-store"})


def _append(path: Path, board: bytes, key: bytes) -> bool:
    """Adds a line to a file that only its owner may read; of two lines for one board the later one counts.

    Returns:
        Whether the key is there: not where the file is full.
    """
    line = board + b" " + key
    with _TURN:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            before = file.read(MAX_FILE_BYTES + 1)
            if [each for each in before.splitlines() if each.startswith(board + b" ")][-1:] == [line]:
                return True
            added = (b"" if not before or before.endswith(b"\n") else b"\n") + line + b"\n"
            if len(before) + len(added) > MAX_FILE_BYTES:
                return False
            file.write(added)
            file.flush()
            os.fsync(descriptor)
            return True


def _require_set_up(gateway: Gateway, principal: Principal) -> None:
    """Returns if somebody may set up sensors.

    Raises:
        ApiError: not so (401, 403).
    """
    if not may_set_up(principal, gateway.guard.verifier is not None):
        error = AccessError(f"{principal.name} may not publish to '{SENSOR_TOPICS}', so not set up a sensor either")
        raise gateway.guard.refused(principal, error)


def may_set_up(principal: Principal, takes_tokens: bool) -> bool:
    """Whether somebody may have the credentials of sensors.

    Args:
        principal: Who asks.
        takes_tokens: Whether this gateway can verify any; if so, an anonymous client has none to show for itself.
    """
    if principal.anonymous and takes_tokens:
        return False
    return any(covers(grant.topic_filter, SENSOR_TOPICS) for grant in principal.publish)
