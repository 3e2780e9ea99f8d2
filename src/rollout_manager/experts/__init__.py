"""Scripted experts that act on a simulator's privileged state."""
