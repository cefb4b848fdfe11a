"""``crdtstore bench``: a load generator for whoever wants to know what their cluster does with their kind of work."""
