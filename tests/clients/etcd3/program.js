// The npm package etcd3 against a cluster: node program.js HOST:PORT,... session|faults
// Exits 0 if everything was as an etcd client expects; otherwise says what was not. The environment says how:
// CLIENT_CA, CLIENT_CERT, CLIENT_KEY, CLIENT_USER, CLIENT_PASSWORD; and below which prefix it writes through faults:
// CLIENT_PREFIX.
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const readline = require('node:readline');
const { Etcd3 } = require('etcd3');

const [endpoints, mode] = process.argv.slice(2);
const { CLIENT_CA, CLIENT_CERT, CLIENT_KEY, CLIENT_USER, CLIENT_PASSWORD, CLIENT_PREFIX = 'f' } = process.env;
const file = path => (path ? fs.readFileSync(path) : undefined);
const client = new Etcd3({
  hosts: endpoints.split(',').map(one => `${CLIENT_CA ? 'https' : 'http'}://${one}`),
  credentials: CLIENT_CA
    ? { rootCertificate: file(CLIENT_CA), privateKey: file(CLIENT_KEY), certChain: file(CLIENT_CERT) } : undefined,
  auth: CLIENT_USER ? { username: CLIENT_USER, password: CLIENT_PASSWORD } : undefined,
  defaultCallOptions: call => (call.isStream ? {} : { deadline: Date.now() + 10000 }),
});
const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

async function until(condition, what) {
  for (let tries = 0; tries < 1500; tries++) {
    if (await condition()) return;
    await pause(20);
  }
  throw new Error(`waited for ${what}`);
}

async function keysAndValues() {
  assert.equal(await client.get('missing').string(), null);
  await client.put('a').value('1');
  const { version } = (await client.get('a').exec()).kvs[0];
  assert.equal(version, '1');
  const previous = await client.put('a').value('2').getPrevious();
  assert.equal(previous.value.toString(), '1');
  for (const name of ['p/1', 'p/2', 'p/3']) await client.put(name).value(name);
  assert.deepEqual(await client.getAll().prefix('p/').keys(), ['p/1', 'p/2', 'p/3']);
  assert.equal(await client.getAll().prefix('p/').count(), 3);
  const sorted = await client.getAll().prefix('p/').sort('Key', 'Descend').limit(2).strings();
  assert.deepEqual(Object.keys(sorted), ['p/3', 'p/2']);
  const revision = (await client.get('a').exec()).header.revision;
  await client.put('a').value('3');
  assert.equal(await client.get('a').revision(revision).string(), '2');
  assert.equal((await client.delete().prefix('p/')).deleted, '3');
  await assert.rejects(client.get('').exec(), /key is not provided/);
}

async function transactions() {
  await client.put('t').value('1');
  const held = await client.if('t', 'Value', '==', '1')
    .then(client.put('t').value('2'), client.get('t')).else(client.delete().key('t')).commit();
  assert.equal(held.succeeded, true);
  assert.equal(held.responses[1].response_range.kvs[0].value.toString(), '2');
  const failed = await client.if('t', 'Version', '==', 1).then(client.put('t').value('no'))
    .else(client.get('t')).commit();
  assert.equal(failed.succeeded, false);
  await client.stm().transact(async stm => {
    const value = await stm.get('t').string();
    await stm.put('t').value(`${value}!`);
  });
  assert.equal(await client.get('t').string(), '2!');
}

async function watches() {
  const watcher = await client.watch().prefix('w/').withPreviousKV().create();
  const seen = [];
  watcher.on('put', (one, before) => seen.push([one.key.toString(), one.value.toString(), before ? before.value.toString() : null]));
  watcher.on('delete', one => seen.push([one.key.toString()]));
  const { header } = await client.put('w/1').value('1');
  await client.put('w/1').value('2');
  await client.delete().key('w/1');
  await until(() => seen.length === 3, 'three events');
  assert.deepEqual(seen, [['w/1', '1', null], ['w/1', '2', '1'], ['w/1']]);
  await watcher.cancel();
  const again = await client.watch().key('w/1').startRevision(header.revision).create();
  let past = 0;
  again.on('data', response => { past += response.events.length; });
  await until(() => past === 3, 'three events of the past');
  await again.cancel();
}

async function leases() {
  const lease = client.lease(2);
  await lease.put('leased').value('x');
  await pause(4000);
  assert.equal(await client.get('leased').string(), 'x', 'kept alive by itself');
  await lease.keepaliveOnce();
  await lease.revoke();
  assert.equal(await client.get('leased').string(), null);
  const dying = client.lease(2, { autoKeepAlive: false });
  await dying.put('dying').value('x');
  await until(async () => (await client.get('dying').string()) === null, 'the lease to end');
}

async function locks() {
  const lock = client.lock('lock').ttl(5);
  await lock.acquire();
  // Under its bare name, where the lock service and etcdctl do not look: docs/api.md says so.
  assert.strictEqual(await client.get('lock').exists(), true);
  assert.deepStrictEqual(await client.getAll().prefix('lock/').keys(), []);
  await assert.rejects(client.lock('lock').ttl(5).acquire());
  await lock.release();
}

async function faults() {
  const watcher = await client.watch().prefix(`${CLIENT_PREFIX}/`).create();
  const seen = [];
  watcher.on('put', one => seen.push([Number(one.key.toString().split('/')[1]), one.mod_revision]));
  const lease = client.lease(10);
  let lost = null;
  lease.on('lost', error => { lost = error; });
  await lease.put(`${CLIENT_PREFIX} alive`).value('x');
  let finish = false;
  readline.createInterface({ input: process.stdin }).on('line', () => { finish = true; });
  let number = 0, retried = 0;
  for (; !finish || number < 200; number++) {
    for (;;) {
      try {
        await client.put(`${CLIENT_PREFIX}/${number}`).value('x');
        break;
      } catch (error) {
        retried++;
        await pause(20);
      }
    }
    if (number === 100) console.log('READY');
  }
  const last = number - 1;
  await until(() => seen.some(([one]) => one === last), 'the last event');
  const revisions = seen.map(([, revision]) => Number(revision));
  assert.deepEqual(revisions, [...new Set(revisions)].sort((a, b) => a - b), 'each revision once, in order');
  assert.equal(new Set(seen.map(([one]) => one)).size, number, 'every write was seen');
  assert.equal(lost, null, 'the lease was lost');
  assert.equal(await client.get(`${CLIENT_PREFIX} alive`).string(), 'x');
  console.log(`${number} writes, ${retried} retried, ${seen.length} events`);
}

async function main() {
  if (mode === 'faults') return faults();
  for (const part of [keysAndValues, transactions, watches, leases, locks]) {
    await part();
    console.log(part.name);
  }
}

main().then(() => process.exit(0), error => { console.error(error); process.exit(1); });
