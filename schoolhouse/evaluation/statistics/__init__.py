"""Intervals, paired tests, win rates, pass@k, over-optimization and calibration, as functions of numbers."""
