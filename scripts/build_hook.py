"""Builds the web pages when the package is built from a checkout, so that `pip install .` brings them along.

Without Node.js and a network the package is built all the same: the gateway then serves its small page, which says
how to get the others. An editable install and `GATEWAY_BUILD_PAGES=no` leave them alone (`make` builds them itself),
and so does a source distribution, which has the built pages and not their sources.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["PagesHook"]


class PagesHook(BuildHookInterface[Any]):
    """Runs scripts/build_web.py where there is a web/."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Builds the pages before the files of the package are looked for.

        Args:
            version: of the target: `standard` or `editable`.
            build_data: what the builder knows; left as it is.
        """
        root = Path(self.root)
        is_wanted = version == "standard" and os.environ.get("GATEWAY_BUILD_PAGES") != "no"
        if is_wanted and (root / "web" / "package.json").exists():
            spec = importlib.util.spec_from_file_location("build_web", root / "scripts" / "build_web.py")
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = module
                spec.loader.exec_module(module)
                module.main(["--optional"])
