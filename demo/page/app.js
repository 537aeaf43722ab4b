// The demo's page: plays HLS through the edge with one token in the path, and shows what the edge says of each segment.
'use strict';

const $ = (id) => document.getElementById(id);
const audio = $('audio');
const ROWS_MAX = 200;

let catalogue, session;
let track = null;    // the one chosen, an entry of the catalogue
let hls = null;      // made anew for each play, so that nothing comes from the player's own memory
let quality = 'auto';
let started = false; // segments are fetched only once somebody plays
let plays = 0;       // how many times a track was loaded; its number stands in each row
const fetched = [];  // every segment: {play, track, quality, number, bytes, ttfb, tier, source}, oldest first

async function json(path) {
  const answer = await fetch(path, {cache: 'no-store'});
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

const clock = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds || 0));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
};

const size = (bytes) => (bytes >= 1024 ? `${Math.round(bytes / 1024)} KiB` : `${bytes} B`);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function problem(text) {
  $('problem').textContent = text;
  $('problem').hidden = !text;
}

// Where an answer came from. Cache-Status (RFC 9211) is a list in which each cache adds itself at the end, so the edge
// is the last member, and a shield, if the edge asked it, stands before.
function tierOf(cacheStatus, xCache) {
  const members = (cacheStatus || '').split(',').map((member) => member.split(';').map((part) => part.trim()));
  const edge = members.at(-1);
  if (!cacheStatus) return xCache && /^(HIT|STALE)/.test(xCache) ? 'edge' : xCache ? 'origin' : null;
  if (edge.slice(1).includes('hit')) return 'edge';
  const shield = members.length > 1 ? members.at(-2) : null;
  return shield && shield.slice(1).includes('hit') ? 'shield' : 'origin';
}

// A response that the browser had itself says nothing new about the edge.
function fromBrowser(url) {
  const entry = performance.getEntriesByName(url).at(-1);
  return Boolean(entry && entry.transferSize === 0 && entry.decodedBodySize > 0);
}

function lightPath(tier) {
  const order = ['player', 'edge', 'shield', 'origin'];
  const last = order.indexOf(tier);
  $('path').classList.toggle('miss', tier !== 'edge');
  for (const item of $('path').children) {
    const index = order.indexOf(item.dataset.tier);
    item.classList.toggle('lit', index <= last);
    item.classList.toggle('through', index < last);
  }
}

function record(entry) {
  fetched.push(entry);
  const known = fetched.filter((one) => one.tier);
  const hits = known.filter((one) => one.tier === 'edge').length;
  $('ratio').textContent = known.length ? `${Math.round(100 * hits / known.length)} %` : '–';
  $('ttfb').textContent = `${entry.ttfb.toFixed(1)} ms`;
  if (entry.tier) lightPath(entry.tier);

  const hit = entry.tier === 'edge';
  const text = !entry.tier ? entry.source : hit ? 'HIT' : 'MISS';
  const badge = element('span', {className: `badge ${entry.tier ? (hit ? 'hit' : 'miss') : ''}`, textContent: text,
                                 title: entry.cacheStatus});
  const row = element('tr', {},
    element('td', {textContent: `${entry.track} ${entry.quality}/${entry.number}`}),
    element('td', {textContent: size(entry.bytes)}),
    element('td', {textContent: `${entry.ttfb.toFixed(1)} ms`}),
    element('td', {}, badge, entry.tier && !hit ? ` from ${entry.tier}` : ''));
  const body = $('segments');
  body.querySelector('.empty')?.remove();
  body.prepend(row);
  while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
}

function onFragment(_event, {frag, payload, networkDetails}) {
  const header = (name) => networkDetails?.getResponseHeader?.(name) ?? '';
  const cached = fromBrowser(networkDetails?.responseURL);
  const cacheStatus = header('Cache-Status');
  const tier = cached ? null : tierOf(cacheStatus, header('X-Cache'));
  const {first, start} = frag.stats.loading;
  record({play: plays, track: track.id, quality: qualityOf(frag.level), number: frag.sn, tier, cacheStatus,
          bytes: payload?.byteLength || frag.stats.loaded, ttfb: Math.max(0, first - start),
          source: cached ? 'browser' : 'unknown'});
}

