"""Keys that verify tokens: secrets, key files and key sets, and how those are fetched and renewed.

Invariant: a key that is too weak for its algorithm is never taken, and what is fetched is bounded in bytes and time.
What a token must be like is in `tokens`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import load_pem_x509_certificate

from gateway.access.grants import AccessError
from gateway.access.origins import is_loopback
from gateway.access.secrets import weakness

__all__ = ["Key", "KeyFile", "KeySource", "KeyUrl", "Keys", "PrivateKey", "parse_keys", "plain", "secret_key"]

logger = logging.getLogger(__name__)

MIN_RSA_BITS = 2_048
MAX_KEYS = 100
MAX_KEY_BYTES = 256 * 1024

_HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Key:
    """One key and the algorithms that its type allows.

    Attributes:
        algorithms: names of RFC 7518 and RFC 8037, the preferred one first.
        public: what verifies; the secret itself for HMAC.
        private: what signs; None where only the public part is known.
        kid: the key's name in a key set; None outside of one.
    """

    algorithms: tuple[str, ...]
    public: bytes | PublicKey
    private: bytes | PrivateKey | None = None
    kid: str | None = None

    def __repr__(self) -> str:
        return f"Key({'/'.join(self.algorithms)}, kid={self.kid!r})"


def secret_key(secret: str | bytes, kid: str | None = None) -> Key:
    """The key of a shared secret: HS256, and the longer ones where the secret is long enough (RFC 7518 §3.2).

    Raises:
        AccessError: it is too weak, or is a public key by mistake (`bad_key`).
    """
    data = secret.encode() if isinstance(secret, str) else secret
    if (problem := weakness(data)) is not None:
        raise AccessError(f"the token secret {problem}; make one with: openssl rand -hex 32", "bad_key")
    if b"-----BEGIN " in data or data.startswith(b"ssh-"):
        # the classic confusion: a public key, which everyone knows, taken for a secret
        raise AccessError("the token secret is a key file's text: give it as a key file instead", "bad_key")
    return Key(tuple(name for name, size in _HMAC_BYTES.items() if len(data) >= size), data, data, kid)


def _public(found: object) -> tuple[PublicKey, tuple[str, ...]]:
    """A public key and what it can verify."""
    match found:
        case rsa.RSAPublicKey():
            if found.key_size < MIN_RSA_BITS:
                size = f"an RSA key of {found.key_size} bits"
                raise AccessError(f"{size}: at least {MIN_RSA_BITS} are needed (RFC 7518 §3.3)", "bad_key")
            return found, _RSA
        case ec.EllipticCurvePublicKey() if found.curve.name in _CURVES:
            return found, (_CURVES[found.curve.name],)
        case ed25519.Ed25519PublicKey():
            return found, ("EdDSA",)
    curve = f" {found.curve.name}" if isinstance(found, ec.EllipticCurvePublicKey) else ""
    raise AccessError(
        f"a key of type {type(found).__name__.strip('_')}{curve}: "
        "tokens are verified with RSA, EC (P-256, P-384, P-521) or Ed25519 keys",
        "bad_key",
    )


def _pem_key(block: bytes) -> Key:
    label = block.splitlines()[0]
    try:
        if b"PRIVATE KEY" in label:
            private = serialization.load_pem_private_key(block, password=None)
            if isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
                public, algorithms = _public(private.public_key())
                return Key(algorithms, public, private)
            raise AccessError(f"a private key of type {type(private).__name__} can't sign tokens", "bad_key")
        if b"CERTIFICATE" in label:
            public, algorithms = _public(load_pem_x509_certificate(block).public_key())
        else:
            public, algorithms = _public(serialization.load_pem_public_key(block))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AccessError(f"not a readable PEM key: {error}", "bad_key") from None
    return Key(algorithms, public)


def _jwk_key(data: Mapping[str, Any], secrets_allowed: bool) -> Key | None:
    """The key of one member of a key set; None if it is unusable, or for something else than verifying signatures."""
    kid = data.get("kid")
    try:
        if data.get("use", "sig") != "sig" or "verify" not in data.get("key_ops", ["verify"]):
            return None
        if kid is not None and not isinstance(kid, str):
            raise AccessError("its 'kid' is not a string", "bad_key")
        if data.get("kty") == "oct":
            if not secrets_allowed:
                raise AccessError("a secret in a published key set is no secret", "bad_key")
            key = secret_key(jwt.PyJWK(dict(data), "HS256").key, kid)
        else:
            # The parsed object is all that is taken over: what it can verify is decided by its own type.
            known = {name: value for name, value in data.items() if name in ("kty", "crv", "x", "y", "n", "e")}
            public, algorithms = _public(jwt.PyJWK(known).key)
            key = Key(algorithms, public, None, kid)
    except (jwt.PyJWTError, AccessError, ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
        logger.warning("a key of the key set is left out (kid %.60r): %s", kid, plain(error))
        return None
    if "alg" not in data:
        return key
    return Key((data["alg"],), key.public, key.private, kid) if data["alg"] in key.algorithms else None


def parse_keys(data: bytes, *, secrets_allowed: bool = True) -> tuple[Key, ...]:
    """The keys of a file: one or several PEM blocks (keys or certificates), or a JWKS (RFC 7517 §5).

    Members of a key set that are unusable, meant for encryption or, unless `secrets_allowed`, symmetric are left out.

    Raises:
        AccessError: it is neither, holds no usable key or too many, or is larger than 256 KiB (`bad_key`).
    """
    if len(data) > MAX_KEY_BYTES:
        raise AccessError(f"{len(data)} bytes of keys: at most {MAX_KEY_BYTES} are allowed", "bad_key")
    keys: list[Key] = []
    if data.lstrip().startswith(b"{"):
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise AccessError(f"the key set is not valid JSON: {error}", "bad_key") from None
        members = document.get("keys", [document] if "kty" in document else None)
        if not isinstance(members, list):
            raise AccessError("the key set has no list 'keys' (RFC 7517 §5)", "bad_key")
        if len(members) > MAX_KEYS:
            raise AccessError(f"the key set has {len(members)} keys, at most {MAX_KEYS} are allowed", "bad_key")
        keys = [
            key
            for member in members
            if isinstance(member, dict) and (key := _jwk_key(member, secrets_allowed)) is not None
        ]
    else:
        block: list[bytes] = []
        for line in data.splitlines():
            if line.startswith(b"-----BEGIN "):
                block = []
            block.append(line)
            if line.startswith(b"-----END ") and b"PARAMETERS" not in line:
                keys.append(_pem_key(b"\n".join(block) + b"\n"))
    if not keys:
        raise AccessError("no usable key found: neither a PEM block nor a key of a key set", "bad_key")
    return tuple(keys)


class KeySource(Protocol):
    """Where a verifier finds keys."""

    def keys(self) -> Sequence[Key]:
        """The keys that are known now, without waiting."""

    async def refresh(self) -> bool:
        """Looks for newer keys; whether it looked at all (it may have done so too recently)."""


class Keys:
    """Keys that stay until they are replaced."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)

    def keys(self) -> Sequence[Key]:
        """The keys."""
        return self._keys

    def replace(self, keys: Iterable[Key]) -> None:
        """Has these from now on, and no others."""
        self._keys = tuple(keys)

    async def refresh(self) -> bool:
        """Nothing to look for."""
        return False


