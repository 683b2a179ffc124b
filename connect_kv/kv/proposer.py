"""Who proposed a command: what a member does by itself is not judged when it is applied."""

BY_SERVER = (1 << 64) - 1
"""As `Command.judged`: a member proposed it by itself."""
