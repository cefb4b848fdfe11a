"""Findings: what an operator should know that nobody asked for, each with the command that mends it.

The question: when is all well? Not when one node says so: each sees its own side only. So all urls are asked, and each
check looks at all answers for one kind of trouble. Another kind is another function, and a place in ``CHECKS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crdtstore_client.findings_members import MEMBER_CHECKS
from crdtstore_client.looking import Finding, Look

__all__ = ["CHECKS", "examine"]

CHECKS: tuple[Callable[[Look], Iterator[Finding]], ...] = MEMBER_CHECKS


def examine(look: Look) -> list[Finding]:
    """All that is not as it should be, the worst first."""
    return [finding for check in CHECKS for finding in check(look)]
