"""Brokers and clients of others that tests talk to; `make peers` installs them, and no test does."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .brokers import Broker, _Process
from .waiting import missing

PEERS = Path(__file__).parent.parent / "peers"

Command = Callable[..., None]

__all__ = ["PEERS", "AedesBroker", "edge_node", "metric"]


class AedesBroker(_Process):
    """Aedes, in Node.js: MQTT 3.1.1, messages at the QoS of their publisher, and closed connections for refusals."""

    kind = "aedes"

    def __init__(self, folder: Path, rules: Mapping[str, Any] | None = None) -> None:
        """`rules` are those of tests/peers/aedes.mjs.

        Skips the test where Node.js or the package is missing.
        """
        super().__init__(folder)
        self._rules = rules or {}
        self._node = shutil.which("node") or missing("the program node")
        if not (PEERS / "node_modules" / "aedes").is_dir():
            missing("the npm package aedes (make peers)")

    def _command(self) -> list[str]:
        return [self._node, str(PEERS / "aedes.mjs"), str(self.port), json.dumps(self._rules)]

    def forget(self) -> None:
        """It keeps everything in memory."""


@contextmanager
def edge_node(broker: Broker, group: str, name: str) -> Iterator[Command]:
    """Cirrus Link's client as an edge node of Sparkplug B; what is yielded calls a method of it."""
    node = shutil.which("node") or missing("the program node")
    if not (PEERS / "node_modules" / "sparkplug-client").is_dir():
        missing("the npm package sparkplug-client (make peers)")
    command = [node, str(PEERS / "sparkplug_node.mjs"), broker.url, group, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "birth\n"

        def call(method: str, *arguments: Any) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([method, *arguments]) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        try:
            yield call
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def metric(name: str | None, value: Any, kind: str, alias: int | None = None, **more: Any) -> dict[str, Any]:
    """A metric as that client takes it."""
    found: dict[str, Any] = {"value": value, "type": kind, **more}
    if name is not None:
        found["name"] = name
    if alias is not None:
        found["alias"] = alias
    return found
