"""The checkers: one law per file, each told what happened and asking only the facts.

The question: when may a checker look? At every step, so each does work in proportion to what changed; whole readings are compared at
some steps and at the end.
"""

from __future__ import annotations

from crdtstore_sim.checkers.bounds import Bounds
from crdtstore_sim.checkers.causality import Causality
from crdtstore_sim.checkers.convergence import Convergence
from crdtstore_sim.checkers.dots import Dots
from crdtstore_sim.checkers.durability import Durability
from crdtstore_sim.checkers.pages import Pages
from crdtstore_sim.checkers.progress import Progress
from crdtstore_sim.checkers.receipts import Receipts
from crdtstore_sim.checkers.refusals import Refusals
from crdtstore_sim.checkers.restarts import Restarts
from crdtstore_sim.checkers.sessions import Sessions
from crdtstore_sim.checkers.shards import Shards
from crdtstore_sim.checkers.stability import Stability
from crdtstore_sim.checkers.stamps import Stamps
from crdtstore_sim.checkers.stores import Stores
from crdtstore_sim.checkers.values import Values

__all__ = [
    "AMONG_MEMBERS",
    "NAMES",
    "Bounds",
    "Causality",
    "Convergence",
    "Dots",
    "Durability",
    "Pages",
    "Progress",
    "Receipts",
    "Refusals",
    "Restarts",
    "Sessions",
    "Shards",
    "Stability",
    "Stamps",
    "Stores",
    "Values",
]

NAMES = (
    "convergence",
    "dots",
    "causality",
    "durability",
    "receipts",
    "stability",
    "model values",
    "bounds",
    "sessions",
    "stamps",
    "refusals",
    "progress",
    "restarts",
    "stores",
    "shards",
)
"""In the order of reports. ``errors`` joins them when a node raises."""
AMONG_MEMBERS = (
    *("configurations", "finals", "agreement", "survival", "orphans"),
    *(name for name in NAMES if name != "progress"),
)
"""The same where members change: ``agreement`` takes the place of ``progress``."""
