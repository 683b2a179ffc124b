// Elements, made and changed. Whatever is shown is set as text: nothing here reads markup.

/**
 * @param {string} tag
 * @param {Object<string, any>} [with_] attributes; `onclick` and the like are listeners, null leaves one out
 * @param {...(Node|string|number|null|undefined|false|Array)} children
 */
export function h(tag, with_, ...children) {
  return filled(document.createElement(tag), with_, children);
}

/** The same for SVG. */
export function svg(tag, with_, ...children) {
  return filled(document.createElementNS('http://www.w3.org/2000/svg', tag), with_, children);
}

function filled(element, with_, children) {
  for (const [name, value] of Object.entries(with_ || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked' || name === 'disabled' || name === 'hidden') element[name] = value;
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child !== null && child !== undefined && child !== false) {
      element.append(child instanceof Node ? child : String(child));
    }
  }
}

/** Make `old` look as `wanted`, keeping what is the same: focus, and where somebody reads, stay. */
export function morph(old, wanted) {
  if (old.nodeType !== wanted.nodeType || old.nodeName !== wanted.nodeName) {
    old.replaceWith(wanted);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!wanted.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of wanted.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const [before, after] = [[...old.childNodes], [...wanted.childNodes]];
  after.forEach((child, at) => {
    if (at < before.length) morph(before[at], child);
    else old.append(child);
  });
  before.slice(after.length).forEach((child) => child.remove());
}

/**
 * A table that is read as one also where it looks like cards.
 * @param {string} caption
 * @param {Array<string>} heads the first names the rows
 * @param {Array<Array>} rows cells: text or nodes
 */
export function table(caption, heads, rows, className) {
  return h('table', { role: 'table', class: className || '' },
    h('caption', {}, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' },
      heads.map((one) => h('th', { scope: 'col', role: 'columnheader' }, one)))),
    h('tbody', { role: 'rowgroup' }, rows.map((cells) => h('tr', { role: 'row' }, cells.map((cell, at) =>
      h(at ? 'td' : 'th', { role: at ? 'cell' : 'rowheader', scope: at ? null : 'row', 'data-head': heads[at] }, cell))))));
}

/** Say it to who cannot see the change. @param {string} text */
export function say(text) {
  const place = document.getElementById('said');
  place.textContent = '';
  setTimeout(() => { place.textContent = text; }, 50);
}

/** @param {string} kind good, bad, warn or plain; the mark says it without colour, too */
export function badge(kind, text) {
  const mark = { good: '✓ ', bad: '✗ ', warn: '! ' }[kind] || '';
  return h('span', { class: `badge ${kind}` }, mark && h('span', { 'aria-hidden': 'true' }, mark), text);
}

/** A labelled field. */
export function field(label, input, note) {
  return h('label', { class: 'field' }, h('span', {}, label), input, note && h('small', {}, note));
}

/** Ask before something that cannot be taken back. @returns {Promise<boolean>} */
export function sure(question, verb) {
  return new Promise((resolve) => {
    const box = h('dialog', { 'aria-label': question, onclose: () => { box.remove(); resolve(box.returnValue === 'yes'); } },
      h('form', { method: 'dialog' }, h('p', {}, question),
        h('p', { class: 'row' }, h('button', { value: 'no', autofocus: true }, 'Leave it'),
          h('button', { value: 'yes', class: 'danger' }, verb))));
    document.body.append(box);
    box.showModal();
  });
}

/** Show what went wrong, in `place`. */
export function told(place, error) {
  place.replaceChildren(h('p', { class: 'problem', role: 'alert' }, error.message || String(error)));
}