// hls.js sorts levels by bit rate, as the catalogue does.
const qualityOf = (level) => track.qualities[level]?.quality ?? '?';

function onError(_event, data) {
  if (!data.fatal) return;
  const status = data.response?.code;
  const reason = data.networkDetails?.getResponseHeader?.('Segue-Reason');
  problem(`Playback stopped: ${data.details}${status ? `, ${status}` : ''}${reason ? ` (${reason})` : ''}`);
}

const levelWanted = () => (quality === 'auto' ? -1 : track.qualities.findIndex((one) => one.quality === quality));

function load(start) {
  problem('');
  plays += 1;
  hls?.destroy();
  started = start;
  hls = new Hls({
    autoStartLoad: start,
    startLevel: levelWanted(),
    // Little enough that segments are fetched while the music plays, rather than all at once.
    maxBufferLength: 25, maxMaxBufferLength: 25, backBufferLength: 25,
    // Each request tells how playback goes (CTA-5004) in a query, new each time: it keeps the browser's own cache
    // out of the picture, and the edge's key and signature do not depend on it.
    cmcd: {contentId: track.id, useHeaders: false},
  });
  hls.on(Hls.Events.FRAG_LOADED, onFragment);
  hls.on(Hls.Events.ERROR, onError);
  hls.on(Hls.Events.MANIFEST_PARSED, () => {
    applyQuality();
    if (start) play();
  });
  hls.loadSource(`${session.tracks[track.id]}master.m3u8`);
  hls.attachMedia(audio);
}

function play() {
  if (!started) hls.startLoad();
  started = true;
  // Choosing another track in the meantime aborts this, which is no fault.
  audio.play().catch((error) => { if (error.name !== 'AbortError') problem(`Cannot play: ${error.message}`); });
}

function applyQuality() {
  const level = levelWanted();
  // nextLevel lets what is playing go on and changes at the next segment. Before the first one nothing goes on.
  if (started && audio.currentTime > 0) {
    hls.nextLevel = level;
  } else {
    hls.startLevel = level;
    hls.loadLevel = level;
  }
  for (const button of $('qualities').children) {
    button.setAttribute('aria-pressed', String(button.value === String(quality)));
  }
}

function choose(id, start) {
  track = catalogue.tracks.find((one) => one.id === id);
  for (const button of $('tracks').children) button.setAttribute('aria-pressed', String(button.value === id));
  $('cover').src = track.cover;
  $('title').textContent = track.title;
  $('credit').textContent = `${catalogue.copyright.at(-1)} · ${catalogue.licence} · ${track.source}`;
  $('length').textContent = clock(track.seconds);
  const rates = track.qualities.map((one) => Math.round(one.aac_kbit)).join(', ');
  $('rates').textContent = `Measured: ${rates} kbit/s AAC. The source is Vorbis at ${Math.round(track.source_kbit)} kbit/s: ` +
    'higher qualities carry more bytes, not more music.';
  $('token').textContent = session.tracks[id];
  load(start);
}

