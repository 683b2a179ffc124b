// Keys by prefix, now or at a revision.

import { call, session } from './api.js';
import { decode, fromAddress, prefixEnd, shown, toAddress } from './bytes.js';
import { field, h, say, table } from './dom.js';
import { count, hex, num, plural } from './format.js';
import { countOf, level } from './tree.js';
import { watching } from './watching.js';

const PAGE = 100;
const COUNTED_AT_ONCE = 3;
const SEPARATORS = [['/', '/'], [':', ':'], ['.', '.'], ['', 'none: all keys']];

/** @param {string} view @param {Object<string, string|number>} asked @returns {string} the address of a view */
export function address(view, asked) {
  const parts = Object.entries(asked).filter(([, value]) => value !== '' && value !== 0 && value !== undefined);
  return `#/${view}?${new URLSearchParams(parts)}`;
}

/** Which revision is looked at; 0: now. Says so, with the way back. */
export function moment(asked, view, others) {
  const revision = Math.max(0, Math.trunc(Number(asked.get('rev') || 0))) || 0;
  const input = h('input', { type: 'number', min: 1, step: 1, inputmode: 'numeric', value: revision || '', 'aria-describedby': 'then-note' });
  const form = h('form', {
    class: 'row', 'aria-label': 'Time travel',
    onsubmit: (event) => {
      event.preventDefault();
      location.hash = address(view, { ...others, rev: input.value });
    },
  }, field('As of revision', input), h('button', {}, 'Go there'),
  h('small', { id: 'then-note' }, 'Empty: now. As far back as history is kept.'));
  const banner = revision > 0 && h('p', { class: 'then' }, `As it was at revision ${count(revision)}. `, h('a', { href: address(view, others) }, 'Back to now'));
  return { revision, form, banner };
}

/** The way to a prefix, one step a separator. */
export function path(prefix, separator, revision, last) {
  const steps = [['', 'all keys']];
  if (separator) {
    let at = prefix.indexOf(separator);
    while (at >= 0) {
      const from = steps.at(-1)[0].length;
      steps.push([prefix.slice(0, at + separator.length), shown(prefix.slice(from, at + separator.length))]);
      at = prefix.indexOf(separator, at + separator.length);
    }
  }
  const rest = prefix.slice(steps.at(-1)[0].length);
  if (rest) steps.push([prefix, shown(rest)]);
  return h('nav', { 'aria-label': 'Prefix' }, h('ol', { class: 'path' }, steps.map(([to, name], at) => h('li', {},
    at === steps.length - 1 && last ? h('span', { 'aria-current': 'page' }, name)
      : h('a', { href: address('keys', { prefix: toAddress(to), sep: separator === '/' ? '' : separator || 'none', rev: revision }) }, name)))));
}

