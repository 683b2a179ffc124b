// The overview: asked for every two seconds, its charts every ten.

import { call } from './api.js';
import { chart, legend } from './charts.js';
import { badge, h, morph, say } from './dom.js';
import { num } from './format.js';
import { alarmList, figures, happeningList, happenings, memberTable, names, quorum } from './members.js';

const LOOK_MS = 2000;
const CHARTS_MS = 10000;
const MOST_STEPS = 360;
const CHARTS = [
  ['puts', 'Puts'], ['ranges', 'Reads'], ['transactions', 'Transactions'], ['calls of clients', 'Calls of clients'],
  ['failed calls', 'Failed calls'], ['write of the log (99 %)', 'Write of the log, 99 %'],
  ['applying a slice (99 %)', 'Applying, 99 %'], ['database', 'Database'],
];

/** Steps of all members, fetched piece by piece. */
class Hour {
  /** @type {Map<string, {ends: number[], series: Map<string, {unit: string, values: number[]}>}>} */
  members = new Map();
  step = 10;

  async fetch(id, signal) {
    const kept = this.members.get(id) || { ends: [], series: new Map(), last: '0' };
    const found = await call('dashboard/history', { member: id, after: kept.last }, signal);
    this.step = num(found.step_seconds) || 10;
    const ends = found.ends || [];
    for (const one of found.series || []) {
      const values = [...(kept.series.get(one.name)?.values || []), ...(one.values || []).map(num)];
      kept.series.set(one.name, { unit: one.unit || '', values: values.slice(-MOST_STEPS) });
    }
    kept.ends = [...kept.ends, ...ends.map((end) => num(end) / 1e9)].slice(-MOST_STEPS);
    kept.last = ends.at(-1) || kept.last;
    this.members.set(id, kept);
  }

  /** The lines of one chart. */
  lines(name, known) {
    return [...known].map(([id, member]) => {
      const kept = this.members.get(id);
      return { name: member, ends: kept?.ends || [], values: kept?.series.get(name)?.values || [] };
    });
  }

  unit(name) {
    for (const one of this.members.values()) if (one.series.has(name)) return one.series.get(name).unit;
    return '';
  }
}

function drawn(overview, hour) {
  const known = names(overview);
  const now = Date.now() / 1000;
  return h('section', { 'aria-labelledby': 'charts' }, h('h2', { id: 'charts' }, 'The last hour'), legend([...known.values()]),
    h('div', { class: 'charts' }, CHARTS.map(([name, title]) => chart(title, hour.unit(name), hour.lines(name, known), now, hour.step))));
}

function page(overview, hour) {
  const state = quorum(overview);
  return h('div', {},
    h('h1', { tabindex: -1 }, 'Overview'),
    h('p', { class: 'state' }, badge(state.kind, state.state), ' ', state.text),
    overview.outage && h('p', { class: 'problem' }, overview.outage),
    h('div', { class: 'scroll' }, memberTable(overview)),
    h('section', { 'aria-labelledby': 'alarms' }, h('h2', { id: 'alarms' }, 'Alarms'), alarmList(overview)),
    figures(overview),
    drawn(overview, hour),
    h('section', { 'aria-labelledby': 'changes' }, h('h2', { id: 'changes' }, 'What changed lately'), happeningList(happenings(overview))));
}

/** What who cannot see the page should be told, beside it. */
function differences(old, now) {
  const said = [];
  const [was, is] = [quorum(old), quorum(now)];
  const known = names(now);
  if (old.leader !== now.leader && now.leader) said.push(`${known.get(now.leader)} leads.`);
  for (const one of now.members || []) {
    const before = (old.members || []).find((other) => other.ID === one.ID);
    if (before && Boolean(before.answers) !== Boolean(one.answers)) {
      said.push(`${one.name} ${one.answers ? 'answers again' : 'does not answer'}.`);
    }
  }
  if (was.state !== is.state) said.push(`${is.state}: ${is.text}`);
  for (const alarm of now.alarms || []) {
    if (!(old.alarms || []).some((other) => other.alarm === alarm.alarm && other.memberID === alarm.memberID)) said.push(`Alarm ${alarm.alarm} is on.`);
  }
  return said.join(' ');
}

/** @param {HTMLElement} place @param {URLSearchParams} _ @param {AbortSignal} signal */
export async function show(place, _, signal) {
  const hour = new Hour();
  let last = null;
  let charted = -Infinity;

  async function look() {
    const found = await call('dashboard/overview', {}, signal);
    const wanted = page(found, hour);
    if (last === null) place.replaceChildren(wanted);
    else {
      const said = differences(last, found);
      if (said) say(said);
      morph(place.firstElementChild, wanted);
    }
    last = found;
    if (performance.now() - charted >= CHARTS_MS) {
      charted = performance.now();
      const live = (found.members || []).filter((one) => one.answers);
      await Promise.allSettled(live.map((one) => hour.fetch(one.ID, signal)));
      if (!signal.aborted) morph(place.firstElementChild, page(found, hour));
    }
  }

  await look();
  const timer = setInterval(() => {
    if (!document.hidden && !place.dataset.busy) {
      place.dataset.busy = 'yes';
      look().catch(() => {}).finally(() => { delete place.dataset.busy; }); // trouble is told by the shell
    }
  }, LOOK_MS);
  signal.addEventListener('abort', () => clearInterval(timer));
}
