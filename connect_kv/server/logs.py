"""Log lines for operators: one line per event, as text or JSON, with the event's values as fields."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import TextIO

logger = logging.getLogger(__name__)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(log_format: str, level: str, node: str, stream: TextIO | None = None) -> None:
    """Send everything this package logs to `stream` (standard error), once.

    What libraries warn of goes there too, in the same form, unless the program has its own handlers.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(node) if log_format == "json" else TextFormatter(node))
    ours, everything = logging.getLogger("connect_kv"), logging.getLogger()
    ours.handlers[:] = [handler]
    ours.setLevel(level.upper())
    ours.propagate = False
    if all(isinstance(one.formatter, JsonFormatter | TextFormatter) for one in everything.handlers):
        everything.handlers[:] = [handler]


def take_over() -> None:
    """For a process that is nothing but a node: what Python itself would write becomes log lines as well."""
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, trace: _uncaught(error)
    threading.excepthook = lambda args: _uncaught(args.exc_value)
    sys.unraisablehook = lambda args: _uncaught(args.exc_value)


def _uncaught(error: BaseException | None) -> None:
    logger.critical("an error that nothing expected", exc_info=error)


def say_last(text: str) -> None:
    """Why the process ends, in one line on standard error: a log line if these are JSON, else plain words."""
    handlers = logging.getLogger("connect_kv").handlers
    if handlers and isinstance(handlers[0].formatter, JsonFormatter):
        logger.critical(text)
    else:
        print(f"connect-kv: {text}", file=sys.stderr, flush=True)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The values given with ``extra=``."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _problem(record: logging.LogRecord) -> str:
    return "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""


class TextFormatter(logging.Formatter):
    """``2026-01-01T00:00:00.000Z INFO n1 became leader term=3``."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """A record as one line of text, and the traceback below it if there is one."""
        words = [_time(record), record.levelname, self._node, record.getMessage()]
        words += [f"{key}={_quoted(value)}" for key, value in fields_of(record).items()]
        problem = _problem(record)
        return " ".join(words) + ("\n" + problem.rstrip() if problem else "")


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(character in text for character in ' "=\n') else text


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """Keys: time, level, node, logger, message, then the event's own."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "node": self._node,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if problem := _problem(record):
            line["traceback"] = problem
        return json.dumps(line, default=str)
