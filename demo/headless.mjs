// Plays the demo's page in headless Chromium and checks what a listener would notice. Run by demo.py --headless-check.
//
//   node headless.mjs PAGE_URL NODE_MODULES PUBLIC_KEY [SCREENSHOT.png]
//
// PAGE_URL is https://. Of certificates that nobody vouches for, one with this public key (SHA-256 of its SPKI, base64) is taken.
// Prints one JSON object; exits 0 if all of it holds, 1 if not.
import {createRequire} from 'node:module';
import {existsSync, mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';

const [pageUrl, modules, publicKey, screenshot] = process.argv.slice(2);
const {chromium} = createRequire(path.join(path.resolve(modules), 'x.js'))('playwright-core');

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
if (!executablePath) {
  console.error('headless: no Chromium here (apt-get install chromium)');
  process.exit(1);
}

const report = {checks: [], failed: 0};
function check(name, good, detail) {
  report.checks.push({name, good: Boolean(good), ...(detail === undefined ? {} : {detail})});
  if (!good) report.failed += 1;
}

const profile = mkdtempSync(path.join(tmpdir(), 'segue-chromium-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  viewport: {width: 1120, height: 1180},
  args: [
    // Chromium has no sandbox for root.
    ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
    `--ignore-certificate-errors-spki-list=${publicKey}`,
    '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--mute-audio', '--autoplay-policy=no-user-gesture-required',
  ],
});

try {
  const page = context.pages()[0] ?? await context.newPage();
  const complaints = [];
  const foreign = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.protocol.startsWith('http') && url.origin !== new URL(pageUrl).origin) foreign.push(url.origin);
  });

  const state = () => page.evaluate(() => window.segueDemo.state());
  const fetched = () => page.evaluate(() => window.segueDemo.fetched);
  const until = (test, argument, timeout = 20000) => page.waitForFunction(test, argument, {timeout, polling: 100})
    .then(() => true, () => false);
  const advanced = (play, seconds) => until(([number, far]) => {
    const now = window.segueDemo.state();
    return now.plays === number && now.time > far && !now.paused;
  }, [play, seconds]);

  const answer = await page.goto(pageUrl, {waitUntil: 'load'});
  check('the page comes as HTML', answer.ok() && /^text\/html/.test(answer.headers()['content-type'] ?? ''),
        `${answer.status()} ${answer.headers()['content-type']}`);
  check('the player gets ready', await until(() => !document.querySelector('#play').disabled));

  // A quality is fixed, so that the second play asks for the very segments of the first.
  await page.click('#qualities button[value="160"]');
  await page.click('#play');
  check('it plays', await advanced(1, 2.5), await state());
  const first = await fetched();
  check('its segments came, all of the quality chosen', first.length > 0 && first.every((one) => one.quality === 160),
        first.map((one) => one.quality));
  check('every segment says what the edge did', first.every((one) => one.tier !== null && one.cacheStatus), first[0]);
  check('the first time they were misses', first.every((one) => one.tier !== 'edge'));
  check('their sizes are those of music', first.every((one) => one.number === 'initSegment' || one.bytes > 1000),
        first.map((one) => one.bytes));

  await page.click('#again');
  check('it plays again', await advanced(2, 2.5), await state());
  const key = (one) => `${one.track} ${one.quality}/${one.number}`;
  const before = new Set(first.map(key));
  const second = (await fetched()).filter((one) => one.play === 2 && before.has(key(one)));
  check('the second time the same segments were hits', second.length > 0 && second.every((one) => one.tier === 'edge'),
        second.map((one) => `${key(one)} ${one.cacheStatus}`));

  await page.click('#qualities button[value="320"]');
  check('another quality comes in', await until(() => window.segueDemo.fetched.some((one) => one.quality === 320)));

  const tracks = page.locator('#tracks button');
  check('three tracks are offered', await tracks.count() === 3, await tracks.count());
  await tracks.nth(1).click();
  check('another track plays', await advanced(3, 1.5), await state());

  for (const [kind, status] of [['none', 403], ['forged', 403], ['other', 403], ['valid', 200]]) {
    await page.locator('#answer').evaluate((output) => { output.textContent = ''; });
    await page.click(`[data-attempt="${kind}"]`);
    await until(() => document.querySelector('#answer').textContent !== '');
    const text = await page.locator('#answer').textContent();
    const reason = status === 403 ? text.includes('Segue-Reason: signature') : text.includes('audio/ogg');
    check(`token ${kind}: ${status}`, text.startsWith(String(status)) && reason, text);
  }

  const spoken = await page.evaluate(() => ['navigation', 'resource'].flatMap((type) =>
    performance.getEntriesByType(type).map((one) => one.nextHopProtocol)));
  check('all of it came over HTTP/2', spoken.length > 10 && spoken.every((protocol) => protocol === 'h2'),
        [...new Set(spoken)]);

  const {problem} = await state();
  check('nothing was reported', problem === '' && complaints.length === 0, [problem, ...complaints].filter(Boolean));
  check('nothing came from elsewhere', foreign.length === 0, foreign);
  if (screenshot) await page.screenshot({path: screenshot});
} catch (error) {
  check('the browser went along', false, error.message);
} finally {
  await context.close();
  rmSync(profile, {recursive: true, force: true});
}

console.log(JSON.stringify(report, null, 1));
process.exit(report.failed ? 1 : 0);
