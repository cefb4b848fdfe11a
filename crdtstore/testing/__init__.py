"""Public helpers for tests: fault proxies, local clusters of real processes, strategies and laws."""
