"""What is too weak to be a secret that signs tokens.

Invariant: one rule for settings, key files and the command line. How a secret becomes a key is in `keys`.
"""

from __future__ import annotations

__all__ = ["MIN_SECRET_BYTES", "weakness"]

MIN_SECRET_BYTES = 32
"""As long as the hash of HS256 (RFC 7518 §3.2)."""

MIN_DIFFERENT = 8
"""A random secret of 32 hexadecimal digits has fewer different ones once in a million times."""


def weakness(secret: bytes) -> str | None:
    """What makes it no secret, in words; None if nothing was found."""
    if len(secret) < MIN_SECRET_BYTES:
        return f"has {len(secret)} bytes, at least {MIN_SECRET_BYTES} are needed"
    if (different := len(set(secret))) < MIN_DIFFERENT:
        return f"has only {different} different characters, at least {MIN_DIFFERENT} are needed"
    return None
