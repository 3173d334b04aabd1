"""`gateway check --alert`: what an alert would have done, from the archive or from a recording."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gateway.cli.archive import moment, opened, recorded, time_of
from gateway.cli.flags import fail

if TYPE_CHECKING:
    from gateway.alerts.trial import Trial
    from gateway.core.messages import Message
    from gateway.settings.table import Settings

DAY_MS = 86_400_000
MAX_SHOWN = 1_000
"""Changes that are shown; all are counted."""


def try_alert(settings: Settings, name: str, since: str | None, recording: Path | None) -> None:
    """Prints each change of the alert's topics, and what there was of them in all."""
    from gateway.alerts.machine import State
    from gateway.alerts.rules import Rule
    from gateway.alerts.trial import Trial

    rules = {alert.name: alert for alert in settings.alerts}
    if name not in rules:
        near = difflib.get_close_matches(name, rules, 1, 0.6)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(rules) or 'none'}"
        fail(f"no alert is called {name!r}: {known}", 2)
    if rules[name].offline:
        fail(f"{name} is about devices: of them no past is kept that it could be tried on", 2)
    trial = Trial(Rule.of(rules[name]))
    now = time.time_ns() // 1_000_000
    first = time_of(since, "--since", 0 if recording is not None else now - DAY_MS)
    fired: set[str] = set()
    times = shown = 0
    with _messages(settings, trial, first, recording) as messages:
        # the clock of a recording ends with its last message
        for tried in trial.run(messages, first, now if recording is None else None):
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


@contextmanager
def _messages(settings: Settings, trial: Trial, first: int, recording: Path | None) -> Iterator[Iterable[Message]]:
    """The messages to try an alert on."""
    if recording is not None:
        with _read(recording) as messages:
            yield messages
    elif settings.archive_file is not None:
        with opened(settings.archive_file) as found:
            yield found.messages(trial.rule.filters, max(first - trial.lead_ms, 0), 2**62)
    else:
        fail("there is no archive to look at (GATEWAY_ARCHIVE_FILE): name one, or give --recording FILE", 2)


@contextmanager
def _read(path: Path) -> Iterator[Iterator[Message]]:
    from gateway.core.messages import Message

    try:
        with path.open("rb") as file:
            yield (
                Message.arrived(
                    number, one.topic, one.payload, round(one.seconds * 1000), one.qos, retained=one.retained
                )
                for number, one in enumerate(recorded(path, file), start=1)
            )
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except ValueError as error:
        fail(f"{path}: {error}")
