// Machines: how each is on each member, how busy, and a form for each method, made from its types.

import { call, session } from './api.js';
import { badge, field, h, say, table, told } from './dom.js';
import { num, short } from './format.js';

/** Calls a second in the last step, by the name of the series. */
async function rates(signal) {
  const found = await call('dashboard/history', {}, signal);
  return new Map((found.series || []).map((one) => [one.name, one.values?.length ? num(one.values.at(-1)) : null]));
}

const rate = (value) => (value === null || value === undefined ? 'not measured yet' : `${short(value)}/s`);

function standing(one) {
  if (one.retired) return badge('plain', 'retired');
  if (one.suspended) return badge('bad', `suspended: ${one.suspended}`);
  return badge('good', num(one.version) ? 'runs' : 'has not begun');
}

function statusTable(name, members) {
  const rows = members.map((member) => {
    const one = (member.machines || []).find((each) => each.name === name);
    if (!one) return [member.name, badge('bad', member.problem || 'not hosted there'), '', '', ''];
    return [member.name, standing(one), num(one.version) || '', num(one.newest) || '', one.waits || ''];
  });
  return table(`${name} on each member`, ['Member', 'State', 'Version', 'Newest', 'Waits for'], rows, 'cards');
}

/** How a value of a type is typed in, and becomes JSON. Raises for what is none. */
function inputFor(parameter) {
  const type = parameter.type || 'any';
  const required = Boolean(parameter.required);
  const note = required ? type : `${type}; may be left empty`;
  if (type === 'bool') {
    const input = h('select', {}, !required && h('option', { value: '' }, 'not given'), ['true', 'false'].map((one) => h('option', { value: one }, one)));
    return { input, note, json: () => input.value };
  }
  if (type === 'str') {
    const input = h('input', { spellcheck: 'false' });
    return { input, note, json: () => (input.value || required ? JSON.stringify(input.value) : '') };
  }
  if (type === 'int' || type === 'float') {
    const shape = type === 'int' ? /^-?\d+$/ : /^-?\d+(\.\d+)?([eE][-+]?\d+)?$/;
    const input = h('input', { inputmode: type === 'int' ? 'numeric' : 'decimal', required, spellcheck: 'false' });
    return {
      input, note,
      json: () => {
        const text = input.value.trim();
        if (!text && !required) return '';
        if (!shape.test(text)) throw new Error(`${parameter.name}: ${JSON.stringify(input.value)} is no ${type}.`);
        return text.replace(/^(-?)0+(?=\d)/, '$1');
      },
    };
  }
  const input = h('textarea', { spellcheck: 'false', class: 'small', required });
  return {
    input, note: `${note}, as JSON`,
    json: () => {
      if (!input.value.trim() && !required) return '';
      try {
        JSON.parse(input.value);
      } catch {
        throw new Error(`${parameter.name}: that is no JSON.`);
      }
      return input.value;
    },
  };
}

function methodForm(machine, method) {
  const allowed = method.query || session.writes;
  const inputs = (method.parameters || []).map((one) => ({ name: one.name, ...inputFor(one) }));
  const answer = h('output', { class: 'answer' });
  const button = h('button', { disabled: !allowed }, method.query ? 'Ask' : 'Run the command');
  const form = h('form', {
    'aria-label': `${machine}.${method.name}`,
    onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      try {
        const given = inputs.map((one) => [one.name, one.json()]).filter(([, json]) => json);
        const json = `{${given.map(([name, value]) => `${JSON.stringify(name)}: ${value}`).join(', ')}}`;
        const found = await call(method.query ? 'dashboard/query' : 'machine/call', { machine, method: method.name, json });
        answer.replaceChildren(h('pre', { tabindex: 0, 'aria-label': 'Answer' }, found.json ?? 'null'));
        say(`The answer is ${found.json ?? 'null'}`.slice(0, 200));
      } catch (error) {
        told(answer, error);
      }
      button.disabled = false;
    },
  }, inputs.map((one) => field(one.name, one.input, one.note)), h('p', { class: 'row' }, button,
    !allowed && h('small', {}, 'A command: this dashboard may not run it (--dashboard write).')), answer);
  const signature = (method.parameters || []).map((one) => `${one.name}: ${one.type}`).join(', ');
  return h('details', { class: 'method' }, h('summary', {}, h('code', {}, `${method.name}(${signature}) → ${method.returns || 'None'}`), ' ', badge('plain', method.query ? 'query' : 'command')),
    method.doc && h('p', {}, method.doc), form);
}

/** @param {HTMLElement} place @param {URLSearchParams} _ @param {AbortSignal} signal */
export async function show(place, _, signal) {
  const [described, status, busy] = await Promise.all([
    call('machine/describe', {}, signal), call('machine/status', {}, signal), rates(signal)]);
  const members = (status.members || []).sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
  const methods = new Map((described.machines || []).map((one) => [one.name, one]));
  const names = [...new Set([...methods.keys(), ...members.flatMap((one) => (one.machines || []).map((each) => each.name))])].sort();
  place.replaceChildren(h('h1', { tabindex: -1 }, 'Machines'), names.length ? '' : h('p', {}, 'This cluster hosts none: see docs/replicated-classes.md.'),
    ...names.map((name) => {
      const one = methods.get(name);
      return h('section', { 'aria-label': name }, h('h2', {}, name), one?.doc && h('p', {}, one.doc),
        h('p', {}, `Commands ${rate(busy.get(`commands of ${name}`))}; queries of ${session.member} ${rate(busy.get(`queries of ${name}`))}.`),
        statusTable(name, members), h('h3', {}, 'Methods'), (one?.methods || []).map((method) => methodForm(name, method)));
    }));
}
