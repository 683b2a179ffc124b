// One key: its value in three forms, what it was before, its lease, and changing it.

import { call, session } from './api.js';
import { asHex, asText, encode, fromAddress, fromText, decode, shown, toAddress } from './bytes.js';
import { badge, field, h, say, sure, told } from './dom.js';
import { diff } from './diff.js';
import { bytes, count, hex, num, plural } from './format.js';
import { address, moment, path } from './keys.js';
import { get } from './tree.js';
import { watching } from './watching.js';

const SHOWN = 64 << 10;
const REVISIONS = 10;
const CONFLICT = 'It was changed meanwhile: nothing was written. Load it again.';

/** @returns {Array<[string, string, string]>} name, text and class of each form that fits */
function forms(value) {
  const text = asText(value);
  const found = [];
  if (text !== null) {
    try {
      if (/^\s*[[{]/.test(text)) found.push(['JSON', JSON.stringify(JSON.parse(text), null, 2), '']);
    } catch { /* it only begins like it */ }
    found.push(['Text', text.replace(/[\u202a-\u202e\u2066-\u2069]/g, (one) => shown(fromText(one))), '']);
  }
  found.push(['Hex', asHex(value), 'hex']);
  return found;
}

/** The value, and a choice of forms. */
function valueView(kv) {
  const cut = kv.value.length > SHOWN;
  const place = h('div', {});
  const draw = (value) => {
    const all = forms(value);
    const box = h('pre', { tabindex: 0, 'aria-label': 'Value', id: 'value' });
    const choose = ([, text, kind]) => {
      box.textContent = text;
      box.className = kind;
    };
    choose(all[0]);
    place.replaceChildren(h('fieldset', {}, h('legend', {}, `Value, ${bytes(kv.value.length)}`), all.map((one, at) => h('label', {},
      h('input', { type: 'radio', name: 'form', checked: at === 0, onchange: () => choose(one) }), ' ', one[0])), box,
    cut && value.length < kv.value.length && h('p', {}, `The first ${bytes(SHOWN)}. `, h('button', { type: 'button', onclick: () => draw(kv.value) }, 'Show all'))));
  };
  draw(cut ? kv.value.slice(0, SHOWN) : kv.value);
  return place;
}

async function leaseView(lease, signal) {
  const found = await call('/v3/lease/timetolive', { ID: lease, keys: true }, signal);
  if (num(found.TTL) < 0) return 'has ended';
  const keys = (found.keys || []).map(decode);
  return [`${hex(lease)}: ${count(num(found.TTL))} s left of ${count(num(found.grantedTTL))}; it holds ${plural(keys.length, 'key')}: `,
    keys.slice(0, 10).map((one, at) => [at ? ', ' : '', h('a', { href: address('key', { key: toAddress(one) }) }, shown(one))]), keys.length > 10 ? ', …' : ''];
}

function facts(kv, signal) {
  const lease = h('dd', {}, kv.lease ? '…' : 'none');
  if (kv.lease) {
    leaseView(kv.lease, signal).then((told1) => lease.replaceChildren(h('span', {}, told1)), (error) => {
      if (error.name !== 'AbortError') lease.textContent = `${hex(kv.lease)}: ${error.message}`;
    });
  }
  const all = [['Version', count(kv.version)], ['Changed at', count(kv.mod)], ['Created at', count(kv.created)]];
  return h('dl', { class: 'facts' }, all.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))), h('div', {}, h('dt', {}, 'Lease'), lease));
}

/** Revisions of the key, the newest in front, each with what it changed. */
function historyView(kv, signal) {
  const list = h('ol', { class: 'revisions' });
  const problem = h('div', {});
  let at = kv;
  const button = h('button', { type: 'button', onclick: () => older() }, 'Show what it was before');

  async function older() {
    button.disabled = true;
    try {
      for (let left = REVISIONS; left && at; left -= 1) {
        const before = at.mod > at.created ? (await get(kv.key, at.mod - 1, signal)).kv : null;
        list.append(revision(at, before));
        at = before;
      }
    } catch (error) {
      if (error.name === 'AbortError') return;
      if (/compacted/.test(error.message)) {
        list.append(h('li', {}, h('h3', {}, `Revision ${count(at.mod)}`), h('p', {}, 'What was before is compacted away.')));
        at = null;
      } else told(problem, error);
    }
    button.disabled = false;
    button.hidden = !at;
    button.textContent = 'Show earlier ones';
    say(`${plural(list.children.length, 'revision')} shown.`);
  }
  return h('section', { 'aria-labelledby': 'before' }, h('h2', { id: 'before' }, 'Revisions'), list, problem, button);
}

