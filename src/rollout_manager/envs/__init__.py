"""Simulated robots, one file a simulator."""
