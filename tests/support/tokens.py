"""Tokens, judged where no loop runs."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.access.tokens import Verifier


def verified(verifier: Verifier, token: str) -> dict[str, Any]:
    """The claims of a token.

    Raises:
        TokenError: it is not acceptable.
    """
    return asyncio.run(verifier.verify(token))
