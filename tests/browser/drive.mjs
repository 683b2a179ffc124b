// Drives the dashboard in Chromium: node drive.mjs SCENARIO PAGE [JSON]. Prints "ok" and what was measured.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [scenario, url, given = '{}'] = process.argv.slice(2);
const told = JSON.parse(given);
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const VIEWS = ['#/overview', '#/keys', '#/keys?prefix=load/', '#/key?key=config/app.json', '#/leases', '#/machines'];
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: FLAGS });
const troubles = [];

async function opened(hash = '', options = {}) {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })).newPage();
  page.setDefaultTimeout(15000);
  page.on('pageerror', (error) => troubles.push(`error: ${error.message}`));
  page.on('dialog', (dialog) => { troubles.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('console', (one) => {
    // A status that is not 200 is told there too; those are looked at where they are expected.
    if (one.type() === 'error' && !/Failed to load resource/.test(one.text())) troubles.push(`console: ${one.text()}`);
  });
  page.on('request', (one) => { if (!one.url().startsWith(new URL('/', url).href)) troubles.push(`elsewhere: ${one.url()}`); });
  await page.goto(url + hash);
  return page;
}

const text = (page, selector = 'main') => page.locator(selector).innerText();
const shows = (page, wanted) => page.locator('main').getByText(wanted).first().waitFor();
const button = (page, name) => page.getByRole('button', { name, exact: true });
const settled = (page) => page.waitForFunction(() => document.querySelector('main h1') && !document.querySelector('main').hasAttribute('aria-busy'));

/** A line to who started this, and its answer. */
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function ask(question) {
  console.log(question);
  return (await lines.next()).value;
}

async function axe(page) {
  await page.addScriptTag({ path: AXE }).catch(() => null);
  if (!await page.evaluate(() => Boolean(window.axe))) await page.evaluate((await import('node:fs')).readFileSync(AXE, 'utf8'));
  const found = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }));
  return found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join('; ')}`);
}

const scenarios = {
  async overview() {
    const page = await opened();
    await page.getByRole('table', { name: 'Members' }).waitFor();
    const first = await page.evaluate(() => performance.now());
    const rows = await page.getByRole('table', { name: 'Members' }).getByRole('row').allInnerTexts();
    assert.equal(rows.length, 4);
    assert.deepEqual(rows.slice(1).map((one) => one.split('\t')[0].trim()), ['n1', 'n2', 'n3']);
    assert.equal(rows.filter((one) => one.includes('leader')).length, 1);
    await shows(page, '3 of 3 voters answer, 2 are needed; 1 may fail.');
    await shows(page, 'None is on.');
    assert.equal(await page.locator('figure svg[role=img]').count(), 8);
    assert.match(await page.locator('figure svg').first().getAttribute('aria-label'), /^Puts, the last hour: highest/);
    assert.match(await text(page, '.happenings'), /leads in term/);
    assert.equal(await page.title(), 'Overview · n1 · connect-kv');
    const times = [];
    for (let n = 0; n < 3; n += 1) {
      const again = await opened();
      await again.getByRole('table', { name: 'Members' }).waitFor();
      times.push(await again.evaluate(() => performance.getEntriesByType('paint').find((one) => one.name === 'first-contentful-paint').startTime));
      await again.context().close();
    }
    return { first_view_ms: Math.round(first), first_paint_ms: times.map(Math.round) };
  },

  /** What a browser that was never here loads for its first view, and how soon that is there, by its own entries. */
  async first() {
    const loads = [];
    for (let n = 0; n < 5; n += 1) {
      const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } })).newPage();
      await page.addInitScript(() => {
        new MutationObserver((_, observer) => {
          if (!document.querySelector('main table tbody tr')) return;
          performance.mark('members');
          observer.disconnect();
        }).observe(document, { childList: true, subtree: true });
      });
      await page.goto(url, { waitUntil: 'networkidle' });
      await page.waitForFunction(() => performance.getEntriesByName('members').length && performance.getEntriesByName('first-contentful-paint').length);
      loads.push(await page.evaluate(() => {
        const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
        return {
          names: all.map((one) => new URL(one.name).pathname),
          plain: all.reduce((sum, one) => sum + one.decodedBodySize, 0),
          sent: all.reduce((sum, one) => sum + one.transferSize, 0),
          paint: performance.getEntriesByName('first-contentful-paint')[0].startTime,
          members: performance.getEntriesByName('members')[0].startTime,
        };
      }));
      await page.context().close();
    }
    for (const { names } of loads) {
      for (const wanted of ['/dashboard/style.css', '/dashboard/app.js', '/connect_kv/v1/dashboard/overview', '/connect_kv/v1/dashboard/history']) {
        assert.ok(names.includes(wanted), `${wanted} is not in ${names}`);
      }
    }
    const of = (name) => loads.map((one) => Math.round(one[name]));
    return { plain: of('plain'), sent: of('sent'), paint_ms: of('paint'), members_ms: of('members') };
  },

  async keys() {
    const page = await opened('#/keys');
    let ranges = 0;
    page.on('request', (one) => { ranges += one.url().endsWith('/v3/kv/range'); });
    const row = page.getByRole('row', { name: /^load\// });
    await row.getByText('100,000 keys').waitFor();
    await row.getByRole('link').click();
    await shows(page, '100,000 keys here');
    assert.equal(await page.locator('tbody tr').count(), 100);
    const before = ranges;
    await page.getByRole('link', { name: 'Next page' }).click();
    await page.getByRole('link', { name: 'First page' }).waitFor();
    await page.getByRole('rowheader', { name: '100/' }).waitFor();
    assert.ok(ranges - before < 400, `${ranges - before} ranges for a page`);
    await page.getByRole('link', { name: '100/' }).click();
    await page.getByRole('rowheader', { name: '000100' }).waitFor();
    await page.getByLabel('Separator').selectOption('none');
    await page.waitForURL(/sep=none/);
    // As it was, before the many were there.
    await page.goto(`${url}#/keys?rev=${told.before}`);
    await shows(page, `As it was at revision ${told.before}`);
    assert.doesNotMatch(await text(page), /load\//);
    await page.getByRole('link', { name: 'Back to now' }).click();
    await row.waitFor();
    return { ranges };
  },

  async key() {
    const page = await opened('#/key?key=config/app.json');
    await shows(page, '"limit": 12');
    await page.getByLabel('Hex').check();
    assert.match(await text(page, '#value'), /^00000000 {2}7b 22/);
    await page.getByLabel('Text').check();
    assert.match(await text(page, '#value'), /^\{"name"/);
    await button(page, 'Show what it was before').click();
    await page.locator('ins', { hasText: '"limit": 12' }).waitFor();
    assert.match(await text(page, 'del >> nth=0'), /"limit": 11/);
    await button(page, 'Watch live').click();
    await page.locator('#said', { hasText: 'Watching.' }).waitFor({ state: 'attached' });
    // Somebody else writes: it is shown, and what was typed here does not overwrite it.
    await page.getByLabel('New value').fill('mine');
    await ask('write');
    await page.locator('.happenings').getByText('theirs').waitFor();
    await shows(page, 'It has changed since.');
    await button(page, 'Write').click();
    await shows(page, 'It was changed meanwhile: nothing was written.');
    await button(page, 'Load it again').click();
    await page.locator('#value', { hasText: 'theirs' }).waitFor();
    await page.getByLabel('New value').fill('mine\nand more');
    await button(page, 'Write').click();
    await page.locator('#value', { hasText: 'and more' }).waitFor();
    await button(page, 'Delete').click();
    await page.keyboard.press('Escape');
    await page.locator('#value', { hasText: 'and more' }).waitFor();
    await button(page, 'Delete').click();
    await button(page, 'Delete it').click();
    await shows(page, 'There is no such key.');
    await page.getByLabel('New value').fill('{"name": "shop", "limit": 12}');
    await button(page, 'Create').click();
    await shows(page, '"limit": 12');
  },

  async markup() {
    const page = await opened('#/keys');
    await page.getByRole('link', { name: '<img src=x onerror=alert(1)>' }).click();
    await shows(page, '<script>alert(2)</script>');
    await button(page, 'Show what it was before').click();
    await page.locator('.revisions li').first().waitFor();
    await page.goto(`${url}#/keys?prefix=%3Cscript%3Ealert(3)%3C/script%3E`);
    await shows(page, 'No key begins so.');
    assert.equal(await page.locator('main img, main script, main iframe').count(), 0);
    // Not even who would forget how to make text of it could write it into the page.
    const refused = await page.evaluate(() => { try { document.body.innerHTML = '<b>x</b>'; return false; } catch { return true; } });
    assert.ok(refused);
    troubles.splice(0, Infinity, ...troubles.filter((one) => !/TrustedHTML/.test(one)));
  },

  async leases() {
    const page = await opened('#/leases');
    const lock = page.getByRole('table', { name: '2 contenders' });
    await lock.waitFor();
    const rows = await lock.getByRole('row').allInnerTexts();
    assert.match(rows[1], /holds it/);
    assert.match(rows[2], /waits, number 1/);
    const lease = page.getByRole('row', { name: /services\/web\/1/ });
    await lease.getByRole('button', { name: /^End/ }).click();
    await button(page, 'End it').click();
    await lease.waitFor({ state: 'detached' });
  },

  async machines() {
    const page = await opened('#/machines');
    await page.getByRole('table', { name: 'counter on each member' }).waitFor();
    await page.getByText('increment(by: int)').click();
    const form = page.getByRole('form', { name: 'counter.increment' });
    await form.getByLabel('by').fill('two');
    await form.getByRole('button').click();
    await form.getByText('"two" is no int').waitFor();
    await form.getByLabel('by').fill('12345678901');
    await form.getByRole('button').click();
    await form.locator('pre', { hasText: /^12345678901$/ }).waitFor();
    await page.getByText('value() →').click();
    const query = page.getByRole('form', { name: 'counter.value' });
    await query.getByRole('button').click();
    await query.locator('pre', { hasText: /^12345678901$/ }).waitFor();
  },

  async keyboard() {
    const page = await opened();
    await page.getByRole('table', { name: 'Members' }).waitFor();
    const focused = () => page.evaluate(() => {
      const one = document.activeElement;
      const style = getComputedStyle(one);
      return { text: (one.tagName === 'PRE' ? one.id : one.innerText || one.id || one.name || one.tagName).trim(), seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 };
    });
    const to = async (wanted, key = 'Tab') => {
      for (let n = 0; n < 40; n += 1) {
        await page.keyboard.press(key);
        const now = await focused();
        assert.ok(now.seen, `the focus on ${now.text} cannot be seen`);
        if (now.text === wanted) return;
      }
      assert.fail(`no way to ${wanted}`);
    };
    await to('Skip to the content');
    await to('Keys');
    await page.keyboard.press('Enter');
    await page.locator('h1', { hasText: 'Keys' }).waitFor();
    await settled(page);
    assert.equal((await focused()).text, 'Keys', 'the heading of a new view has the focus');
    await to('config/');
    await page.keyboard.press('Enter');
    await page.getByRole('rowheader', { name: 'app.json' }).waitFor();
    await settled(page);
    await to('app.json');
    await page.keyboard.press('Enter');
    await page.locator('#value').waitFor();
    await settled(page);
    await to('value');
    await to('Delete');
    await page.keyboard.press('Enter');
    assert.equal((await focused()).text, 'Leave it', 'the harmless button has the focus');
    await page.keyboard.press('Enter');
    await page.locator('dialog').waitFor({ state: 'detached' });
    assert.equal((await focused()).text, 'Delete', 'the focus is back where it was');
  },

  async narrow() {
    for (const width of [400, 320]) {
      const page = await opened('', { viewport: { width, height: 800 } });
      for (const hash of VIEWS) {
        await page.goto(url + hash);
        await settled(page);
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${hash} is wider than ${width}`);
      }
    }
  },

  async barriers() {
    const page = await opened();
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      for (const hash of VIEWS) {
        await page.goto(url + hash);
        await page.waitForTimeout(50);
        await settled(page);
        for (const one of await page.locator('summary').all()) if (await one.evaluate((each) => !each.parentElement.open)) await one.click();
        const found = await axe(page);
        assert.deepEqual(found, [], `${hash} ${colorScheme}`);
      }
    }
    troubles.splice(0, Infinity, ...troubles.filter((one) => !/Trusted|Content Security Policy/.test(one)));
  },

  async theme() {
    const page = await opened('', { colorScheme: 'light' });
    const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.getByLabel('Theme').selectOption('dark');
    const dark = await back();
    await page.reload();
    assert.equal(await back(), dark);
    await page.getByLabel('Theme').selectOption('light');
    assert.notEqual(await back(), dark);
    await page.emulateMedia({ colorScheme: 'dark' });
    assert.notEqual(await back(), dark, 'a choice is stronger than the system');
    await page.getByLabel('Theme').selectOption('auto');
    assert.equal(await back(), dark);
  },

  async dying() {
    const page = await opened();
    await shows(page, '3 of 3 voters answer');
    await ask('kill another');
    await shows(page, '2 of 3 voters answer');
    const row = await page.getByRole('row', { name: /^n3/ }).innerText();
    assert.match(row, /refuses connections|does not answer/);
    assert.match(row, /silent for/);
    assert.match(await page.locator('#said').textContent(), /n3 does not answer/);
    await ask('start it');
    await shows(page, '3 of 3 voters answer');
    await ask('kill this');
    await page.locator('#trouble', { hasText: 'n1 has not answered for' }).waitFor();
    assert.match(await text(page), /3 of 3 voters answer/, 'what was known stays');
    await ask('start it');
    await page.locator('#trouble').waitFor({ state: 'hidden' });
    await shows(page, '3 of 3 voters answer');
  },

  async login() {
    const page = await opened();
    await page.getByLabel('User').fill('al');
    await page.getByLabel('Password').fill('guess');
    await button(page, 'Log in').click();
    await shows(page, 'authentication failed');
    await page.getByLabel('Password').fill('secret');
    await page.keyboard.press('Enter');
    await page.getByRole('table', { name: 'Members' }).waitFor();
    assert.equal(await text(page, '#user'), 'al');
    assert.equal(await page.evaluate(() => document.cookie), '', 'a script can read the cookie');
    const [cookie] = await page.context().cookies();
    assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, 'Strict']);
    await page.getByRole('link', { name: 'Keys' }).click();
    await shows(page, 'permission denied');
    await page.getByRole('listitem').getByRole('link', { name: 'app/' }).click();
    await page.getByRole('link', { name: 'one' }).click();
    await page.locator('#value', { hasText: 'for al' }).waitFor();
    assert.equal(await page.getByRole('button', { name: /Write|Delete/ }).count(), 0);
    assert.equal(await text(page, '#mode'), 'read-only');
    const written = await page.evaluate(async () => (await (await import('/dashboard/api.js')).call('/v3/kv/txn', {}).catch((error) => error)).status);
    assert.equal(written, 403);
    await page.reload();
    await page.locator('#value', { hasText: 'for al' }).waitFor();
    await button(page, 'Log out').click();
    await page.getByLabel('User').waitFor();
    assert.deepEqual(await page.context().cookies(), []);
  },

  /** Pictures for the documentation. */
  async pictures() {
    for (const [name, hash, width, colorScheme] of told.pictures) {
      const page = await opened(hash, { viewport: { width, height: width < 500 ? 800 : 720 }, colorScheme });
      await settled(page);
      await page.waitForTimeout(1500);
      if (hash.includes('key?')) await button(page, 'Show what it was before').click();
      for (const one of await page.locator('summary').all()) await one.click();
      await page.waitForTimeout(300);
      await page.screenshot({ path: `${told.directory}/${name}.png` });
      await page.context().close();
    }
  },
};

let failed = null;
let measured;
try {
  measured = await scenarios[scenario]();
  assert.deepEqual(troubles, []);
} catch (error) {
  failed = error;
}
await browser.close();
console.log(failed ? `failed: ${failed.stack}\n${troubles.join('\n')}` : `ok ${JSON.stringify(measured || {})}`);
process.exit(failed ? 1 : 0);
