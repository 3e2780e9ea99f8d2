"""What happened: episodes, their environments, their bags and their labels."""
