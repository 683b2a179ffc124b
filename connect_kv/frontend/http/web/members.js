// What the overview says of members, alarms and changes: from an answer of Overview to elements.

import { badge, h, table } from './dom.js';
import { bytes, count, duration, hex, num, plural, time } from './format.js';

/** Advice for each alarm and how to end it. */
const ADVICE = {
  NOSPACE: [
    'The space quota is used up, or a disk is nearly full: puts are refused, reads and deletes go on.',
    'Delete what is not needed and compact old revisions, or give more room (--quota-bytes, a larger disk); then end the alarm: connect-kv alarm disarm.',
  ],
  CORRUPT: [
    'The data of a member differs from that of the others: it no longer takes writes.',
    'Compare the members (connect-kv hash), remove the one that differs and add it again with an empty data directory; then end the alarm: connect-kv alarm disarm.',
  ],
};

/** The highest commit index that any member knows. */
function committed(members) {
  return Math.max(...members.map((one) => num(one.state?.commit_index)));
}

const sorted = (overview) => [...(overview.members || [])]
  .sort((a, b) => (a.name || '').localeCompare(b.name || '', 'en', { numeric: true }));

/** @param {any} overview @returns {Map<string, string>} names by id */
export function names(overview) {
  return new Map(sorted(overview).map((one) => [one.ID, one.name || hex(one.ID)]));
}

/** Whether writes are possible, in a sentence. */
export function quorum(overview) {
  const [voters, needed, answering] = ['voters', 'quorum', 'answering'].map((one) => num(overview[one]));
  const leader = names(overview).get(overview.leader);
  const said = `${answering} of ${plural(voters, 'voter')} ${answering === 1 ? 'answers' : 'answer'}, ${needed} ${needed === 1 ? 'is' : 'are'} needed`;
  const spare = answering - needed;
  if (!leader) return { kind: 'bad', state: 'No leader', text: `${said}. Nothing can be written.` };
  if (spare < 0) return { kind: 'bad', state: 'No quorum', text: `${said}. Nothing can be written.` };
  if (answering < voters) {
    return { kind: 'warn', state: 'Degraded', text: `${said}. ${spare ? `${plural(spare, 'more')} may fail` : 'No further one may fail'}. ${leader} leads.` };
  }
  return { kind: 'good', state: 'Healthy', text: `${said}${spare ? `; ${spare} may fail` : ''}. ${leader} leads.` };
}

/** How it stands with one member. */
export function standing(one) {
  if (one.answers) return one.state?.errors?.length ? badge('warn', one.state.errors[0]) : badge('good', 'answers');
  const since = num(one.silent_seconds) < 0 ? '' : `, silent for ${duration(num(one.silent_seconds))}`;
  return badge('bad', `${one.problem || 'does not answer'}${since}`);
}

function clock(one) {
  if (!one.clock_error && !one.clock_difference) return 'this member';
  const [off, error] = [num(one.clock_difference), num(one.clock_error)];
  if (Math.abs(off) <= error + 0.001) return `within ${duration(Math.max(0.001, Math.abs(off) + error))}`;
  return `${duration(Math.abs(off))} ${off > 0 ? 'ahead' : 'behind'}`;
}

function role(one, overview) {
  if (one.ID === overview.leader) return badge('plain', 'leader');
  return one.is_learner ? 'learner' : 'voter';
}

/** The members, one a row. */
export function memberTable(overview) {
  const members = sorted(overview);
  const commit = committed(members);
  const rows = members.map((one) => {
    const state = one.state || {};
    const known = Boolean(one.state);
    const lag = commit - num(state.applied_index);
    const url = (one.client_urls || []).find((each) => /^https?:\/\//.test(each));
    return [
      url && one.clock_error !== undefined ? h('a', { href: url, rel: 'noreferrer' }, one.name || hex(one.ID)) : one.name || hex(one.ID),
      role(one, overview),
      standing(one),
      known ? count(num(state.term)) : '?',
      known ? (lag ? plural(lag, 'entry', 'entries') : 'none') : '?',
      known ? `${bytes(num(state.db_size))}; ${bytes(num(state.disk_free))} free` : '?',
      known && one.answers ? clock(one) : '?',
      state.version || '?',
      known && one.answers ? duration(num(state.up_seconds)) : '?',
    ];
  });
  return table('Members', ['Member', 'Role', 'State', 'Term', 'Lag', 'Disk', 'Clock', 'Version', 'Up for'], rows, 'cards');
}

/** The alarms that are on, with what to do about each. */
export function alarmList(overview) {
  const alarms = overview.alarms || [];
  if (!alarms.length) return h('p', {}, 'None is on.');
  const known = names(overview);
  return h('ul', { class: 'alarms' }, alarms.map((one) => {
    const [means, todo] = ADVICE[one.alarm] || ['This page knows no such alarm.', 'See connect-kv alarm list.'];
    return h('li', {}, badge('bad', `${one.alarm} of ${known.get(one.memberID) || hex(one.memberID)}`), h('p', {}, means), h('p', {}, h('strong', {}, 'To do: '), todo));
  }));
}

/** What members saw, the newest in front; what several saw at about the same time once. */
export function happenings(overview) {
  const known = names(overview);
  const all = (overview.members || []).flatMap((one) => one.state?.happenings || []);
  all.sort((a, b) => num(b.wall) - num(a.wall));
  const kept = [];
  for (const one of all) {
    const same = kept.find((other) => other.text === one.text && num(other.wall) - num(one.wall) < 15e9);
    if (same) same.by.add(known.get(one.member));
    else kept.push({ ...one, by: new Set([known.get(one.member)]) });
  }
  return kept.slice(0, 50);
}

/** @param {Array} list of `happenings` */
export function happeningList(list) {
  if (!list.length) return h('p', {}, 'Nothing yet.');
  return h('ol', { class: 'happenings' }, list.map((one) => h('li', {},
    h('time', { datetime: new Date(num(one.wall) / 1e6).toISOString() }, time(num(one.wall))), ' ',
    badge('plain', one.kind), ' ', one.text, ' ', h('small', {}, `seen by ${[...one.by].filter(Boolean).sort().join(', ')}`))));
}

/** Numbers of the whole cluster, as the member that serves this page has them. */
export function figures(overview) {
  const own = (overview.members || []).find((one) => one.ID === overview.header?.member_id)?.state || {};
  const facts = [
    ['Keys', count(num(own.keys))], ['Revision', count(num(own.revision))], ['History from', count(Math.max(1, num(own.compact_revision)))],
    ['Leases', count(num(own.leases))], ['Watches here', count(num(own.watches))], ['Connections here', count(num(own.connections))],
    ['Database', `${bytes(num(own.db_size))}${num(own.quota) > 0 ? ` of ${bytes(num(own.quota))}` : ''}`],
  ];
  return h('dl', { class: 'facts' }, facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}
