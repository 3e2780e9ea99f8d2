"""LIBERO: 130 tasks of a simulated Panda arm in five suites. Nothing heavy is imported until a scene is built."""
