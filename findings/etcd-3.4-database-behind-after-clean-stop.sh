#!/usr/bin/env bash
# etcd 3.4.23, as Debian 12 has it: enabling authentication and logins are applied and written to the database, but
# its consistent_index does not move. After a clean stop the database says that it stands before entries whose
# effect it holds, and whoever compares it with the write-ahead log takes it for one that a crash left behind.
#
# Expected: after a clean stop consistent_index is the index of the last applied entry, as after a put.
set -euo pipefail
dir=$(mktemp -d)
etcd=
trap '[ -z "$etcd" ] || kill "$etcd" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
apt-get download -qq etcd-server=3.4.23* etcd-client=3.4.23* 2>/dev/null
for package in etcd-server_*.deb etcd-client_*.deb; do dpkg -x "$package" .; done
read -r client peer < <(python3 -c 'import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in sockets))')
export ETCDCTL_API=3
ask() { usr/bin/etcdctl --endpoints "127.0.0.1:$client" "$@"; }

start() {
  usr/bin/etcd --name a --data-dir data --listen-client-urls "http://127.0.0.1:$client" \
    --advertise-client-urls "http://127.0.0.1:$client" --listen-peer-urls "http://127.0.0.1:$peer" \
    --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "a=http://127.0.0.1:$peer" 2>>etcd.log &
  etcd=$!
  for _ in $(seq 100); do ask endpoint status >/dev/null 2>&1 && return; sleep 0.2; done
  cat etcd.log; exit 1
}

# Stops etcd. `applied`: the last applied entry as it said; `index`, `enabled`: what its database says then.
stop() {
  applied=$(ask "$@" endpoint status -w json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["Status"]["raftAppliedIndex"])')
  kill -TERM "$etcd"; wait "$etcd" || true; etcd=
  # Pages that are free keep what they held: the highest number is the one that holds.
  read -r index enabled < <(python3 - <<'PYTHON'
import re

content = open("data/member/snap/db", "rb").read()
found = max(int.from_bytes(one, "big") for one in re.findall(rb"consistent_index(.{8})", content, re.DOTALL))
print(found, int(b"authEnabled\x01" in content))
PYTHON
)
}

start
ask put key value >/dev/null
ask user add root:secret >/dev/null
ask role add root >/dev/null
ask user grant-role root root >/dev/null
stop
echo "after puts and users:           applied $applied, consistent_index $index"
[ "$index" = "$applied" ] && [ "$enabled" = 0 ]
start
ask auth enable >/dev/null
ask --user root:secret get key >/dev/null
stop --user root:secret
echo "after auth enable and a login:  applied $applied, consistent_index $index, authentication on in the database: $enabled"
[ "$enabled" = 1 ] || { echo "it was not written at all"; exit 1; }
[ "$index" -lt "$applied" ] || { echo "changed: the database stands at the last applied entry"; exit 1; }
