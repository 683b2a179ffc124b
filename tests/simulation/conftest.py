"""The plugin's fixtures, also where the package was installed before it had any."""

from connect_kv.testing.plugin import check_determinism, real_cluster, sim_cluster

__all__ = ["check_determinism", "real_cluster", "sim_cluster"]
