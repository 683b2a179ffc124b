"""What the composition root puts around a node: identity, listening, health, logs, signals."""