class KeyFile:
    """Keys in a file, PEM or JWKS, read again when the file changes: a key is rotated without a restart."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.monotonic, min_interval_seconds: float = 1.0
    ) -> None:
        """Reads the file once.

        Raises:
            AccessError: it can't be read or holds no usable key (`bad_key`).
        """
        self.path = path
        self._clock = clock
        self._min_interval = min_interval_seconds
        self._looked_at = clock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()
        self._load()

    def _load(self) -> None:
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp == self._stamp:
                return
            self._keys = parse_keys(self.path.read_bytes())
        except OSError as error:
            raise AccessError(f"key file {str(self.path)!r}: {error.strerror or error}", "bad_key") from None
        except AccessError as error:
            raise AccessError(f"key file {str(self.path)!r}: {error}", "bad_key") from None
        self._stamp = stamp

    def keys(self) -> Sequence[Key]:
        """The keys of the file; a change that can't be read leaves the former ones and is logged."""
        now = self._clock()
        if now - self._looked_at >= self._min_interval:
            self._looked_at = now
            try:
                self._load()
            except AccessError as error:
                logger.warning("%s; the keys read before stay in use", error)
        return self._keys

    async def refresh(self) -> bool:
        """Nothing more: `keys` looks itself."""
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key set is where it was configured to be: a redirect could lead out of TLS or into a private network."""

    def redirect_request(self, *_: Any) -> None:
        return None


def fetch(url: str, timeout_seconds: float) -> bytes:
    """Reads a small document over HTTPS, blocking.

    Raises:
        AccessError: it can't be had, is larger than 256 KiB or took too long (`keys_unavailable`).
    """
    request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})  # noqa: S310
    opener = urllib.request.build_opener(_NoRedirect)
    deadline = time.monotonic() + timeout_seconds
    try:
        with opener.open(request, timeout=timeout_seconds) as response:
            return _read(response, deadline)
    except (OSError, HTTPException, ValueError) as error:
        raise AccessError(f"key set {url}: {getattr(error, 'reason', None) or error}", "keys_unavailable") from None


def _read(response: IO[bytes], deadline: float) -> bytes:
    # A socket's time-out is for one read; a server that drips must not hold the thread for ever.
    data = b""
    while chunk := response.read1(65_536) if hasattr(response, "read1") else response.read(65_536):
        data += chunk
        if len(data) > MAX_KEY_BYTES:
            raise ValueError(f"more than {MAX_KEY_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    return data


class KeyUrl:
    """A key set behind a URL: cached, fetched again when it is old or a token names a key that it lacks.

    Fetches happen in a thread, one at a time, and never more often than `min_interval_seconds`, whatever tokens arrive.
    While the server can't be reached the last keys stay in use for `max_age_seconds`.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Callable[[str, float], bytes] = fetch,
        clock: Callable[[], float] = time.monotonic,
        refresh_seconds: float = 3_600,
        max_age_seconds: float = 86_400,
        min_interval_seconds: float = 30,
        timeout_seconds: float = 5,
    ) -> None:
        """Fetches nothing yet.

        Raises:
            AccessError: the URL is neither `https` nor, on loopback, `http` (`bad_key`).
        """
        parts = urlsplit(url)
        if not parts.hostname or not (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
        ):
            raise AccessError(f"key set {url}: must be an https URL (http is for loopback only)", "bad_key")
        self.url = url
        self._fetch = fetch
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._max_age = max_age_seconds
        self._min_interval = min_interval_seconds
        self._timeout = timeout_seconds
        self._keys: tuple[Key, ...] = ()
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    def keys(self) -> Sequence[Key]:
        """The keys fetched last; none once they are too old. Starts a fetch in the background when they are stale."""
        if self._fetched_at is None:
            return ()
        age = self._clock() - self._fetched_at
        if age > self._refresh_seconds and self._may_fetch():
            with contextlib.suppress(RuntimeError):  # no loop: the command line asks again by itself
                self._start()
        return self._keys if age <= self._max_age else ()

    def _may_fetch(self) -> bool:
        return self._tried_at is None or self._clock() - self._tried_at >= self._min_interval

    def _start(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            # before the task runs, so that no second caller of this turn starts another fetch
            loop = asyncio.get_running_loop()
            self._tried_at = self._clock()
            self._task = loop.create_task(self._run(), name="fetch token keys")
        return self._task

    async def _run(self) -> None:
        try:
            data = await asyncio.to_thread(self._fetch, self.url, self._timeout)
            keys = parse_keys(data, secrets_allowed=False)
        except AccessError as error:
            fallback = "the keys fetched before stay in use" if self._keys else "no token can be verified with it"
            logger.warning("%s; %s", error, fallback)
            return
        if {key.kid for key in keys} != {key.kid for key in self._keys}:
            logger.info("key set %s: %d keys", self.url, len(keys))
        self._keys = keys
        self._fetched_at = self._clock()

    async def refresh(self) -> bool:
        """Fetches unless that happened less than `min_interval_seconds` ago; joins a fetch that is under way."""
        running = self._task is not None and not self._task.done()
        if not running and not self._may_fetch():
            return False
        await asyncio.shield(self._start())
        return True


def plain(error: Exception) -> str:
    """The words of a library's error; a JSON error quotes no part of its document, but a codec's may."""
    text = type(error).__name__ if isinstance(error, UnicodeError | RecursionError) else str(error)
    return text if len(text) <= 120 else text[:117] + "..."
