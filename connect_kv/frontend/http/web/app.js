// The shell: which view, which theme, who is logged in, and whether the member answers.

import { events, logout, openSession, session } from './api.js';
import { h, told } from './dom.js';
import { duration } from './format.js';
import * as overview from './overview.js';

const VIEWS = {
  overview: async () => overview,
  keys: () => import('./keys.js'),
  key: () => import('./key.js'),
  leases: () => import('./leases.js'),
  machines: () => import('./machines.js'),
};
const TITLES = { overview: 'Overview', keys: 'Keys', key: 'A key', leases: 'Leases and locks', machines: 'Machines' };
const OPENED_BY = { key: 'keys' };

const place = document.getElementById('content');
let leaving = new AbortController();

/** "#/keys?prefix=a" to a view and what it is told. */
function address() {
  const [path, asked] = location.hash.replace(/^#\/?/, '').split('?', 2);
  return [VIEWS[path] ? path : 'overview', new URLSearchParams(asked || '')];
}

async function go(focus) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  if (session.authentication && !session.user) {
    document.title = 'Log in · connect-kv';
    (await import('./login.js')).show(place, () => go(true));
    return;
  }
  const [name, asked] = address();
  document.title = `${TITLES[name]} · ${session.member} · connect-kv`;
  for (const link of document.querySelectorAll('nav a')) {
    const here = link.getAttribute('href') === `#/${OPENED_BY[name] || name}`;
    if (here) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  const view = h('div', {});
  place.setAttribute('aria-busy', 'true');
  try {
    const module = await VIEWS[name]();
    if (signal.aborted) return;
    place.replaceChildren(view);
    await module.show(view, asked, signal);
  } catch (error) {
    if (signal.aborted || error.name === 'AbortError') return;
    if (!view.querySelector('h1')) view.replaceChildren(h('h1', { tabindex: -1 }, TITLES[name]));
    const problem = h('div', {});
    view.append(problem);
    told(problem, error);
  } finally {
    if (!signal.aborted) {
      place.removeAttribute('aria-busy');
      if (focus) (view.querySelector('h1') || place).focus({ preventScroll: true });
    }
  }
}

function header() {
  document.getElementById('member').textContent = session.member;
  const mode = document.getElementById('mode');
  mode.textContent = session.writes ? 'may write' : 'read-only';
  mode.title = session.writes ? 'started with --dashboard write' : 'as without --dashboard write';
  document.getElementById('user').textContent = session.user;
  document.getElementById('logout').hidden = !session.user;
}

function theme() {
  const choice = document.getElementById('theme');
  const apply = () => {
    if (choice.value === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice.value;
  };
  choice.value = localStorage.getItem('connect-kv theme') || 'auto';
  choice.addEventListener('change', () => {
    localStorage.setItem('connect-kv theme', choice.value);
    apply();
  });
  apply();
}

const trouble = document.getElementById('trouble');
events.addEventListener('session', header);
events.addEventListener('stranger', () => {
  if (!session.user && session.authentication) return; // it is asked already
  openSession().then(() => go(true), () => {});
});
events.addEventListener('trouble', (event) => {
  const text = `${session.member || 'This member'} has not answered for ${duration((Date.now() - event.detail) / 1000)}: what is shown is as it was then.`;
  trouble.hidden = false;
  if (trouble.textContent !== text) trouble.textContent = text;
});
events.addEventListener('well', () => { trouble.hidden = true; });
document.getElementById('logout').addEventListener('click', async () => {
  await logout();
  go(true);
});
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  place.focus();
});
window.addEventListener('hashchange', () => go(true));
theme();

/** Again and again, until the member answers. */
async function begin() {
  try {
    await openSession();
  } catch (error) {
    place.replaceChildren(h('h1', {}, 'connect-kv'), h('p', { class: 'problem' }, error.message));
    setTimeout(begin, 2000);
    return;
  }
  go(false);
}
begin();