function toolbar(asked, here) {
  const prefix = h('input', { value: asked.get('prefix') || '', spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off' });
  const separator = h('select', {}, SEPARATORS.map(([value, name]) => h('option', { value: value || 'none' }, name)));
  separator.value = asked.get('sep') || '/';
  const form = h('form', {
    class: 'row', role: 'search',
    onsubmit: (event) => {
      event.preventDefault();
      location.hash = here(toAddress(fromAddress(prefix.value)), separator.value);
    },
  }, h('label', { class: 'field wide' }, h('span', {}, 'Prefix ', h('small', {}, '(bytes that are no text as %ff)')), prefix),
  field('Separator', separator), h('button', {}, 'Show'));
  separator.addEventListener('change', () => form.requestSubmit());
  return form;
}

function entryRow(entry, prefix, separator, revision, counts) {
  const name = shown(entry.key.slice(prefix.length)) || '(the prefix itself)';
  if (entry.folder) {
    const number = h('span', {}, '…');
    counts.push([entry.key, number]);
    return [h('a', { href: address('keys', { prefix: toAddress(entry.key), sep: separator === '/' ? '' : separator, rev: revision }) }, `${name}`), number, '', ''];
  }
  return [h('a', { href: address('key', { key: toAddress(entry.key), rev: revision }) }, name), `version ${count(entry.version)}`, count(entry.mod), entry.lease ? hex(entry.lease) : ''];
}

async function fill(counts, revision, signal) {
  const waiting = [...counts];
  const work = async () => {
    for (let one = waiting.shift(); one && !signal.aborted; one = waiting.shift()) {
      try {
        one[1].textContent = plural(await countOf(one[0], revision, signal), 'key');
      } catch {
        one[1].textContent = '';
      }
    }
  };
  await Promise.all(Array.from({ length: COUNTED_AT_ONCE }, work));
}

/** What a user may read, where all keys are more than that. */
async function granted(signal) {
  const { roles } = await call('/v3/auth/user/get', { name: session.user }, signal);
  const found = await Promise.all((roles || []).map((role) => call('/v3/auth/role/get', { role }, signal)));
  const ranges = found.flatMap((one) => one.perm || []).filter((one) => one.permType !== 'WRITE');
  return h('section', {}, h('h2', {}, 'What you may read'), ranges.length ? h('ul', {}, ranges.map((one) => {
    const [key, end] = [decode(one.key), decode(one.range_end)];
    if (!end) return h('li', {}, h('a', { href: address('key', { key: toAddress(key) }) }, shown(key)), ' (a key)');
    if (end === prefixEnd(key)) return h('li', {}, h('a', { href: address('keys', { prefix: toAddress(key) }) }, shown(key)), ' (all that begins so)');
    return h('li', {}, h('code', {}, shown(key)), ' to ', h('code', {}, end === '\0' ? 'the end' : shown(end)));
  })) : h('p', {}, 'No role of yours grants any key.'));
}

/** @param {HTMLElement} place @param {URLSearchParams} asked @param {AbortSignal} signal */
export async function show(place, asked, signal) {
  const prefix = fromAddress(asked.get('prefix') || '');
  const separator = asked.get('sep') === 'none' ? '' : asked.get('sep') || '/';
  const others = { prefix: toAddress(prefix), sep: asked.get('sep') || '' };
  const { revision, form, banner } = moment(asked, 'keys', others);
  const result = h('div', { 'aria-live': 'off' });
  place.replaceChildren(h('h1', { tabindex: -1 }, 'Keys'),
    toolbar(asked, (to, sep) => address('keys', { prefix: to, sep: sep === '/' ? '' : sep, rev: revision })), form, banner || '',
    path(prefix, separator, revision, true), result);
  const counts = [];
  let found;
  try {
    found = await level({ prefix, separator, from: fromAddress(asked.get('from') || ''), limit: PAGE, revision: revision || num(asked.get('at')) }, signal);
  } catch (error) {
    if (session.user && error.code === 7) place.append(await granted(signal));
    throw error;
  }
  const page = (from) => address('keys', { ...others, rev: revision, from: toAddress(from), at: revision ? 0 : found.revision });
  const [first, next] = [asked.get('from') && h('a', { href: address('keys', { ...others, rev: revision }) }, 'First page'), found.next && h('a', { href: page(found.next), id: 'next' }, 'Next page')];
  result.replaceChildren(
    found.entries.length ? table(`${plural(found.count, 'key')} ${asked.get('from') ? 'from here on' : 'here'}, at revision ${count(found.revision)}`,
      ['Name', 'What', 'Changed at', 'Lease'], found.entries.map((one) => entryRow(one, prefix, separator, revision, counts)), 'cards')
      : h('p', {}, 'No key begins so.'),
    first || next ? h('nav', { 'aria-label': 'Pages', class: 'row' }, first, next) : '');
  say(`${plural(found.entries.length, 'entry', 'entries')} shown.`);
  if (!revision) {
    place.append(h('section', { 'aria-labelledby': 'live' }, h('h2', { id: 'live' }, 'Changes'),
      watching(prefix || '\0', prefixEnd(prefix) || '\0', signal)));
    if (session.writes) place.append(create(prefix));
  }
  fill(counts, found.revision, signal);
}

function create(prefix) {
  const key = h('input', { value: toAddress(prefix), spellcheck: 'false', autocapitalize: 'off', required: true });
  return h('section', { 'aria-labelledby': 'new' }, h('h2', { id: 'new' }, 'A new key'), h('form', {
    class: 'row',
    onsubmit: (event) => {
      event.preventDefault();
      location.hash = address('key', { key: toAddress(fromAddress(key.value)) });
    },
  }, h('label', { class: 'field wide' }, h('span', {}, 'Key'), key), h('button', {}, 'Go to it')));
}

