"""Plants: known bugs, each a small change of one production function, put in to see that the checkers bite.

The question: would a checker notice? A checker that never failed has shown nothing. Each plant is applied to the code that nodes run, for
the time of a run, and must be found within a bounded number of seeds, which pass without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from crdtstore.errors import UsageError
from crdtstore_sim.plants.base import Plant
from crdtstore_sim.plants.catalogue import IN_CATALOGUE
from crdtstore_sim.plants.engine import IN_ENGINE
from crdtstore_sim.plants.identity import IN_IDENTITY
from crdtstore_sim.plants.members import IN_MEMBERS
from crdtstore_sim.plants.receipts import IN_RECEIPTS
from crdtstore_sim.plants.stores import IN_STORES

__all__ = ["PLANTS", "Plant", "plant_of", "planted"]

PLANTS: dict[str, Plant] = IN_ENGINE | IN_CATALOGUE | IN_STORES | IN_RECEIPTS | IN_MEMBERS | IN_IDENTITY
"""By name."""


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Production code with one bug; without a name as it is.

    Raises:  UsageError for a name that does not exist.
    """
    if name is None:
        yield
        return
    plant = plant_of(name)
    with ExitStack() as stack:
        for owner, function, change in ((plant.owner, plant.function, plant.change), *plant.beside):
            if isinstance(owner, dict):
                stack.enter_context(patch.dict(owner, {function: change(owner[function])}))
            elif isinstance(vars(owner).get(function), property):
                stack.enter_context(patch.object(owner, function, property(change(vars(owner)[function].fget))))
            else:
                stack.enter_context(patch.object(owner, function, change(getattr(owner, function))))
        yield


def plant_of(name: str) -> Plant:
    plant = PLANTS.get(name)
    if plant is None:
        raise UsageError(f"there is no plant {name[:100]}; there are {', '.join(PLANTS)}")
    return plant
