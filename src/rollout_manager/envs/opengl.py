"""What MUJOCO_GL may name, for who needs to know it without being given a default as `rendering` does."""

LIBRARIES = {"osmesa": "libosmesa6", "egl": "libegl1"}
"""The system's package behind each of MUJOCO_GL's values that render without a display."""
