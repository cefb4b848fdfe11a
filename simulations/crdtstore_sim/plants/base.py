"""What a plant is: where a bug is put, how, and where it is looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crdtstore_sim.scenario import Scenario
from crdtstore_sim.swarm import draw

__all__ = ["Change", "Plant"]

Change = Callable[[Any], Any]
"""Takes the production function, gives the changed one."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A bug to put in: where, how, and the scenario of a seed in which it is looked for (the swarm's by default)."""

    owner: Any
    """The class (or map) that holds the function."""
    function: str
    change: Change
    says: str
    scenario: Callable[[int], Scenario] = draw
    beside: tuple[tuple[Any, str, Change], ...] = ()
    """What else has to be changed for one bug, where several guards stand against it: owner, function, change."""
    first: int = 0
    """Where to begin to look: a bug before which several guards stand may be minutes away from seed 0."""
