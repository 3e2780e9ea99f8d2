"""A scripted expert for LIBERO: it solves a task from its goal alone, on the simulator's full state."""
