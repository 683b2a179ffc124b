"""What the composition root puts around a node: its directory, ports, health, logs, the process."""
