"""`gateway check --alert`: what an alert would have done, from the archive or from a recording."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gateway.cli.archive import moment, opened, recorded, time_of
from gateway.cli.flags import fail

if TYPE_CHECKING:
    from gateway.alerts.trial import DeviceTrial, Trial, Tried
    from gateway.core.messages import Message
    from gateway.core.snapshots import Arrived
    from gateway.settings.table import Settings

DAY_MS = 86_400_000
MAX_SHOWN = 1_000
"""Changes that are shown; all are counted."""


def try_alert(settings: Settings, name: str, since: str | None, recording: Path | None) -> None:
    """Prints each change of the alert's topics, and what there was of them in all."""
    from gateway.alerts.rules import Rule
    from gateway.alerts.trial import DeviceTrial, Trial

    rules = {alert.name: alert for alert in settings.alerts}
    if name not in rules:
        near = difflib.get_close_matches(name, rules, 1, 0.6)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(rules) or 'none'}"
        fail(f"no alert is called {name!r}: {known}", 2)
    if recording is None and settings.archive_file is None:
        fail("there is no archive to look at (GATEWAY_ARCHIVE_FILE): name one, or give --recording FILE", 2)
    rule = Rule.of(rules[name])
    now = time.time_ns() // 1_000_000
    first = time_of(since, "--since", 0 if recording is not None else now - DAY_MS)
    # the clock of a recording ends with its last message
    until = now if recording is None else None
    if rule.is_about_devices:
        about_devices = DeviceTrial(
            rule,
            max_devices=settings.limit_devices,
            max_bytes=settings.limit_device_bytes,
            max_topics=settings.history_topics,
            history_bytes=settings.history_bytes,
        )
        with _arrivals(settings, first, recording) as all_that_came:
            _print_changes(name, about_devices, about_devices.run(all_that_came, first, until))
        for line in _unknown(about_devices):
            typer.echo(line)
        return
    trial = Trial(rule)
    with _messages(settings, trial, first, recording) as messages:
        _print_changes(name, trial, trial.run(messages, first, until))


def _print_changes(name: str, trial: Trial | DeviceTrial, changes: Iterable[Tried]) -> None:
    from gateway.alerts.machine import State

    fired: set[str] = set()
    times = shown = 0
    for tried in changes:
        change = tried.change
        if change.after is State.FIRING:
            fired.add(change.topic)
            times += 1
        shown += 1
        if shown <= MAX_SHOWN:
            typer.echo(f"{moment(change.time)}  {change.after:<8} {change.topic}: {tried.summary}")
    if shown > MAX_SHOWN:
        typer.echo(f"… and {shown - MAX_SHOWN:,} changes more")
    counted = f"of {trial.looked_at:,} messages" if trial.looked_at else "there was no message to try it on"
    often = "once" if times == 1 else f"{times:,} times"
    typer.echo(f"{name}: would have fired {often}, for {len(fired):,} topic{'s' * (len(fired) != 1)}; {counted}")
    if trial.machine.left_out:
        typer.echo(f"{trial.machine.left_out:,} messages were left out: it knows as many topics as it may")


def _unknown(trial: DeviceTrial) -> Iterator[str]:
    """What can't be known of the past of devices."""
    watched, mute = trial.devices()
    if not watched:
        yield (
            "no device is known in this time that has a topic which it watches: devices are known by what announces "
            "them, which has to be in the archive or the recording, too"
        )
    else:
        yield f"it watched {watched:,} device{'s' * (watched != 1)}"
    if mute:
        yield f"{mute:,} of them never said whether they are there: of these nothing is known"
    if trial.quiet:
        yield (
            f"{trial.quiet:,} of the times nothing at all had come for a minute or longer: perhaps the gateway or the "
            "broker was away, which is not kept"
        )
    if trial.refused:
        yield f"{trial.refused:,} parts of devices had no room (GATEWAY_LIMIT_DEVICES, GATEWAY_LIMIT_DEVICE_BYTES)"


@contextmanager
def _messages(settings: Settings, trial: Trial, first: int, recording: Path | None) -> Iterator[Iterable[Message]]:
    """The messages to try an alert on."""
    from gateway.core.messages import Message

    if recording is not None:
        with _read(recording) as messages:
            yield (
                Message.arrived(one.seq, one.topic, one.payload, one.time, one.qos, retained=one.retained)
                for one in messages
            )
    elif settings.archive_file is not None:
        with opened(settings.archive_file) as found:
            yield found.messages(trial.rule.filters, max(first - trial.lead_ms, 0), 2**62)


@contextmanager
def _arrivals(settings: Settings, first: int, recording: Path | None) -> Iterator[Iterable[Arrived]]:
    """What devices are made of: all that came, and what was known at first."""
    if recording is not None:
        with _read(recording) as messages:
            yield messages
    elif settings.archive_file is not None:
        with opened(settings.archive_file) as found:
            yield chain(found.last_values(first), found.arrivals(first, 2**62))


@contextmanager
def _read(path: Path) -> Iterator[Iterator[Arrived]]:
    from gateway.core.snapshots import Arrived

    try:
        with path.open("rb") as file:
            yield (
                Arrived(number, one.topic, one.payload, round(one.seconds * 1000), one.qos, one.retained)
                for number, one in enumerate(recorded(path, file), start=1)
            )
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except ValueError as error:
        fail(f"{path}: {error}")
