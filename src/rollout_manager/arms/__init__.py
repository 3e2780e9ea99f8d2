"""A simulated arm that is driven as a real one is: the controllers of ros2_control, and what they move."""
