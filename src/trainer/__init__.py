"""What the robot learns: filters, datasets, learning algorithms and their evaluation."""
