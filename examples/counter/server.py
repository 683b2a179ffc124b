"""One member of the cluster in Connect.toml; CONNECT_KV_NAME says which.

CONNECT_KV_NAME=n1 python server.py
CONNECT_KV_NAME=n2 python server.py
CONNECT_KV_NAME=n3 python server.py
"""

from machine import Counter

from connect_kv import Cluster, Server

if __name__ == "__main__":
    Server(Cluster.from_file("Connect.toml"), machines={"counter": Counter()}).run()
