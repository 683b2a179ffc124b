// Small charts of the last hour: a line for each member, told apart by dashes as well as by colour.

import { h, svg } from './dom.js';
import { ofUnit } from './format.js';

const WIDTH = 280;
const HEIGHT = 72;
const HOUR = 3600;
const DASHES = ['', '6 3', '2 3', '9 3 2 3', '1 2', '12 4', '4 2 1 2'];

/**
 * @param {string} title
 * @param {string} unit
 * @param {Array<{name: string, ends: number[], values: number[]}>} lines ends in seconds since 1970
 * @param {number} now seconds since 1970
 * @param {number} step seconds
 */
export function chart(title, unit, lines, now, step) {
  const highest = Math.max(0, ...lines.flatMap((line) => line.values.filter(Number.isFinite)));
  const top = highest || 1;
  const paths = lines.map((line, at) => svg('path', {
    d: path(line, now, step, top), class: `line line${at % DASHES.length}`, 'stroke-dasharray': DASHES[at % DASHES.length],
  }));
  const told = lines.map((line) => `${line.name} ${told1(line, unit)}`).join(', ');
  return h('figure', { class: 'chart' },
    h('figcaption', {}, h('strong', {}, title), ' ', h('span', {}, `highest ${ofUnit(highest, unit)}`)),
    svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': `${title}, the last hour: highest ${ofUnit(highest, unit)}; now ${told || 'nothing yet'}`, preserveAspectRatio: 'none' },
      svg('path', { class: 'grid', d: `M0 .5H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT - 0.5}H${WIDTH}` }), paths),
    h('p', { class: 'scale', 'aria-hidden': 'true' }, h('span', {}, '1 h ago'), h('span', {}, lines.length ? `now ${told}` : 'nothing yet')));
}

const told1 = (line, unit) => {
  const last = line.values.at(-1);
  return last === undefined || last < 0 ? 'idle' : ofUnit(last, unit);
};

function path(line, now, step, top) {
  let text = '';
  let before = -Infinity;
  line.values.forEach((value, at) => {
    const end = line.ends[at];
    if (value < 0 || end < now - HOUR) return;
    const x = (WIDTH * (end - now + HOUR) / HOUR).toFixed(1);
    const y = (HEIGHT - 2 - (HEIGHT - 5) * value / top).toFixed(1);
    text += `${end - before < 2.5 * step ? 'L' : 'M'}${x} ${y}`;
    if (!(end - before < 2.5 * step)) text += 'h.8'; // a step alone is seen, too
    before = end;
  });
  return text;
}

/** Who has which line. @param {string[]} names */
export function legend(names) {
  return h('ul', { class: 'legend', 'aria-hidden': 'true' }, names.map((name, at) => h('li', {},
    svg('svg', { viewBox: '0 0 30 8', width: 30, height: 8 },
      svg('path', { d: 'M0 4H30', class: `line line${at % DASHES.length}`, 'stroke-dasharray': DASHES[at % DASHES.length] })), name)));
}
