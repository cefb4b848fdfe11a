"""What was the least? The least value that was ever set.

The question: how does it differ from ``max_register``? In nothing but which value is the better one; there stands the rest.
"""

from __future__ import annotations

from crdtstore.leaves import MIN
from crdtstore.types.max_register import Extremum

__all__ = ["MinRegister"]


class MinRegister(Extremum):
    """The least value."""

    name = "min_register"
    question = "What was the least?"
    kind = MIN
    superlative = "least"
