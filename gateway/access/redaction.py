"""Texts made fit for a log: secrets hidden, and everything on one line.

Invariant: what leaves here holds no token, password or credential that was recognised as one. Which texts go through it
is for `logs`.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

__all__ = ["one_line", "redact", "without_query"]


_SECRETS = re.compile(
    r"""(?ix)
    (?P<header>
        \b (?: (?: proxy- )? authorization | (?: set- )? cookie ) (?: ["']? \s* : \s* ["']? | ["'] \s* , \s* b? ["'] )
    ) [^\r\n"'<>]+
    | (?P<name>
        \b (?: [\w.-]*token | password | secret | authorization ) ["']? (?: = | %3d | \s*:\s*["']? ) (?: Bearer \s+ )?
    ) [^\s&"'<>;,\#]+
    | (?P<bearer> \b Bearer \s+ ) [^\s"'<>,;]+
    | (?P<jwt> \b eyJ[\w-]{4,} \. [\w=-]* (?: \. [\w=-]* )? )
    | (?P<user> \b [a-z][a-z0-9+.-]* :// [^\s/@:]* : ) [^\s/@]+ (?= @ )
    """
)


def _hidden(found: re.Match[str]) -> str:
    return (found["header"] or found["name"] or found["bearer"] or found["user"] or "") + "[redacted]"


def redact(text: str) -> str:
    """A text for a log: tokens, passwords, headers with credentials and whatever looks like a JWT are hidden."""
    return _SECRETS.sub(_hidden, text)


def one_line(text: str) -> str:
    """A text on one line: what isn't printable is written as an escape, so that no client can forge a line of a log."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


_QUOTED = re.compile(r"""(['"])(.*?)\1""")


def without_query(text: str, query: bytes) -> str:
    """A text in which what it quotes of the query of an address, in over two letters, is an ellipsis."""
    if not query:
        return text
    # a text quotes what it means by `repr`
    asked = repr(unquote_plus(query.decode("latin-1")))
    return _QUOTED.sub(
        lambda found: f"{found[1]}…{found[1]}" if len(found[2]) > 2 and found[2] in asked else found[0], text
    )
