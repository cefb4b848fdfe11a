"""What the node says on standard error: one JSON object per line and event, never one per request, and nothing secret."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from crdtstore.clock import rfc3339

__all__ = ["OncePer", "configure", "event"]


class _JsonLines(logging.Formatter):
    def __init__(self, node: str, region: str) -> None:
        super().__init__()
        self._who = {"node": node, "region": region}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            **self._who,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(node: str, region: str) -> None:
    """Send everything that is logged in this process to standard error, in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(node, region))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def event(logger: logging.Logger, level: int, what: str, **fields: Any) -> None:
    """One event with its fields."""
    logger.log(level, what, extra={"fields": fields})


class OncePer:
    """Says whether something is new: each reason of each peer once, and of one peer not more than so many."""

    def __init__(self, most: int = 20) -> None:
        self._seen: dict[str, set[str]] = {}
        self._most = most

    def is_new(self, who: str, what: str) -> bool:
        if who not in self._seen and len(self._seen) >= 1_000:
            return False
        seen = self._seen.setdefault(who, set())
        if what in seen or len(seen) >= self._most:
            return False
        seen.add(what)
        return True
