// The key space as a tree: one level of it, a page at a time, however much lies below.

import { call } from './api.js';
import { prefixEnd, rangeOf, decode, encode } from './bytes.js';
import { num } from './format.js';

const FEW = 4;
const MANY = 128;

/**
 * @typedef {{folder: boolean, key: string, version?: number, mod?: number, lease?: string}} Entry
 * A folder stands for all keys that go on behind a separator: they are skipped, not read.
 */

/**
 * @param {{prefix: string, separator: string, from: string, limit: number, revision: number}} wanted
 *   `from`: where the page begins; `revision`: 0 is now
 * @param {AbortSignal} signal
 * @returns {Promise<{entries: Entry[], next: string, revision: number, count: number}>}
 *   `next`: where the next page begins, or nothing; `count`: of all keys from the page's first one on
 */
export async function level({ prefix, separator, from, limit, revision }, signal) {
  const entries = [];
  let start = from || prefix;
  let ask = separator ? 2 * FEW : limit;
  let count = -1;
  let more = true;
  while (more && entries.length < limit) {
    const found = await call('/v3/kv/range', {
      ...rangeOf(prefix, start), limit: Math.min(ask, MANY), keys_only: true, revision,
    }, signal);
    revision ||= num(found.header.revision); // all pages show one moment
    if (count < 0) count = num(found.count);
    const kvs = (found.kvs || []).map((one) => ({ ...one, key: decode(one.key) }));
    more = Boolean(found.more);
    if (!kvs.length) break;
    start = add(entries, kvs, prefix, separator, limit);
    if (entries.length > limit) {
      const cut = entries.splice(limit);
      return { entries, next: cut[0].key, revision, count };
    }
    const last = entries.at(-1);
    more &&= start !== '';
    // Where folders are, little of each is read; where keys are, many at a time.
    ask = last.folder ? FEW : 2 * ask;
  }
  return { entries, next: more ? start : '', revision, count };
}

/** @returns {string} where to go on; empty: behind the last key there can be */
function add(entries, kvs, prefix, separator) {
  let skip = '';
  for (const kv of kvs) {
    if (skip && kv.key < skip) continue;
    const at = separator ? kv.key.indexOf(separator, prefix.length) : -1;
    if (at < 0) {
      entries.push({ folder: false, key: kv.key, version: num(kv.version), mod: num(kv.mod_revision), lease: kv.lease });
      skip = '';
    } else {
      const folder = kv.key.slice(0, at + separator.length);
      entries.push({ folder: true, key: folder });
      skip = prefixEnd(folder);
      if (!skip) return '';
    }
  }
  return skip || `${kvs.at(-1).key}\0`;
}

/** How many keys a folder has. */
export async function countOf(prefix, revision, signal) {
  const found = await call('/v3/kv/range', { ...rangeOf(prefix), count_only: true, revision }, signal);
  return num(found.count);
}

/** One key, as it is or was. @returns {Promise<{kv: any, revision: number}>} `kv`: null, if there is none */
export async function get(key, revision, signal) {
  const found = await call('/v3/kv/range', { key: encode(key), revision }, signal);
  const kv = found.kvs?.[0];
  return {
    revision: num(found.header.revision),
    kv: kv ? {
      key, value: decode(kv.value), version: num(kv.version), mod: num(kv.mod_revision), created: num(kv.create_revision), lease: kv.lease,
    } : null,
  };
}
