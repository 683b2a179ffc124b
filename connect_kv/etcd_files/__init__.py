"""etcd's own files: its database (bbolt), snapshots made of it, and the end of its write-ahead log."""
