// Calls of the member that served this page: the JSON gateway, as the one who is logged in.

const OWN = '/connect_kv/v1/';
const HEADER = 'X-Connect-KV-Dashboard';

/** What the member refused, or that it does not answer. */
export class Refused extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status; // of HTTP; 0: no answer at all
    this.code = code; // of gRPC
  }
}

/** @type {{member: string, authentication: boolean, user: string, writes: boolean, mark: string}} */
export let session = { member: '', authentication: false, user: '', writes: false, mark: '' };

/** Events: "session" when it changes, "stranger" when somebody must log in, "trouble" and "well". */
export const events = new EventTarget();
let silentSince = 0;

async function post(path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, {
      method: 'POST', body, signal, credentials: 'same-origin', cache: 'no-store',
      headers: { 'Content-Type': 'application/json', [HEADER]: session.mark || 'session' },
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    silentSince ||= Date.now();
    events.dispatchEvent(new CustomEvent('trouble', { detail: silentSince }));
    throw new Refused('This member does not answer.', 0, 14);
  }
  if (silentSince) {
    silentSince = 0;
    events.dispatchEvent(new Event('well'));
  }
  return answer;
}

async function refusal(answer) {
  let said = {};
  try {
    said = await answer.json();
  } catch { /* not ours */ }
  return new Refused(said.message || `The member answered ${answer.status}.`, answer.status, said.code);
}

const isStranger = (error) => error.code === 16
  || /user name is empty|revision of auth store is old/.test(error.message);

async function asked(path, body, signal) {
  const text = JSON.stringify(body || {});
  let answer = await post(path, text, signal);
  if (answer.status === 403) {
    const error = await refusal(answer);
    if (!error.message.includes('out of date')) throw error;
    await openSession(); // the member was started anew
    answer = await post(path, text, signal);
  }
  if (!answer.ok) {
    const error = await refusal(answer);
    if (isStranger(error)) events.dispatchEvent(new Event('stranger'));
    throw error;
  }
  return answer;
}

/** @param {string} path "/v3/..." or "machine/describe" @param {any} [body] @param {AbortSignal} [signal] */
export async function call(path, body, signal) {
  return (await asked(path.startsWith('/') ? path : OWN + path, body, signal)).json();
}

/** The messages of a stream, one after another. */
export async function* stream(path, body, signal) {
  const answer = await asked(path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines.filter(Boolean)) {
      const message = JSON.parse(line);
      if (message.error) throw new Refused(message.error.message, 200, message.error.code);
      yield message.result;
    }
  }
}

async function changed(name, body) {
  const answer = await post(`${OWN}dashboard/${name}`, JSON.stringify(body || {}));
  if (!answer.ok) throw await refusal(answer);
  session = await answer.json();
  events.dispatchEvent(new Event('session'));
}

export const openSession = () => changed('session');
export const login = (name, password) => changed('login', { name, password });
export const logout = () => changed('logout');
