"""The subcommands of `encore`, a file each. What is heavy is imported when a command runs, not when it is listed."""
