"""Faults on real processes, and what clients must still be able to rely on. `scripts/chaos` runs it."""
