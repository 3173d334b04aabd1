"""Who may read and write which topics, and which web pages may ask: principals, grants, roles, origins.

Invariant: an answer is yes only when a single grant *covers* what is asked for (`topics.covers`); what nobody granted
is refused, and nothing that a token or a request says can make a grant wider than its author wrote it. Whether a token
is genuine is for `tokens`, where a request carries it for `guard`.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.core.topics import TopicError, covers, matches, validate_filter

__all__ = [
    "AccessError",
    "Action",
    "ForbiddenError",
    "Grant",
    "Origins",
    "Owner",
    "Policy",
    "Principal",
    "Role",
    "explain",
    "intersection",
    "is_loopback",
    "is_topic_level",
    "may_publish",
    "may_read",
    "may_subscribe",
    "normal_origin",
    "one_line",
    "redact",
    "require_publish",
    "require_subscribe",
]

# A token's grants are looked through at every subscribe; a hostile issuer is no threat, a careless one is.
MAX_GRANTS = 1_000

# The placeholder that a grant may hold; everything else in braces is an ordinary part of a topic.
SUBJECT = "{sub}"


class AccessError(Exception):
    """Something about access is wrong or refused; `code` is stable, the text names the rule and the value."""

    code = "forbidden"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ForbiddenError(AccessError):
    """The principal has no grant for what it asks."""


class Action(enum.StrEnum):
    """What a grant is for."""

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to use every topic that a filter matches.

    Attributes:
        topic_filter: a valid topic filter, its placeholder filled in.
        source: who says so, for people: "role 'viewer'" or "the token".
    """

    topic_filter: str
    source: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what it was granted.

    Attributes:
        subject: the token's `sub`; None for one that showed no token, or whose token names nobody.
        subscribe: grants for reading.
        publish: grants for writing.
        roles: the roles that it has and that the policy knows.
        expires_at: when the token ends, in seconds since 1970; None if it never does.
        notes: why something that it might expect was not granted, a sentence each.
    """

    subject: str | None = None
    subscribe: tuple[Grant, ...] = ()
    publish: tuple[Grant, ...] = ()
    roles: tuple[str, ...] = ()
    expires_at: float | None = None
    notes: tuple[str, ...] = ()
    anonymous: bool = False

    @property
    def name(self) -> str:
        """How texts call it: the quoted subject, or words."""
        if self.subject is not None:
            return repr(_shortened(self.subject))
        return "an anonymous client" if self.anonymous else "this token"

    def grants(self, action: Action) -> tuple[Grant, ...]:
        """The grants for one action."""
        return self.subscribe if action is Action.SUBSCRIBE else self.publish


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a connection is.

    Attributes:
        principal: who it is.
        address: the client's address; None where there is none.
    """

    principal: Principal
    address: str | None

    def is_same(self, other: Owner) -> bool:
        """Whether two connections are of one and the same: of one subject; else of the same rights and address.

        A token that names nobody is neither an anonymous client nor another such token.
        """
        mine, theirs = self.principal, other.principal
        if mine.subject is not None or theirs.subject is not None:
            return mine.subject == theirs.subject
        return self.address == other.address and mine == theirs


