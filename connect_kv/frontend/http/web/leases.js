// Leases with their keys; locks and elections with who holds them and who waits.

import { call, session } from './api.js';
import { decode, shown, toAddress } from './bytes.js';
import { badge, h, say, sure, table, told } from './dom.js';
import { count, hex, num, plural } from './format.js';
import { address } from './keys.js';

const PAGE = 50;

function keyLink(key) {
  return h('a', { href: address('key', { key: toAddress(key) }) }, shown(key));
}

function seconds(ttl) {
  return ttl === undefined || num(ttl) >= 0 ? `${count(num(ttl))} s` : 'ended';
}

/** A lock's contenders have empty values; those of an election say who they are. */
function queueView(queue) {
  const name = shown(decode(queue.name));
  const contenders = queue.contenders || [];
  const election = contenders.some((one) => one.value);
  const rows = contenders.map((one, at) => [
    keyLink(decode(one.key)),
    at ? `waits, number ${at}` : badge('good', election ? 'leads' : 'holds it'),
    one.value ? shown(decode(one.value)) : '',
    one.lease ? hex(one.lease) : 'none',
    one.lease ? seconds(one.ttl) : 'no end',
    count(num(one.create_revision)),
  ]);
  const caption = `${plural(num(queue.count), 'contender')}${num(queue.count) > rows.length ? `, the first ${rows.length}` : ''}`;
  return h('section', {}, h('h3', {}, h('code', {}, name), ' ', badge('plain', election ? 'election' : 'lock')),
    table(caption, ['Key', 'Place', 'Says', 'Lease', 'Time left', 'Since revision'], rows, 'cards'));
}

async function queuesView(signal) {
  const found = await call('dashboard/queues', {}, signal);
  const queues = found.queues || [];
  return h('section', { 'aria-labelledby': 'locks' }, h('h2', { id: 'locks' }, 'Locks and elections'),
    queues.length ? queues.map(queueView) : h('p', {}, session.user ? 'Nobody holds one whose keys you may read.' : 'Nobody holds one.'),
    found.more && h('p', {}, 'There are more leases than were looked at: some locks may be missing here.'));
}

async function leasesView(skip, signal, again) {
  const found = await call('dashboard/leases', { skip, limit: PAGE }, signal);
  const all = num(found.count);
  const problem = h('div', {});
  const revoke = async (id) => {
    if (!await sure(`End lease ${hex(id)}? Its keys are deleted.`, 'End it')) return;
    try {
      await call('/v3/lease/revoke', { ID: id });
      await again();
      say('The lease was ended.');
    } catch (error) {
      told(problem, error);
    }
  };
  const rows = (found.leases || []).map((one) => {
    const keys = (one.keys || []).map(decode);
    const rest = num(one.count) - keys.length;
    return [hex(one.ID), seconds(one.ttl), `${count(num(one.granted_ttl))} s`,
      [keys.map((key, at) => [at ? ', ' : '', keyLink(key)]), rest > 0 ? `${keys.length ? ', and ' : ''}${plural(rest, keys.length ? 'more' : 'key', keys.length ? 'more' : 'keys')}` : '', num(one.count) ? '' : 'none'],
      ...(session.writes ? [h('button', { type: 'button', class: 'danger', onclick: () => revoke(one.ID) }, 'End', h('span', { class: 'unseen' }, ` lease ${hex(one.ID)}`))] : [])];
  });
  const page = (at, name) => h('a', { href: address('leases', { skip: at }) }, name);
  return h('section', { 'aria-labelledby': 'all-leases' }, h('h2', { id: 'all-leases' }, 'Leases'), problem,
    rows.length ? table(`${plural(all, 'lease')}, those that end first in front`, ['Lease', 'Time left', 'Granted', 'Keys', ...(session.writes ? ['Change'] : [])], rows, 'cards') : h('p', {}, 'There is none.'),
    skip || all > skip + PAGE ? h('nav', { 'aria-label': 'Pages', class: 'row' }, skip ? page(Math.max(0, skip - PAGE), 'Earlier ones') : '', all > skip + PAGE ? page(skip + PAGE, 'Later ones') : '') : '');
}

/** @param {HTMLElement} place @param {URLSearchParams} asked @param {AbortSignal} signal */
export async function show(place, asked, signal) {
  const skip = Math.max(0, Math.trunc(Number(asked.get('skip') || 0))) || 0;
  const body = h('div', {});
  const look = async () => {
    const [queues, leases] = await Promise.all([queuesView(signal), leasesView(skip, signal, look)]);
    body.replaceChildren(queues, leases);
  };
  place.replaceChildren(h('h1', { tabindex: -1 }, 'Leases and locks'),
    h('p', { class: 'row' }, h('button', { type: 'button', onclick: () => look().then(() => say('Looked again.'), (error) => told(body, error)) }, 'Look again')), body);
  await look();
}
