// Changes as they come: of one key, or of all below a prefix.

import { stream } from './api.js';
import { decode, encode, shown } from './bytes.js';
import { h, say, told } from './dom.js';
import { num } from './format.js';

const MOST = 100;
const LONGEST = 200;

/**
 * A switch, and the changes since it was put on, the newest in front.
 * @param {string} key @param {string|null} rangeEnd null: that key alone
 * @param {AbortSignal} signal of the view @param {() => void} [onChange]
 */
export function watching(key, rangeEnd, signal, onChange) {
  const list = h('ol', { class: 'happenings', 'aria-live': 'polite', 'aria-relevant': 'additions', 'aria-label': 'Changes' });
  const problem = h('div', {});
  let stop = null;
  const button = h('button', {
    type: 'button', 'aria-pressed': 'false', onclick: () => (stop ? off() : on()),
  }, 'Watch live');

  function off() {
    stop?.abort();
    stop = null;
    button.setAttribute('aria-pressed', 'false');
    button.textContent = 'Watch live';
  }

  async function on() {
    stop = new AbortController();
    const { signal: own } = stop;
    signal.addEventListener('abort', () => stop?.abort(), { once: true });
    button.setAttribute('aria-pressed', 'true');
    button.textContent = 'Stop watching';
    problem.replaceChildren();
    const asked = { create_request: { key: encode(key), ...(rangeEnd === null ? {} : { range_end: encode(rangeEnd) }) } };
    try {
      for await (const { created, canceled, cancel_reason: why, events } of stream('/v3/watch', asked, own)) {
        if (created) say('Watching.');
        if (canceled) throw new Error(why || 'The watch has ended.');
        for (const event of events || []) list.prepend(line(event));
        while (list.children.length > MOST) list.lastChild.remove();
        if (events?.length) onChange?.();
      }
      if (!own.aborted) throw new Error('The member has ended the watch.');
    } catch (error) {
      if (own.aborted) return;
      told(problem, error);
      off();
    }
  }
  return h('div', {}, h('p', { class: 'row' }, button), problem, list);
}

function line({ type, kv }) {
  const value = decode(kv.value);
  const cut = value.length > LONGEST;
  return h('li', {}, `${num(kv.mod_revision)} `, h('span', { class: 'badge' }, type === 'DELETE' ? 'deleted' : num(kv.version) === 1 ? 'created' : 'changed'),
    ' ', h('code', {}, shown(decode(kv.key))), type === 'DELETE' ? '' : [' = ', h('code', {}, shown(value.slice(0, LONGEST)) + (cut ? ' …' : ''))]);
}
