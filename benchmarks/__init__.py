"""Measures this beside etcd, PySyncObj and an empty handler, in turns on one machine: ``scripts/bench``."""
