"""Access tokens: JSON Web Tokens verified with a secret, a key file or a key set, and minted.

Invariant: which algorithms may verify a token follows from the type of *our* key, never from the token's header, which
only picks one of them; a token that names a key, a URL or a certificate of its own (`jwk`, `jku`, `x5c`, …) is not
listened to (RFC 8725 §3.1, §3.2, §3.10). What the claims allow is for `access`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jwt

from gateway.access.grants import AccessError
from gateway.access.keys import Key, KeySource, plain

__all__ = ["TokenError", "Verifier", "mint"]


MAX_TOKEN_BYTES = 8_192


class TokenError(AccessError):
    """A token is not accepted, or can't be judged.

    `code` is one of: `malformed`, `too_long`, `bad_algorithm`, `unknown_key`, `bad_signature`, `expired`,
    `not_yet_valid`, `revoked`, `bad_audience`, `bad_issuer`, `missing_claim`, `bad_claims`, `keys_unavailable`. The
    text holds no part of the token but its algorithm, its key id and the name of the claim at fault.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, code)


class Verifier:
    """Judges tokens. Stateless but for its keys; `verify` waits only when a key set has to be fetched."""

    def __init__(
        self,
        sources: Sequence[KeySource],
        *,
        algorithms: Iterable[str] | None = None,
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway_seconds: float = 10,
        max_bytes: int = MAX_TOKEN_BYTES,
    ) -> None:
        """A verifier over these keys.

        Args:
            sources: where keys come from.
            algorithms: narrows what the keys allow; None leaves all that their types allow.
            audience: the token's `aud` must hold one of these; None: it must have none.
            issuer: the token's `iss` must be one of these; None: it isn't looked at.
            leeway_seconds: how far our clock and the issuer's may differ.
            max_bytes: a longer token is refused unread.
        """
        self._sources = tuple(sources)
        self._algorithms = None if algorithms is None else frozenset(algorithms)
        self._audience = [audience] if isinstance(audience, str) else None if audience is None else list(audience)
        self._issuer = [issuer] if isinstance(issuer, str) else None if issuer is None else list(issuer)
        self._leeway = leeway_seconds
        self._max_bytes = max_bytes

    def keys(self) -> tuple[Key, ...]:
        """Every key that is known now."""
        return tuple(key for source in self._sources for key in source.keys())  # noqa: SIM118

    async def refresh(self) -> None:
        """Looks for newer keys in every source."""
        for source in self._sources:
            await source.refresh()

    async def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token, after its signature and its times, audience and issuer were found good.

        Raises:
            TokenError: with the code that says what is wrong.
        """
        kid, algorithm = self._header(token)
        # A key that we lack may have been published since. Nothing that a token says makes this happen often.
        if not any(key.kid == kid and algorithm in key.algorithms for key in self.keys()):
            await self.refresh()
        return self._verified(token, kid, algorithm, self._candidates(kid))

    def _header(self, token: str) -> tuple[str | None, str]:
        if len(token) > self._max_bytes:
            raise TokenError(
                f"the token has {len(token)} characters, at most {self._max_bytes} are allowed", "too_long"
            )
        if not token.isascii():
            raise TokenError("the token is not a JSON Web Token, since not all of it is ASCII", "malformed")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise TokenError(f"the token is not a JSON Web Token ({plain(error)})", "malformed") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str):
            raise TokenError("the token's header names no algorithm", "malformed")
        kid: str | None = header.get("kid")
        return kid, algorithm

    def _candidates(self, kid: str | None) -> list[Key]:
        keys = self.keys()
        if kid is not None:
            named = [key for key in keys if key.kid == kid]
            # A key file in PEM has no names: there a token's kid says nothing.
            return named or [key for key in keys if key.kid is None]
        return list(keys)

    def _verified(self, token: str, kid: str | None, algorithm: str, keys: Sequence[Key]) -> dict[str, Any]:
        if not keys:
            if not self.keys():
                raise TokenError("no key to verify tokens with could be had; try again later", "keys_unavailable")
            raise TokenError(f"the token is signed with a key that is not known here, {_short(kid)}", "unknown_key")
        allowed = sorted({name for key in keys for name in key.algorithms if self._may_use(name)})
        if algorithm not in allowed:
            raise TokenError(
                f"the token's algorithm is {_short(algorithm)}; the keys here allow {', '.join(allowed) or 'none'}",
                "bad_algorithm",
            )
        last = TokenError("the token's signature does not verify", "bad_signature")
        for key in keys:
            if algorithm not in key.algorithms:
                continue
            try:
                return self._decoded(token, algorithm, key)
            except TokenError as error:
                if error.code != "bad_signature":
                    raise
        raise last

    def _may_use(self, algorithm: str) -> bool:
        return self._algorithms is None or algorithm in self._algorithms

    def _decoded(self, token: str, algorithm: str, key: Key) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp"]},
            )
        except jwt.InvalidSignatureError:
            raise TokenError("the token's signature does not verify", "bad_signature") from None
        except jwt.ExpiredSignatureError:
            raise TokenError("the token has expired", "expired") from None
        except jwt.ImmatureSignatureError:
            raise TokenError("the token is not valid yet; is a clock wrong?", "not_yet_valid") from None
        except jwt.MissingRequiredClaimError as error:
            raise TokenError(f"the token lacks the claim {error.claim!r}", "missing_claim") from None
        except jwt.InvalidAudienceError:
            wanted = "none is expected here" if self._audience is None else f"expected is {' or '.join(self._audience)}"
            raise TokenError(f"the token is for another audience: {wanted}", "bad_audience") from None
        except jwt.InvalidIssuerError:
            wanted = " or ".join(self._issuer or [])
            raise TokenError(f"the token is of another issuer: expected is {wanted}", "bad_issuer") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise TokenError(f"the token is not acceptable: {plain(error)}", "malformed") from None
        return claims


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def mint(
    key: Key,
    *,
    ttl_seconds: float,
    subject: str | None = None,
    subscribe: Sequence[str] = (),
    publish: Sequence[str] = (),
    roles: Sequence[str] = (),
    audience: str | None = None,
    issuer: str | None = None,
    now: float | None = None,
    lineage: Sequence[str] = (),
) -> str:
    """A signed token.

    Args:
        key: must be able to sign: a secret, or a key with its private part.
        ttl_seconds: how long it is valid, from now on; more than 0.
        subject: whom it names; fills `{sub}`.
        subscribe: topic filters for reading.
        publish: topic filters for writing.
        roles: names of roles of the policy.
        audience: for whom it is; what the gateway that verifies it expects.
        issuer: who made it, likewise.
        now: seconds since 1970; None is the clock.
        lineage: of what it is made; with any of it called back, it is as well.

    Raises:
        AccessError: the key can't sign (`bad_key`), or the time to live is not positive (`bad_claims`).
    """
    if key.private is None:
        raise AccessError("this is only the public part of a key, which can't sign: give the private key", "bad_key")
    if not ttl_seconds > 0:
        raise AccessError(f"a token's time to live must be more than 0 seconds, not {ttl_seconds:g}", "bad_claims")
    issued_at = int(time.time() if now is None else now)
    claims: dict[str, Any] = {"iat": issued_at, "exp": issued_at + max(1, round(ttl_seconds))}
    claims["jti"] = secrets.token_urlsafe(12)  # by it one can be called back
    if subject is not None:
        claims["sub"] = subject
    if subscribe or publish:
        claims["topics"] = {
            action: list(filters) for action, filters in (("subscribe", subscribe), ("publish", publish)) if filters
        }
    if roles:
        claims["roles"] = list(roles)
    if lineage:
        claims["lineage"] = list(lineage)
    if audience is not None:
        claims["aud"] = audience
    if issuer is not None:
        claims["iss"] = issuer
    headers = None if key.kid is None else {"kid": key.kid}
    return jwt.encode(claims, key.private, algorithm=key.algorithms[0], headers=headers)
