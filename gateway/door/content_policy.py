"""What a page may load and run (Content Security Policy Level 3).

Invariant: only scripts and styles that stand in the page as it was built are allowed inline.
"""

from __future__ import annotations

import base64
import hashlib
import html.parser
from collections.abc import Mapping

__all__ = ["content_security_policy"]


class _Inline(html.parser.HTMLParser):
    """Collects the text of scripts and styles that stand in a page itself."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: dict[str, list[str]] = {"script": [], "style": []}
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.found and "src" not in dict(attrs):
            self._inside = tag
            self.found[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self.found[self._inside][-1] += data


def content_security_policy(page: str = "") -> str:
    """A policy under which a page runs its own scripts and styles, and nothing that was smuggled into it.

    Args:
        page: HTML whose inline scripts and styles are allowed by their hash; nothing else that is inline is.
    """
    inline = _Inline()
    inline.feed(page)
    sources: Mapping[str, str] = {
        tag: "".join(f" 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
        for tag, texts in inline.found.items()
    }
    return (
        "default-src 'none'; "
        f"script-src 'self'{sources['script']}; style-src 'self'{sources['style']}; "
        "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )
