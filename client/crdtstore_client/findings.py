"""Findings: what an operator should know that nobody asked for, each with the command that mends it.

The question: when is all well? Not when one node says so: each sees its own side only. So all urls are asked, and each
check looks at all answers for one kind of trouble. Another kind is another function, and a place in ``CHECKS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crdtstore_client.findings_members import MEMBER_CHECKS
from crdtstore_client.looking import Finding, Look

__all__ = ["CHECKS", "examine"]


def _shards(look: Look) -> Iterator[Finding]:
    """A domain that regions declared with different numbers of shards while they could not hear each other."""
    clashes = {clash.domain: clash for each in look.views for clash in each.shards}
    for domain, clash in sorted(clashes.items()):
        others = " and ".join(map(str, clash.also))
        name = f"{domain}@{clash.also[0]}"
        yield Finding(
            "shards",
            f"the domain {domain} was declared with {clash.serves} shards, which serve, and also with {others}: what was written to keys "
            f"that are elsewhere now is read under {name}",
            f"crdtstore list {name}/COLLECTION shows it; write again under {domain} what is missing there",
        )


CHECKS: tuple[Callable[[Look], Iterator[Finding]], ...] = (*MEMBER_CHECKS, _shards)


def examine(look: Look) -> list[Finding]:
    """All that is not as it should be, the worst first."""
    return [finding for check in CHECKS for finding in check(look)]
