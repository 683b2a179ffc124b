"""Patroni on connect-kv: three PostgreSQL nodes, faults, and what was seen of them. See docs/patroni.md."""
