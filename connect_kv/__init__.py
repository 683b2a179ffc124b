"""connect-kv: fault-tolerant services in Python, and the replicated key/value service built so."""
