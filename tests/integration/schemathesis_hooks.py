"""What the tool takes for wrong and isn't: on the wire a list of one value is the value."""

from __future__ import annotations

from typing import Any

import schemathesis

LISTS = ("topic", "filter")


@schemathesis.hook
def filter_query(context: Any, query: dict[str, Any] | None) -> bool:
    return not any(isinstance((query or {}).get(name), str) for name in LISTS)


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    return case.path == "/explain" or not any(isinstance((case.query or {}).get(name), str) for name in LISTS)
