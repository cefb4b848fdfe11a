"""What becomes of a node's id, told once each: an event in the log and a count in the metrics.

The question: what must nobody have to guess afterwards? Why a node goes on under its id, why it does not, when it became a member, when it
no longer was, and that what one side decided the other has not. The counts go on over all ids that the node has in this process.
"""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import Any

from crdtstore_node.logs import event

__all__ = ["TOLD", "Story"]

_log = logging.getLogger(__name__)

TOLD = MappingProxyType(
    {
        "continued": (logging.INFO, "this node goes on under its id"),
        "unproven": (logging.WARNING, "nothing proves that this node may go on under its id: it serves reads only"),
        "fenced": (logging.ERROR, "fenced: this node takes no writes under its id any more"),
        "left": (logging.WARNING, "this node has left its id, and joins under a new one"),
        "joined": (logging.INFO, "this node is a member"),
        "rejoined": (logging.INFO, "this node is a member again, under a new id"),
        "installed": (logging.INFO, "a group was taken over"),
        "evicted": (logging.ERROR, "this node was removed: it serves reads only, until an operator lets it join anew"),
        "split": (logging.ERROR, "a peer stands in another line of configurations: nothing that it says is applied"),
    }
)


class Story:
    """Mutable; ``counts`` says how often each was told."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(TOLD, 0)

    def tell(self, what: str, **fields: Any) -> None:
        level, text = TOLD[what]
        self.counts[what] += 1
        event(_log, level, text, **fields)
