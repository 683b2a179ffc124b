// Who must say who they are.

import { login } from './api.js';
import { field, h, told } from './dom.js';

/** @param {HTMLElement} place @param {() => void} done */
export function show(place, done) {
  const problem = h('div', {});
  const name = h('input', { name: 'name', autocomplete: 'username', required: true, autofocus: true });
  const password = h('input', { name: 'password', type: 'password', autocomplete: 'current-password' });
  const button = h('button', { type: 'submit' }, 'Log in');
  const form = h('form', {
    class: 'login',
    onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      try {
        await login(name.value, password.value);
        done();
      } catch (error) {
        password.value = '';
        told(problem, error);
        button.disabled = false;
        password.focus();
      }
    },
  }, field('User', name), field('Password', password), h('p', {}, button), problem);
  place.replaceChildren(h('h1', { tabindex: -1 }, 'Log in'), h('p', {}, 'This cluster asks its users who they are.'), form);
  name.focus();
}
