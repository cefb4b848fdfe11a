"""Backups of a node: taken beside it, checked, restored under a new id."""
