"""`gateway check`: the settings in force, and every problem with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.flags import ConfigFile, fail, with_settings

if TYPE_CHECKING:
    from gateway.archive.sizing import Flow
    from gateway.settings.table import Settings


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("check")(with_settings(check))


def check(
    overrides: Mapping[str, object],
    config: ConfigFile = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", metavar="TOKEN", help="Say what this access token may do instead; - reads it from input."
        ),
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            "--topic",
            metavar="FILTER",
            help="With --token: say whether it may use this; may be repeated. With --payload: where that came.",
        ),
    ] = None,
    payload: Annotated[
        Path | None,
        typer.Option(
            "--payload", metavar="FILE", help="Say what becomes of this payload of --topic; - reads it from input."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", metavar="NUMBER", min=0.001, help="Say what an archive takes with as many messages a second."
        ),
    ] = None,
    payload_bytes: Annotated[
        float, typer.Option("--bytes", metavar="NUMBER", min=1, help="With --rate: bytes of a payload.")
    ] = 76,
    topics: Annotated[
        int, typer.Option("--topics", metavar="NUMBER", min=1, help="With --rate: topics in all.")
    ] = 1_000,
    fields: Annotated[
        int, typer.Option("--fields", metavar="NUMBER", min=0, help="With --rate: numbers in a payload.")
    ] = 2,
    alert: Annotated[
        str | None,
        typer.Option("--alert", metavar="NAME", help="Say when this alert would have fired, from the archive."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="With --alert: from this time on, back from now (1d) or ISO 8601."
        ),
    ] = None,
    recording: Annotated[
        Path | None,
        typer.Option("--recording", metavar="FILE", help="With --alert: from this recording, NDJSON or CSV."),
    ] = None,
) -> None:
    """Print the settings in force, where each comes from, and every problem with them.

    Takes the flags of `gateway serve`. Secrets are not shown. The exit code is 2 where `gateway serve` would not start,
    and 1 where a token is not accepted or may not subscribe to a topic, or a payload can't be decoded.
    """
    from gateway.settings.loading import read_settings
    from gateway.settings.problems import SettingsError
    from gateway.settings.rows import SETTINGS

    loaded = read_settings(overrides, config)
    if token is not None and loaded.settings is not None and not loaded.problems:
        from gateway.cli.token import describe

        text = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105
        raise typer.Exit(0 if describe(loaded.settings, text, topic or []) else 1)
    if payload is not None and loaded.settings is not None and not loaded.problems:
        raise typer.Exit(0 if _show_payload(loaded.settings, payload, topic or []) else 1)
    if alert is not None and loaded.settings is not None and not loaded.problems:
        from gateway.cli.trial import try_alert

        try_alert(loaded.settings, alert, since, recording)
        return
    if loaded.config_file is not None:
        typer.echo(f"Settings file: {loaded.config_file}\n")
    if loaded.settings is not None:
        unusable = {name for problem in loaded.problems for name in problem.names}
        shown = [
            (
                name,
                row.show(getattr(loaded.settings, name)) or "-",
                "see below" if name in unusable else loaded.origins.get(name, "default"),
            )
            for name, row in SETTINGS.items()
        ]
        width = min(48, max(len(value) for _, value, _ in shown))
        for name, value, origin in shown:
            typer.echo(f"{name:<30} {value:<{width}} {origin}")
        typer.echo("\n" + _memory(loaded.settings))
        if rate is not None:
            from gateway.archive.sizing import Flow

            for line in _room(loaded.settings, Flow(rate, payload_bytes, topics, fields)):
                typer.echo(line)
    if loaded.problems:
        typer.echo()
        fail(SettingsError(loaded.problems), 2)


def _room(settings: Settings, flow: Flow) -> Iterator[str]:
    """What the archive takes of a flow, and what its rules and its bound mean."""
    from gateway.archive.keeping import LEVEL_NAMES, Keep
    from gateway.core.durations import duration_text

    def size(count: float) -> str:
        if count >= 1e8:
            return f"{count / 1e9:,.1f} GB"
        return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"

    raw, minute, hour = (flow.bytes_a_day(level) for level in LEVEL_NAMES)
    yield (
        f"\nThe archive takes of {flow.rate:,g} messages a second of {flow.payload_bytes:,g} bytes, to {flow.topics:,} "
        f"topics with {flow.fields} numbers each, about {size(raw)} of messages a day, {size(minute)} of roll-ups by "
        f"minute and {size(hour)} by hour (measured with readings, by benchmarks/archiving.py)."
    )
    for number, rule in enumerate(settings.archive_keep, start=1):
        keep = Keep(rule.topics, *rule.ages_ms)
        parts = []
        for level in LEVEL_NAMES:
            age, taken = keep.of(level), flow.bytes_of(keep, level)
            if age is None or taken is None:
                parts.append(f"{level} until it is full")
            else:
                parts.append(f"{level} for {duration_text(age / 1000)} {size(taken)}")
        yield f"  rule {number} ({' '.join(rule.topics)}), if all of it came there: {', '.join(parts)}"
    if settings.archive_bytes:
        days = settings.archive_bytes / (raw + minute + hour)
        yield (
            f"  Without rules GATEWAY_ARCHIVE_BYTES ({size(settings.archive_bytes)}) is full after {days:,.1f} days; "
            "then the oldest messages go, and roll-ups when no messages are left to go."
        )


def _show_payload(settings: Settings, file: Path, topics: list[str]) -> bool:
    """Prints what becomes of a payload; whether all is well with it."""
    from gateway.core.messages import Message
    from gateway.core.topics import TopicError, validate_topic
    from gateway.decoders.decoding import Decoding
    from gateway.decoders.failures import DecodeError

    try:
        if len(topics) != 1:
            fail("--payload needs one --topic: the rule is found by it", 2)
        topic = validate_topic(topics[0])
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except TopicError as error:
        fail(error, 2)
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)
    rule = Decoding([one.make() for one in settings.decode]).rule_of(topic)
    if rule is None:
        typer.echo(f"no rule is for {topic!r}: it stays as it came", err=True)
    else:
        typer.echo(f"the rule for {' '.join(rule.filters.filters)} reads {topic!r} as {rule.name}", err=True)
    try:
        decoded = None if rule is None or not data else rule.read(topic, data)
    except DecodeError as error:
        typer.echo(f'{error}; it comes as base64 with "decode":"failed"', err=True)
        return False
    if decoded is None and rule is not None:
        typer.echo("this payload is none that it is for: it stays as it came", err=True)
    typer.echo((Message.arrived(0, topic, data, 0).token if decoded is None else decoded).decode())
    return True


def _memory(settings: Settings) -> str:
    """What the bounds mean in memory."""
    from gateway.core.history import room_for_messages

    few, many = min(1_000, settings.history_topics), settings.history_topics
    room = [room_for_messages(settings.history_bytes, n, settings.history_messages) for n in (few, many)]
    fewer = f"{room[1]:,} with {many:,}" if room[1] >= many else f"not even the last values of {many:,}"
    sockets = settings.limit_connections * settings.limit_buffer_bytes
    return (
        f"History takes at most {settings.history_bytes / 1024**2:,.0f} MiB: {room[0]:,} messages of 100 bytes "
        f"with {few:,} topics, {fewer}. "
        f"If all of {settings.limit_connections:,} connections are slow at once, {sockets / 1024**2:,.0f} MiB wait to "
        "be sent."
    )
