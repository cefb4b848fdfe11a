"""``crdtstore dev``: a cluster of several regions on one machine."""

from crdtstore_node.dev.cli import dev

__all__ = ["dev"]
