"""Logging of the whole process: one handler, for people or as JSON lines.

Invariant: one entry is one line, whatever a topic or a client's text in it contains, and neither a full disk nor a log
that is rotated away stops the gateway. What may be said at all (no token, no password, no query string) is the business
of those who log; what looks like a secret is hidden here all the same.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import time
from pathlib import Path
from typing import TextIO

from gateway.access.redaction import one_line, redact

__all__ = ["set_up_logging"]

logger = logging.getLogger(__name__)


# Attributes that every record has; what else is on one was given with `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}


class _File(logging.handlers.WatchedFileHandler):
    """A file that is opened again when it was moved or deleted, as logrotate does; what can't be written is lost."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes an entry."""
        try:
            super().emit(record)
        except OSError:
            # its folder is gone, or there is no room for a new file: the next entry tries again
            self.stream = None


class HumanFormatter(logging.Formatter):
    """`12:30:05 INFO  broker: connected`; a traceback follows on its own lines.

    Args:
        coloured: whether warnings and errors get a colour (ANSI).
    """

    def __init__(self, coloured: bool) -> None:
        super().__init__()
        self.coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """One line for the record."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        name = record.name.removeprefix("gateway.")
        level = f"{record.levelname:<7}"
        if self.coloured and record.levelno in _COLOURS:
            level = f"{_COLOURS[record.levelno]}{level}\x1b[0m"
        line = f"{clock} {level} {name}: {one_line(redact(record.getMessage()))}"
        if not record.exc_info:
            return line
        trace = redact(self.formatException(record.exc_info)).split("\n")
        # indented, so that no text of an exception looks like an entry
        return "\n".join([line, *(f"    {one_line(text)}" for text in trace)])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, then what `extra=` gave."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for the record."""
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{whole}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                entry[name] = redact(value) if isinstance(value, str) else value
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False, default=str)


def set_up_logging(
    form: str = "auto", level: str = "info", stream: TextIO | None = None, file: Path | None = None
) -> None:
    """Sends every log entry of the process to one stream or file.

    Args:
        form: `human`, `json`, or `auto`: `human` where the stream is a terminal, else `json`.
        level: the least severe entries to keep: `debug`, `info`, `warning` or `error`.
        stream: None is standard error.
        file: takes the stream's place; it is made, and opened again when it was rotated away.

    Raises:
        OSError: the file can't be written.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream) if file is None else _File(file, encoding="utf-8")
    terminal = file is None and stream.isatty()
    # a full disk must not fill standard error, too
    logging.raiseExceptions = False
    is_json = form == "json" or (form == "auto" and not terminal)
    handler.setFormatter(JsonFormatter() if is_json else HumanFormatter(coloured=terminal))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # its lines hold query strings, which may hold tokens
    logging.getLogger("uvicorn.access").disabled = True
    # requests with their queries, frames with their payloads: at no level
    logging.getLogger("websockets").setLevel(max(logging.WARNING, root.level))
    # nor a line for each request that is none, without saying whose: that is counted
    logging.getLogger("uvicorn.error").setLevel(max(logging.ERROR, root.level))
    logging.getLogger("asyncio").setLevel(max(logging.WARNING if level != "debug" else logging.DEBUG, root.level))
