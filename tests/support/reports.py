"""The report of a test that failed, also where CPython 3.11 stumbles over writing it.

To show the code that failed, pytest parses it. Before 3.11.8, `ast.parse` ends with SystemError where another one runs
in the middle of it, in another thread or as garbage is collected; `traceback`, which all loggers use, parses, too
(https://github.com/python/cpython/issues/106905). Such an error would end the whole run, with all tests that were left.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest
from pluggy import PluggyTeardownRaisedWarning

__all__ = ["pytest_runtest_makereport"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Writes the report once more where that failed."""
    try:
        return (yield)
    except (SystemError, PluggyTeardownRaisedWarning):  # the warning is of a plugin that saw the error go by
        return pytest.TestReport.from_item_and_call(item, call)
