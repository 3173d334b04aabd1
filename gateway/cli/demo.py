"""`gateway demo`: everything that there is to see, in one command."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.flags import fail


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("demo")(demo)


def demo(
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="Use this broker (mqtt://…) instead of starting one.")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="home (the default without --devices), greenhouse, factory or office."),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(min=0, max=5000, metavar="N", help="So many sensors; all of a kind without a scenario."),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0.01, max=1000, metavar="HZ", help="Readings a second of each sensor.")
    ] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same readings.")] = 7,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="The page's port; otherwise 8000, or a free one."),
    ] = None,
    lan: Annotated[
        bool, typer.Option("--lan", help="Let boards of this network reach the demo's broker, without a password.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Pages of this origin may use it too: http://localhost:5173; repeatable."),
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Use the embedded broker even where Mosquitto is installed.")
    ] = False,
) -> None:
    """Start a broker, simulated sensors and the gateway, and say where to look. Ctrl-C stops everything.

    The broker is the mosquitto on the PATH, else the embedded one. Nothing is stored.
    """
    from gateway.demo import demo as parts

    if broker is not None and (lan or embedded):
        fail("--broker uses the broker that is there; --lan and --embedded are for one that the demo starts", 2)
    try:
        parts.run(
            broker_url=broker,
            scenario=scenario,
            devices=devices,
            rate=rate,
            seed=seed,
            port=port,
            lan=lan,
            prefer_embedded=embedded,
            origins=origin or [],
        )
    except parts.DemoError as error:
        fail(error, error.exit_code)
