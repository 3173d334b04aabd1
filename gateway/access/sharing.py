"""Tokens that visitors make for others, of what they may read themselves.

Invariant: such a token reads nothing that its maker may not read, writes nothing, names nobody, and ends with the token
of its maker at the latest, also where that is called back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.access.grants import AccessError, Principal, require_subscribe
from gateway.access.keys import Key
from gateway.access.revocations import names_of
from gateway.access.tokens import mint
from gateway.core.topics import validate_filter

__all__ = ["MAX_SHARED", "Sharing"]

MAX_SHARED = 100
"""Topic filters of one token."""

MAX_GENERATIONS = 8
"""Links of links; each has the names of all before it."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """What makes such tokens.

    Attributes:
        key: signs them.
        max_seconds: how long one is good at most.
        audience, issuer: what the gateway that verifies them expects.
    """

    key: Key = field(repr=False)
    max_seconds: float
    audience: str | None = None
    issuer: str | None = None

    def token(self, maker: Principal, filters: Sequence[str], seconds: float, now: float) -> tuple[str, int]:
        """A token that reads these filters, and when it ends, in seconds since 1970.

        Args:
            maker: whose rights are shared.
            filters: topic filters.
            seconds: how long it is to be good; it is cut to what may be.
            now: seconds since 1970.

        Raises:
            TopicError: one of them is no topic filter.
            AccessError: they are none or too many (`bad_claims`), or its maker may not share them (`forbidden`).
        """
        if not 0 < len(filters) <= MAX_SHARED:
            raise AccessError(f"a token is for 1 to {MAX_SHARED} topic filters, not {len(filters)}", "bad_claims")
        if not seconds > 0:
            raise AccessError(f"a token is for more than 0 seconds, not {seconds:g}", "bad_claims")
        if maker.anonymous:
            raise AccessError("who shows no token shares nothing: whoever has the address sees the same")
        if len(maker.lineage) > MAX_GENERATIONS:
            raise AccessError(f"a link is made of a link {MAX_GENERATIONS} times at most")
        require_subscribe(maker, [validate_filter(each) for each in filters])
        left = self.max_seconds if maker.expires_at is None else maker.expires_at - now
        ttl = int(min(seconds, self.max_seconds, left))
        if ttl < 1:
            raise AccessError("the token of who shares ends now")
        made = mint(
            self.key,
            ttl_seconds=ttl,
            subscribe=filters,
            audience=self.audience,
            issuer=self.issuer,
            now=int(now),
            lineage=(*maker.lineage, *names_of(maker)),
        )
        return made, int(now) + ttl
