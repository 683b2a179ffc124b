"""Load for a cluster, ours or etcd's, and what it took: what ``connect-kv bench`` runs."""
