"""From a token's claims, or their absence, to a principal.

Invariant: nothing that a token says can make a grant wider than its author wrote it. What a grant allows is in
`grants`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.access.grants import AccessError, Action, Grant, Principal, shortened
from gateway.core.topics import TopicError, validate_filter

__all__ = ["Policy", "Role", "is_topic_level"]


# A token's grants are looked through at every subscribe; a hostile issuer is no threat, a careless one is.
MAX_GRANTS = 1_000

# The placeholder that a grant may hold; everything else in braces is an ordinary part of a topic.
SUBJECT = "{sub}"


@dataclass(frozen=True, slots=True)
class Role:
    """What everyone with a role may do.

    Attributes:
        subscribe: topic filters, which may hold `{sub}`.
        publish: likewise.
    """

    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()


MAX_TIME = 253_402_300_799
"""The last second of the year 9999: later ones fit no calendar, and some no clock."""

_DRAWN_AS_NOTHING = (
    ("\u034f", "\u034f"), ("\u115f", "\u1160"), ("\u17b4", "\u17b5"), ("\u180b", "\u180f"), ("\u2800", "\u2800"),
    ("\u3164", "\u3164"), ("\ufe00", "\ufe0f"), ("\uffa0", "\uffa0"), ("\U000e0100", "\U000e0fff"),
)  # fmt: skip
"""Letters, marks and symbols that show nothing; what is in category C or Z is found by that."""


def is_topic_level(subject: str) -> bool:
    """Whether a subject can fill one topic level without changing what the filter around it means.

    Not if it is empty or long, holds `/`, `+`, `#`, `$` at its start, or what nobody can see: controls, formats,
    separators other than a space, and what is drawn as nothing (Unicode's Default_Ignorable_Code_Point).
    """
    return 0 < len(subject) <= 256 and not subject.startswith("$") and not any(map(_spoils_a_level, subject))


def _spoils_a_level(character: str) -> bool:
    return (
        character in "/+#"
        or (character != " " and unicodedata.category(character)[0] in "CZ")
        or any(first <= character <= last for first, last in _DRAWN_AS_NOTHING)
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """Turns a token's claims, or their absence, into a principal.

    Attributes:
        roles: by name; a role that a token names and that isn't here gives nothing.
        anonymous_role: the role of those without a token; None gives them nothing.
        user_role: the role of those whom a proxy names; None: no proxy names anybody.
    """

    roles: Mapping[str, Role] = field(default_factory=dict)
    anonymous_role: str | None = None
    user_role: str | None = None

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
    def open(cls, topics: Iterable[str] = ()) -> Policy:
        """Everyone may read and write everything but `$`-topics; of these, `$SYS` and those in `topics` may be read."""
        named = (topic_filter for topic_filter in topics if topic_filter.startswith("$"))
        return cls({"anonymous": Role(("#", "$SYS/#", *named), ("#",))}, "anonymous")

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

    def user(self, name: str) -> Principal:
        """The principal of a user whom a proxy has named; without a role for users, that of nobody in particular."""
        if self.user_role is None:
            return self.anonymous()
        grants = self._of_role(self.user_role, name)
        return Principal(name, tuple(grants[0]), tuple(grants[1]), (self.user_role,), None, tuple(grants[2]))

    def principal(self, claims: Mapping[str, object]) -> Principal:
        """The principal that verified claims describe.

        Read are `sub`, `exp`, `jti`, `iat`, `topics` (`{"subscribe": […], "publish": […]}`), `roles` (a list), `role`
        (a string) and, of links, `lineage` (a list).
        `{sub}` in a filter is filled in; where the subject can't be one topic level the grant is withheld.

        Raises:
            AccessError: a claim has the wrong form (`bad_claims`).
        """
        subject = claims.get("sub")
        if subject is not None and not isinstance(subject, str):
            raise AccessError(f"claim 'sub': must be a string, not {type(subject).__name__}", "bad_claims")
        if subject is not None and not subject.isascii() and any("\ud800" <= letter <= "\udfff" for letter in subject):
            raise AccessError("claim 'sub': must be Unicode text, without half of a surrogate pair", "bad_claims")
        expires_at = claims.get("exp")
        if expires_at is not None and (isinstance(expires_at, bool) or not isinstance(expires_at, int | float)):
            raise AccessError("claim 'exp': must be a number", "bad_claims")
        if expires_at is not None and not 0 <= expires_at <= MAX_TIME:
            raise AccessError("claim 'exp': must be a time in seconds since 1970, up to the year 9999", "bad_claims")
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
                notes.append(f"its role {shortened(name)!r} is not defined here")
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
            token_id=token_id if isinstance(token_id := claims.get("jti"), str) and token_id else None,
            issued_at=float(at) if isinstance(at := claims.get("iat"), int | float) and 0 <= at <= MAX_TIME else None,
            lineage=tuple(_strings(claims.get("lineage", []), "lineage")),
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
            shown = "nobody" if subject is None else repr(shortened(subject))
            notes.append(f"{text!r} ({source}) is withheld because the subject, {shown}, can't be a topic level")
            return []
        filled = text.replace(SUBJECT, subject)
    else:
        filled = text
    try:
        return [Grant(validate_filter(filled), source)]
    except TopicError as error:
        raise AccessError(f"a grant of {source}: {error}", "bad_claims") from None
