"""What the composition root puts around a node: its directory, ports, health, logs, the process."""

from connect_kv.serving.run import run, run_configured

__all__ = ["run", "run_configured"]
