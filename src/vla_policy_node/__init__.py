"""What the robot sees and does: observations, the policy, and the commands it sends."""