function revision(kv, before) {
  const link = h('a', { href: address('key', { key: toAddress(kv.key), rev: kv.mod }) }, `Revision ${count(kv.mod)}`);
  const head = h('h3', {}, link, ` (version ${count(kv.version)})`);
  const [old, now] = [before && asText(before.value), asText(kv.value)];
  if (!before) return h('li', {}, head, h('p', {}, badge('plain', 'created'), ` with ${bytes(kv.value.length)}`));
  if (old === null || now === null) return h('li', {}, head, h('p', {}, `${bytes(before.value.length)} became ${bytes(kv.value.length)}`));
  if (old === now) return h('li', {}, head, h('p', {}, 'The value stayed the same.'));
  return h('li', {}, head, diffView(pretty(old), pretty(now)));
}

function pretty(text) {
  try {
    return /^\s*[[{]/.test(text) ? JSON.stringify(JSON.parse(text), null, 2) : text;
  } catch {
    return text;
  }
}

function diffView(old, now) {
  const lines = diff(old, now);
  const near = (at) => lines.slice(Math.max(0, at - 2), at + 3).some((one) => one.kind !== 'same');
  const tags = { gone: ['del', '− '], added: ['ins', '+ '] };
  return h('pre', { tabindex: 0, 'aria-label': 'Differences' }, lines.map((one, at) => {
    if (one.kind === 'same') return near(at) ? h('span', {}, `  ${one.line}\n`) : '';
    const [tag, mark] = tags[one.kind];
    return h(tag, {}, mark + one.line);
  }));
}

/** Write or delete, if the key is as it was looked at. */
async function change(key, mod, operation) {
  const compare = [{ key: encode(key), target: 'MOD', result: 'EQUAL', mod_revision: mod }];
  const answer = await call('/v3/kv/txn', { compare, success: [operation] });
  if (!answer.succeeded) throw new Error(CONFLICT);
  return num(answer.header.revision);
}

function editor(key, kv, reload) {
  const text = kv ? asText(kv.value) : '';
  const problem = h('div', {});
  const attempt = async (operation, said) => {
    try {
      const revision = await change(key, kv ? kv.mod : 0, operation);
      await reload();
      say(`${said} at revision ${revision}.`);
    } catch (error) {
      told(problem, error);
    }
  };
  const input = h('textarea', { spellcheck: 'false', value: text ?? '' });
  const form = h('form', {
    onsubmit: (event) => {
      event.preventDefault();
      // What browsers do to the ends of lines is not to be stored.
      const value = encode(fromText(input.value.replace(/\r\n/g, '\n')));
      attempt({ request_put: { key: encode(key), value, ignore_lease: Boolean(kv?.lease) } }, 'Written');
    },
  }, field('New value', input), h('p', { class: 'row' }, h('button', {}, kv ? 'Write' : 'Create'),
    kv && h('button', {
      type: 'button', class: 'danger',
      onclick: async () => {
        if (await sure(`Delete ${shown(key)}?`, 'Delete it')) attempt({ request_delete_range: { key: encode(key) } }, 'Deleted');
      },
    }, 'Delete')));
  return h('section', { 'aria-labelledby': 'edit' }, h('h2', { id: 'edit' }, kv ? 'Change it' : 'Create it'),
    text === null ? h('p', {}, 'Its value is no text: what is written here replaces it whole.') : '', form, problem);
}

/** @param {HTMLElement} place @param {URLSearchParams} asked @param {AbortSignal} signal */
export async function show(place, asked, signal) {
  const key = fromAddress(asked.get('key') || '');
  const { revision, form, banner } = moment(asked, 'key', { key: toAddress(key) });
  const body = h('div', {});
  const stale = h('p', { class: 'then', hidden: true }, 'It has changed since. ', h('button', { type: 'button', onclick: () => load() }, 'Load it again'));
  place.replaceChildren(h('h1', { tabindex: -1 }, shown(key)), path(key, '/', revision, true), form, banner || '', stale, body);

  async function load() {
    stale.hidden = true;
    const { kv } = await get(key, revision, signal);
    body.replaceChildren(kv ? h('div', {}, facts(kv, signal), valueView(kv), historyView(kv, signal)) : h('p', {}, revision ? 'There was no such key then.' : 'There is no such key.'));
    if (!revision && session.writes) body.append(editor(key, kv, load));
  }
  await load();
  if (!revision) {
    place.append(h('section', { 'aria-labelledby': 'live' }, h('h2', { id: 'live' }, 'Changes'),
      watching(key, null, signal, () => { stale.hidden = false; })));
  }
}
