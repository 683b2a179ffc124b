#!/usr/bin/env bash
# antietcd 1.3.1, a small replacement of etcd for Node.js: a put of the value that a key has already is no change. It
# is answered as any other, but the key's mod_revision and the store's revision stay, and watchers hear nothing. Who
# fences others by writing a key again (compare MOD, then put) is not noticed by them. In etcd each put makes a new
# revision and an event, whatever its value; the README, which lists what is not supported, does not speak of it.
#
# Expected: mod_revision rises with each of the two puts, and both are events.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --ignore-scripts antietcd@1.3.1 >/dev/null
cat > put.cjs <<'NODE'
const AntiEtcd = require('antietcd');

const encoded = (text) => Buffer.from(text).toString('base64');
async function main() {
  const store = new AntiEtcd({ ip: '127.0.0.1', port: 0 });
  await store.start();
  const events = [];
  await store.create_watch({ key: encoded('job/holder') }, (message) => events.push(message));
  const revisions = [];
  for (const value of ['a', 'a', 'b']) {
    await store.put({ key: encoded('job/holder'), value: encoded(value) });
    const { kvs } = await store.range({ key: encoded('job/holder') });
    revisions.push(Number(kvs[0].mod_revision));
  }
  await new Promise((done) => setTimeout(done, 500));
  console.log(`mod_revision after putting a, a, b: ${revisions}; watchers were told ${events.length} times`);
  process.exit(revisions[0] === revisions[1] && revisions[2] > revisions[1] && events.length === 2 ? 0 : 1);
}
main();
NODE
node put.cjs