async function attempt(kind) {
  const base = session.tracks[track.id];
  const other = catalogue.tracks.find((one) => one.id !== track.id);
  const token = base.split('/')[1];
  // The sixth character from the end: the very last also carries bits that are always zero.
  const forged = token.replace(/(sig=[^;]*?)([^;])([^;]{5})(;|$)/, (_, a, b, c, d) => a + (b === 'A' ? 'B' : 'A') + c + d);
  const path = {
    none: `/tracks/${track.id}/160/0.ogg`,
    forged: `/${forged}/tracks/${track.id}/160/0.ogg`,
    other: `/${token}/tracks/${other.id}/160/0.ogg`,
    valid: `${base}160/0.ogg`,
  }[kind];
  const output = $('answer');
  try {
    const answer = await fetch(path, {cache: 'no-store'});
    const reason = answer.headers.get('Segue-Reason');
    output.textContent = `${answer.status} ${answer.statusText}${reason ? ` · Segue-Reason: ${reason}` : ''}`;
    if (answer.ok) output.textContent += ` · ${size((await answer.arrayBuffer()).byteLength)} of ${answer.headers.get('Content-Type')}`;
    output.className = `answer ${answer.ok ? 'good' : 'bad'}`;
  } catch (error) {
    output.textContent = error.message;
    output.className = 'answer bad';
  }
}

function tick() {
  const {buffered, currentTime} = audio;
  let ahead = 0;
  for (let index = 0; index < buffered.length; index += 1) {
    if (buffered.start(index) <= currentTime + 0.3 && currentTime <= buffered.end(index)) {
      ahead = buffered.end(index) - currentTime;
    }
  }
  $('buffer').textContent = hls ? `${ahead.toFixed(0)} s` : '–';
  $('level').textContent = hls && hls.currentLevel >= 0 ? qualityOf(hls.currentLevel) : '–';
  $('elapsed').textContent = clock(currentTime);
  if (!$('seek').matches(':active')) $('seek').value = audio.duration ? currentTime / audio.duration : 0;
}

function wire() {
  $('play').onclick = () => (audio.paused ? play() : audio.pause());
  $('again').onclick = () => load(true);
  $('seek').onchange = () => { if (audio.duration) audio.currentTime = $('seek').value * audio.duration; };
  for (const button of $('attempts').children) button.onclick = () => attempt(button.dataset.attempt);
  for (const name of ['play', 'pause', 'ended']) {
    audio.addEventListener(name, () => {
      $('play').classList.toggle('playing', !audio.paused);
      $('play').setAttribute('aria-label', audio.paused ? 'Play' : 'Pause');
    });
  }
  audio.addEventListener('ended', () => {
    const next = catalogue.tracks[(catalogue.tracks.indexOf(track) + 1) % catalogue.tracks.length];
    choose(next.id, true);
  });
  setInterval(tick, 250);
}

async function main() {
  [catalogue, session] = await Promise.all([json('/api/catalogue.json'), json('session.json')]);
  if (!window.Hls || !Hls.isSupported()) throw new Error('this browser cannot play media from scripts (no MSE)');
  for (const one of catalogue.tracks) {
    $('tracks').append(element('button', {value: one.id, onclick: () => choose(one.id, true)},
      element('img', {src: one.cover, alt: ''}),
      element('div', {}, element('b', {textContent: one.title}), element('span', {textContent: clock(one.seconds)}))));
  }
  for (const name of ['auto', ...catalogue.tracks[0].qualities.map((one) => one.quality)]) {
    $('qualities').append(element('button', {value: String(name), textContent: name === 'auto' ? 'Auto' : `${name} kbit/s`,
      onclick: () => { quality = name; applyQuality(); }}));
  }
  $('expires').textContent = new Date(session.expires * 1000).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'});
  $('footer').textContent = `Music: ${catalogue.copyright.join('; ')}, from Debian's package ${catalogue.package}, ` +
    `licence ${catalogue.licence}. Its files carry no titles; these say where the game plays them. ` +
    `Player: hls.js ${Hls.version}, served by the edge like the rest of this page.`;
  wire();
  choose(catalogue.tracks[0].id, false);
  $('play').disabled = $('again').disabled = false;
}

// What the headless check looks at.
window.segueDemo = {fetched, state: () => ({plays, time: audio.currentTime, duration: audio.duration, paused: audio.paused,
                                            level: hls?.currentLevel, problem: $('problem').textContent})};

main().catch((error) => problem(`The page could not start: ${error.message}`));
