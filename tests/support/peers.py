"""Brokers and clients of others that tests talk to; `make peers` installs them, and no test does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .brokers import _Process
from .waiting import missing

PEERS = Path(__file__).parent.parent / "peers"

__all__ = ["PEERS", "AedesBroker"]


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
