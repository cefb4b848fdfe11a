"""What a node says of its disk: ``storage`` in ``GET /v1/status``.

The question: what does an operator have to see before a user does? That something could not be written or read, why, and what it costs
meanwhile: a log that grows, changes that only memory and the log hold. Errors name file and offset, as they were met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crdtstore.errors import StorageError
from crdtstore_node.standing import why_not_member

if TYPE_CHECKING:
    from crdtstore_node.node import Node

__all__ = ["state_bytes", "storage_status", "unreadable", "why_no_writes"]


def storage_status(node: Node) -> dict[str, Any]:
    """The section of the status; bytes are those of files, but for ``resident_bytes``, which is estimated."""
    driver, log, saving = node.driver, node.log, node.host.saving
    assert saving is not None
    scrub, groups = saving.scrub, node.host.groups.values()
    first, segments = log.held
    why = why_no_writes(node)
    now_ms = driver.clock.now_ms()
    return {
        "takes_writes": why is None and not driver.is_crashed,
        "why": why,
        "log": {
            "bytes": log.position - first,
            "first_position": first,
            "position": log.position,
            "segments": segments,
            "failure": _detail(driver.failure),
            "full": _detail(driver.full),
            "cut_failures": driver.cut_failures,
        },
        "state": {
            "bytes": state_bytes(node),
            "resident_rows": saving.usage.rows,
            "resident_bytes": saving.usage.memory_bytes,
            "failure": _detail(saving.failure),
        },
        "checkpoint": {
            "count": saving.checkpoints,
            "failed": saving.failures,
            "is_under_way": saving.is_under_way,
            "age_ms": None if saving.last_ms is None else max(0, now_ms - saving.last_ms),
            "took_ms": saving.last_took_ms,
            "needed_position": saving.needed,
            "unsaved_bytes": saving.unsaved_bytes,
            "unsaved_keys": saving.unsaved,
        },
        "scrub": {
            "runs": scrub.runs,
            "is_under_way": scrub.is_under_way,
            "age_ms": None if scrub.last_ms is None else max(0, now_ms - scrub.last_ms),
            "failure": _detail(scrub.failure),
        },
        "unreadable": {
            "count": unreadable(node),
            "last": _detail(next(filter(None, [driver.unreadable, *(e.failure for e in groups)]), None)),
        },
    }


def why_no_writes(node: Node) -> str | None:
    """Why this node takes no writes: what its disk does, or what it is; None: it takes them."""
    why = node.driver.why_no_writes or why_not_member(node)
    return None if why is None else why.detail


def state_bytes(node: Node) -> int | None:
    """The size of the state store's files, None when it cannot be told."""
    try:
        return node.store.file_bytes
    except StorageError:
        return None


def unreadable(node: Node) -> int:
    """How often something could not be read from the disk."""
    return node.driver.unread + sum(engine.measures.unreadable for engine in node.host.groups.values())


def _detail(error: StorageError | None) -> str | None:
    return None if error is None else error.detail
