"""Figures that are measured, not promised: fixed inputs, five runs, median and spread, CPU-seconds beside wall."""