def _shortened(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


# Decisions


def may_subscribe(principal: Principal, topic_filter: str) -> bool:
    """Whether one of its grants covers every topic that this valid filter matches.

    `sensors/a/#` allows neither `sensors/+/x` nor `#`, and no leading wildcard allows a `$`-topic (MQTT 5 §4.7.2).
    """
    return any(covers(grant.topic_filter, topic_filter) for grant in principal.subscribe)


def may_read(principal: Principal, topic: str) -> bool:
    """Whether it may learn of this one topic: its messages, its last value, that it exists."""
    return any(matches(grant.topic_filter, topic) for grant in principal.subscribe)


def may_publish(principal: Principal, topic: str) -> bool:
    """Whether it may publish to this valid topic name; `$`-topics only where a grant names them."""
    return any(matches(grant.topic_filter, topic) for grant in principal.publish)


def require_subscribe(principal: Principal, topic_filters: Iterable[str]) -> None:
    """Returns if all these valid filters are granted.

    Raises:
        ForbiddenError: the first one is not; the text is that of `explain`.
    """
    for topic_filter in topic_filters:
        if not may_subscribe(principal, topic_filter):
            raise ForbiddenError(explain(principal, topic_filter))


def require_publish(principal: Principal, topic: str) -> None:
    """Returns if it may publish to this valid topic name.

    Raises:
        ForbiddenError: it may not; the text is that of `explain`.
    """
    if not may_publish(principal, topic):
        raise ForbiddenError(explain(principal, topic, Action.PUBLISH))


def intersection(one: str, other: str) -> str | None:
    """The filter that matches exactly the topics that both of two valid filters match; None if there are none."""
    if (one[0] == "$" and other[0] in "+#") or (other[0] == "$" and one[0] in "+#"):
        return None  # MQTT-4.7.2-1
    left = one.split("/")
    right = other.split("/")
    common: list[str] = []
    for position in range(max(len(left), len(right))):
        mine = left[position] if position < len(left) else None
        theirs = right[position] if position < len(right) else None
        if mine == "#":
            return "/".join([*common, *right[position:]]) or None
        if theirs == "#":
            return "/".join([*common, *left[position:]]) or None  # the empty topic, parent of '/#', can't exist
        if mine is None or theirs is None:
            return None
        if mine == theirs or theirs == "+":
            common.append(mine)
        elif mine == "+":
            common.append(theirs)
        else:
            return None
    return "/".join(common)


def explain(principal: Principal, asked: str, action: Action = Action.SUBSCRIBE) -> str:
    """Why it may or may not use a valid filter (or, for publishing, a topic): one or two sentences for people.

    Names the rule, the value and the grant that decides, or else the nearest grant and what it would allow instead.
    """
    kind = "topic filter" if action is Action.SUBSCRIBE else "topic"
    verb = "subscribe to" if action is Action.SUBSCRIBE else "publish to"
    shown = repr(_shortened(asked))
    grants = principal.grants(action)
    for grant in grants:
        if covers(grant.topic_filter, asked):
            return f"{kind} {shown}: granted to {principal.name} by {grant.topic_filter!r} ({grant.source})"
    refused = f"{kind} {shown}: not granted to {principal.name}"
    if not grants:
        text = f"{refused}, which may {verb} nothing"
        return text + "".join(f"; {note}" for note in principal.notes)
    nearest = max(grants, key=lambda grant: _nearness(grant.topic_filter, asked))
    text = f"{refused}; the nearest grant is {nearest.topic_filter!r} ({nearest.source})"
    within = intersection(nearest.topic_filter, asked)
    if within is not None:
        text += f", which does not cover all of it: ask for {within!r}"
    elif asked[0] == "$" and nearest.topic_filter[0] in "+#":
        text += ", and a leading wildcard never stands for a '$'-topic"
    return text + "".join(f"; {note}" for note in principal.notes)


def _nearness(granted: str, asked: str) -> tuple[bool, int, int]:
    """Orders grants by how likely the asker meant them: overlapping ones first, then by equal leading levels."""
    have = granted.split("/")
    want = asked.split("/")
    same = 0
    for mine, theirs in zip(have, want, strict=False):
        if mine != theirs and "+" not in (mine, theirs) and mine.casefold() != theirs.casefold():
            break
        same += 1
    return intersection(granted, asked) is not None, same, -abs(len(have) - len(want))


# Policy


@dataclass(frozen=True, slots=True)
class Role:
    """What everyone with a role may do.

    Attributes:
        subscribe: topic filters, which may hold `{sub}`.
        publish: likewise.
    """

    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()


def is_topic_level(subject: str) -> bool:
    """Whether a subject can fill one topic level without changing what the filter around it means.

    Not if it is empty or long, holds `/`, `+`, `#`, `$` at its start, or anything invisible (Unicode category C).
    """
    return (
        0 < len(subject) <= 256
        and not subject.startswith("$")
        and not any(character in "/+#" or unicodedata.category(character)[0] == "C" for character in subject)
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """Turns a token's claims, or their absence, into a principal.

    Attributes:
        roles: by name; a role that a token names and that isn't here gives nothing.
        anonymous_role: the role of those without a token; None gives them nothing.
    """

    roles: Mapping[str, Role] = field(default_factory=dict)
    anonymous_role: str | None = None

    def __post_init__(self) -> None:
        for name, role in self.roles.items():
            for action, filters in ((Action.SUBSCRIBE, role.subscribe), (Action.PUBLISH, role.publish)):
                for text in filters:
                    try:
                        validate_filter(text.replace(SUBJECT, "s"))
                    except TopicError as error:
                        raise AccessError(f"role {name!r}, {action}: {error}", "bad_policy") from None
        if self.anonymous_role is not None and self.anonymous_role not in self.roles:
            raise AccessError(
                f"the role for anonymous clients, {self.anonymous_role!r}, is not defined; "
                f"defined are: {', '.join(sorted(self.roles)) or 'none'}",
                "bad_policy",
            )

    @classmethod
    def open(cls) -> Policy:
        """Everyone may read and write everything but `$`-topics; of these, `$SYS` may be read."""
        return cls({"anonymous": Role(("#", "$SYS/#"), ("#",))}, "anonymous")

    @property
    def is_open(self) -> bool:
        """Whether one who shows no token may do anything at all."""
        role = self.roles[self.anonymous_role] if self.anonymous_role is not None else Role()
        return bool(role.subscribe or role.publish)

    def anonymous(self) -> Principal:
        """The principal of a request without a token."""
        if self.anonymous_role is None:
            return Principal(anonymous=True, notes=("it showed no token",))
        grants = self._of_role(self.anonymous_role, None)
        return Principal(
            None, tuple(grants[0]), tuple(grants[1]), (self.anonymous_role,), None, tuple(grants[2]), anonymous=True
        )

    def principal(self, claims: Mapping[str, object]) -> Principal:
        """The principal that verified claims describe.

        Read are `sub`, `exp`, `topics` (`{"subscribe": […], "publish": […]}`), `roles` (a list) and `role` (a string).
        `{sub}` in a filter is filled in; where the subject can't be one topic level the grant is withheld.

        Raises:
            AccessError: a claim has the wrong form (`bad_claims`).
        """
        subject = claims.get("sub")
        if subject is not None and not isinstance(subject, str):
            raise AccessError(f"claim 'sub': must be a string, not {type(subject).__name__}", "bad_claims")
        expires_at = claims.get("exp")
        if expires_at is not None and (isinstance(expires_at, bool) or not isinstance(expires_at, int | float)):
            raise AccessError("claim 'exp': must be a number", "bad_claims")
        subscribe: list[Grant] = []
        publish: list[Grant] = []
        notes: list[str] = []
        topics = claims.get("topics", {})
        if not isinstance(topics, Mapping):
            raise AccessError("claim 'topics': must be an object with 'subscribe' and 'publish'", "bad_claims")
        for action, grants in ((Action.SUBSCRIBE, subscribe), (Action.PUBLISH, publish)):
            for text in _strings(topics.get(action.value, []), f"topics.{action}"):
                grants.extend(_filled(text, subject, "the token", notes))
        known: list[str] = []
        for name in self._role_names(claims):
            if name not in self.roles:
                notes.append(f"its role {_shortened(name)!r} is not defined here")
                continue
            known.append(name)
            more = self._of_role(name, subject)
            subscribe += more[0]
            publish += more[1]
            notes += more[2]
        if len(subscribe) > MAX_GRANTS or len(publish) > MAX_GRANTS:
            raise AccessError(f"more than {MAX_GRANTS} grants", "bad_claims")
        return Principal(
            subject,
            tuple(dict.fromkeys(subscribe)),
            tuple(dict.fromkeys(publish)),
            tuple(known),
            None if expires_at is None else float(expires_at),
            tuple(dict.fromkeys(notes)),
        )

    def _role_names(self, claims: Mapping[str, object]) -> list[str]:
        names = _strings(claims.get("roles", []), "roles")
        role = claims.get("role")
        if role is not None:
            names += _strings([role], "role")
        return list(dict.fromkeys(names))

    def _of_role(self, name: str, subject: str | None) -> tuple[list[Grant], list[Grant], list[str]]:
        role = self.roles[name]
        notes: list[str] = []
        source = f"role {name!r}"
        subscribe = [grant for text in role.subscribe for grant in _filled(text, subject, source, notes)]
        publish = [grant for text in role.publish for grant in _filled(text, subject, source, notes)]
        return subscribe, publish, notes


def _strings(value: object, claim: str) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise AccessError(f"claim {claim!r}: must be a list of strings", "bad_claims")
    if len(value) > MAX_GRANTS:
        raise AccessError(f"claim {claim!r}: has {len(value)} entries, at most {MAX_GRANTS} are allowed", "bad_claims")
    return list(value)


def _filled(text: str, subject: str | None, source: str, notes: list[str]) -> list[Grant]:
    """The grant of a filter that may hold `{sub}`: one, or none and a note."""
    if SUBJECT in text:
        if subject is None or not is_topic_level(subject):
            shown = "nobody" if subject is None else repr(_shortened(subject))
            notes.append(f"{text!r} ({source}) is withheld because the subject, {shown}, can't be a topic level")
            return []
        filled = text.replace(SUBJECT, subject)
    else:
        filled = text
    try:
        return [Grant(validate_filter(filled), source)]
    except TopicError as error:
        raise AccessError(f"a grant of {source}: {error}", "bad_claims") from None


# Origins: which web pages may use the gateway with a visitor's browser

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
# A name that the public DNS can't point at somebody else's machine: one label (`localhost`, `raspberrypi`, a compose
# service), or below a suffix that isn't delegated (RFC 6761, RFC 6762, RFC 8375, ICANN's `internal`).
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa", ".test")


def _host_and_port(netloc: str, scheme: str) -> tuple[str, int] | None:
    """A `Host` header's name in lower case and its port; None if it isn't one."""
    try:
        parts = urlsplit(f"//{netloc}")
        name = parts.hostname or ""
        if parts.path or parts.query or parts.fragment or not re.fullmatch(r"[\w.-]+|[0-9a-f:.%]+", name, re.ASCII):
            return None
        if "@" in netloc:
            return None
        return name.rstrip("."), parts.port or _DEFAULT_PORTS[scheme]
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether an address or name to listen on is reachable from this machine only."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def normal_origin(text: str) -> str:
    """An origin as browsers write it: lower case, without the scheme's own port (RFC 6454 §6.2).

    Raises:
        AccessError: it is not `scheme://host[:port]`, `null` or `*` (`bad_origin`).
    """
    if text in ("null", "*"):
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    bare = parts.path in ("", "/") and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
        raise AccessError(
            f"origin {_shortened(text)!r}: must be scheme://host or scheme://host:port, such as https://example.com",
            "bad_origin",
        )
    if parts.query or parts.fragment:
        raise AccessError(f"origin {_shortened(text)!r}: must have no query and no fragment", "bad_origin")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    suffix = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{host}{suffix}"


@dataclass(frozen=True, slots=True)
class Origins:
    """The web pages that may use the gateway: its own, and those of listed origins.

    The `Origin` header is the browser's word, which a page can't change (RFC 6454 §7). A request without one does not
    come from a page of another origin and is allowed; the opaque `null` only if it is listed.

    Attributes:
        listed: origins in normal form; may hold `null` and `*`.
    """

    listed: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, origins: Iterable[str]) -> Origins:
        """From a list of settings.

        Raises:
            AccessError: one of them is no origin (`bad_origin`).
        """
        return cls(frozenset(normal_origin(text) for text in origins))

    def permits(self, origin: str | None, *, scheme: str, host: str | None) -> bool:
        """Whether a page of this origin may ask.

        Args:
            origin: the `Origin` header; None without one.
            scheme: how the request came, `http`, `https`, `ws` or `wss`.
            host: the `Host` header.
        """
        return origin is None or self.lists(origin) or _same_origin(origin, scheme, host)

    def lists(self, origin: str) -> bool:
        """Whether this origin is one of the configured ones (so that it gets CORS headers)."""
        if "*" in self.listed:
            return True
        try:
            return normal_origin(origin) in self.listed
        except AccessError:
            return False

    def may_carry_cookie(self, origin: str | None, *, scheme: str, host: str | None) -> bool:
        """Whether a cookie counts: never for an origin that only `*` lets in."""
        if origin is None or _same_origin(origin, scheme, host):
            return True
        return self.lists(origin) and ("*" not in self.listed or Origins(self.listed - {"*"}).lists(origin))

    def permits_host(self, host: str | None, *, scheme: str = "http") -> bool:
        """Whether a `Host` header can be trusted to be no trick of somebody else's DNS.

        A page of `evil.example` can have that name point at 127.0.0.1 and then is of the same origin as the gateway
        ("DNS rebinding"). It can't do so with an address, with a name of one label or one outside of the public DNS.
        Hosts of listed origins are fine, too. Without a `Host` header (HTTP/1.0) there is no browser.
        """
        if host is None or "*" in self.listed:
            return True
        found = _host_and_port(host, scheme)
        if found is None:
            return False
        name = found[0]
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            pass
        if "." not in name or name.endswith(_LOCAL_SUFFIXES):
            return True
        return any(urlsplit(origin).hostname == name for origin in self.listed if origin not in ("null", "*"))


def _same_origin(origin: str, scheme: str, host: str | None) -> bool:
    if host is None:
        return False
    secure = scheme in ("https", "wss")
    try:
        parts = urlsplit(normal_origin(origin))
    except AccessError:
        return False
    # Behind a proxy that ends TLS the page is https and the request looks like http; the reverse would let a page
    # that an eavesdropper can rewrite into the secure one.
    if not parts.hostname or (secure and parts.scheme != "https"):
        return False
    asked = _host_and_port(host, parts.scheme)
    return asked is not None and asked == (parts.hostname.rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme])


# Redaction

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
