"""What a node keeps on disk: the commit log, and its double in memory for the simulator."""
