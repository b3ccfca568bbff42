"""Simulators of the data of systems whose data cannot be passed on: physics, seeded, vectorized."""
