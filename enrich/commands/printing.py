"""What goes to a terminal or a log: log lines, and texts of others made fit for one line."""

from __future__ import annotations

import json
import logging
import re
import sys

# What ends a line, moves a terminal's cursor or turns its text around.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def tame(text: str) -> str:
    """Return a text of a catalog or of another's error fit for one line of a terminal or a log."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def lines_of(text: str) -> str:
    """Return a text of several lines fit for a terminal."""
    return "\n".join(map(tame, text.split("\n")))


class _PlainLines(logging.Formatter):
    """One line for each message, whatever the names in it are."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = tame(record.message)
        return super().formatMessage(record)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": self.formatTime(record, _TIME), "level": record.levelname.lower(), "message": ""}
        entry["message"] = record.getMessage()
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


_TIME = "%Y-%m-%dT%H:%M:%S%z"


def set_up_logging(quiet: bool, verbose: bool, form: str = "auto") -> None:
    """Log to standard error, in one form for all of the program and little of its libraries."""
    handler = logging.StreamHandler()
    bare = form == "auto" and sys.stderr.isatty()
    plain = _PlainLines("%(message)s" if bare else "%(asctime)s %(levelname)s %(message)s", _TIME)
    handler.setFormatter(_JsonLines() if form == "json" else plain)
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, handlers=[handler])
    for name in ("transformers", "filelock", "httpx", "huggingface_hub", "urllib3", "torch", "asyncio", "matplotlib"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)
