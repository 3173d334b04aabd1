"""`gateway token`: makes an access token; and what `gateway check --token` says of one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.flags import ConfigFile, fail

if TYPE_CHECKING:
    from gateway.settings.table import Settings


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("token")(token)


def token(
    subject: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whom it is for; fills {sub} in filters.", show_default=False)
    ] = None,
    subscribe: Annotated[
        list[str] | None, typer.Option(metavar="FILTER", help="A topic filter to read; may be repeated.")
    ] = None,
    publish: Annotated[
        list[str] | None, typer.Option(metavar="FILTER", help="A topic filter to write; may be repeated.")
    ] = None,
    role: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A role; may be repeated.")] = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is good, such as 10m, 1h or 30d.")] = "1h",
    config: ConfigFile = None,
) -> None:
    """Print an access token, signed with the gateway's secret or with a private key.

    The key is GATEWAY_ACCESS_SECRET or the file of GATEWAY_ACCESS_KEY_FILE, of which the gateway itself needs the
    public part only. `gateway check --token` says what a token may do.
    """
    from gateway.access.grants import AccessError
    from gateway.access.policy import Policy, Role
    from gateway.access.tokens import mint
    from gateway.core.durations import parse_duration
    from gateway.runtime import signing_key
    from gateway.settings.loading import load_settings
    from gateway.settings.problems import SettingsError

    try:
        settings = load_settings({}, config)
    except SettingsError as error:
        fail(error, 2)
    try:
        ttl_seconds = parse_duration(ttl)
    except ValueError as error:
        fail(f"--ttl {ttl!r}: {error}", 2)
    grants = {"subscribe": subscribe or [], "publish": publish or []}
    roles = {name: Role(role.subscribe, role.publish) for name, role in settings.roles.items()}
    try:
        key = signing_key(settings)
        # what can't be used is said now and not when somebody shows the token
        principal = Policy(roles).principal({"sub": subject, "topics": grants, "roles": role or []})
        made = mint(
            key,
            ttl_seconds=ttl_seconds,
            subject=subject,
            subscribe=grants["subscribe"],
            publish=grants["publish"],
            roles=role or [],
            audience=settings.access_audience,
            issuer=settings.access_issuer,
        )
    except AccessError as error:
        fail(error, 2)
    for note in principal.notes:
        typer.echo(f"gateway: {note}", err=True)
    if not (principal.subscribe or principal.publish):
        typer.echo("gateway: this token allows nothing; see --subscribe, --publish and --role", err=True)
    typer.echo(made)


def describe(settings: Settings, text: str, topics: list[str]) -> bool:
    """Prints what a token may do, and whether and why it may use each topic; returns whether it may read them all."""
    from gateway.access.grants import AccessError, Action, explain, may_publish, may_subscribe
    from gateway.access.limits import Refusals
    from gateway.core.durations import duration_text
    from gateway.core.topics import TopicError, has_wildcard, validate_filter
    from gateway.runtime import make_guard

    guard = make_guard(settings, Refusals())
    if guard.verifier is None:
        fail("there is no key to verify tokens with, so the gateway does not look at them; see docs/security.md", 1)
    try:
        principal = guard.policy.principal(asyncio.run(guard.verifier.verify(text)))
    except AccessError as error:
        fail(f"the token is not accepted: {error} ({error.code})", 1)
    typer.echo(f"{'subject':<10} {principal.subject or '-'}")
    typer.echo(f"{'roles':<10} {', '.join(principal.roles) or '-'}")
    if principal.expires_at is not None:
        left = max(0, round(principal.expires_at - time.time()))
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(principal.expires_at))
        typer.echo(f"{'expires':<10} {moment}, in {duration_text(left)}")
    for action in Action:
        for grant in principal.grants(action):
            typer.echo(f"{action.value:<10} {grant.topic_filter}  ({grant.source})")
        if not principal.grants(action):
            typer.echo(f"{action.value:<10} nothing")
    for note in principal.notes:
        typer.echo(f"{'note':<10} {note}")
    allowed = True
    for topic in topics:
        try:
            validate_filter(topic)
        except TopicError as error:
            fail(error, 2)
        typer.echo("")
        readable = may_subscribe(principal, topic)
        typer.echo(f"{'yes' if readable else 'no':<4} subscribe: {explain(principal, topic)}")
        allowed = allowed and readable
        if not has_wildcard(topic):
            writable = may_publish(principal, topic)
            typer.echo(f"{'yes' if writable else 'no':<4} publish: {explain(principal, topic, Action.PUBLISH)}")
    return allowed
