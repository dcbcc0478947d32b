// How fast the delivery log answers: the ten commonest questions, asked over the API one at a time of a store that holds
// many deliveries, while others are published and delivered.
//   bench/query [--deliveries N] [--rounds N] [--rate N] [--store URL]
//   --deliveries N  that the store holds (1,000,000); ten million take some four minutes and 5 GB of disk
//   --rounds N      times each question is asked (300)
//   --rate N        events a second that are published and delivered meanwhile (500)
//   --store URL     an empty database (postgres://…): what was filled is moved there by posthorn import, and asked for there

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm, stat } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { Api } from '../tests/e2e/lib/api.mjs';
import { BINARY, LOOPBACK_FLAGS, Server, temporaryFolder } from '../tests/e2e/lib/server.mjs';
import { waitFor } from '../tests/e2e/lib/wait.mjs';

const SUBSCRIPTIONS = 64;
const LOG_LIMIT_MS = 1_200_000;
const root = fileURLToPath(new URL('..', import.meta.url));

const { values } = parseArgs({
  options: { deliveries: { type: 'string', default: '1000000' }, rounds: { type: 'string', default: '300' }, rate: { type: 'string', default: '500' }, store: { type: 'string' } },
});
const [deliveries, rounds, rate] = [values.deliveries, values.rounds, values.rate].map(Number);
const say = (text) => console.error(`bench: ${text}`);

execFileSync(join(root, 'script/build'), { stdio: 'inherit' });
const work = await temporaryFolder();
const build = (name, ...more) =>
  execFileSync('gcc', ['-O2', '-std=gnu17', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror', '-o', join(work, name), join(root, `bench/${name}.c`), ...more], { stdio: 'inherit' });
build('fill', '-lsqlite3');
build('pace', join(root, 'bench/http.c'));

const helpers = [];
function helper(args) {
  const child = spawn(join(work, 'pace'), args, { stdio: ['ignore', 'pipe', 'inherit'] });
  child.text = '';
  child.stdout.setEncoding('utf8').on('data', (text) => (child.text += text));
  helpers.push(child);
  return child;
}

/** A server whose store holds what fill.c makes, its logs caught up; and its sink. */
async function prepare(server) {
  const sink = helper(['sink']);
  await waitFor(() => /port \d+/.test(sink.text), { what: 'the sink' });
  const url = `http://127.0.0.1:${sink.text.match(/port (\d+)/)[1]}/`;
  await server.start();
  const tenant = await new Api(server).createTenant({ id: 'bench', tier: 'premium', limits: { events_per_second: 1_000_000, max_in_flight: 10_000 } });
  const subscriptions = [];
  for (let i = 0; i < SUBSCRIPTIONS; i++) subscriptions.push((await tenant.subscribe(url, { event_types: [`bench.${i}`] })).id);
  await server.stop();
  const file = join(server.data, 'posthorn.db');
  say(`filling the store with ${deliveries} deliveries`);
  execFileSync(join(work, 'fill'), [file, String(deliveries), String(SUBSCRIPTIONS)], { stdio: 'inherit' });
  const size = `the store has ${((await stat(file)).size / 2 ** 30).toFixed(1)} GiB`;
  if (values.store) {
    say(`${size}; it moves`);
    const began = performance.now();
    execFileSync(BINARY, ['import', '--from', `sqlite:${file}`, '--to', values.store], { stdio: 'inherit' });
    say(`moved in ${((performance.now() - began) / 1000).toFixed(0)} s`);
    await rm(file);
    server.flags = [...server.flags, '--store', values.store];
    await server.start();
  } else {
    say(`${size}; its logs catch up`);
    await server.start();
    await waitFor(() => Number(execFileSync(join(work, 'fill'), [file, 'behind'])) === 0, { limit: LOG_LIMIT_MS, every: 1000, what: 'the logs to catch up' });
  }
  tenant.api = new Api(server);
  return { tenant, subscriptions };
}

const below = (n) => Math.floor(Math.random() * n);
const pick = (list) => list[below(list.length)];
const before = () => new Date(Date.now() - 3600_000 - below(19 * 86_400_000));

/** Name to a function that makes the path of one such question. */
async function questions({ tenant, subscriptions }) {
  const samples = [];
  for (let i = 0; i < 100; i++) samples.push((await tenant.get(`/deliveries?limit=1&until=${before().toISOString()}`)).data[0]);
  const list = (query) => `/deliveries?${new URLSearchParams(query)}`;
  return {
    'the newest': () => list({}),
    'of an hour': () => { const at = before(); return list({ since: at.toISOString(), until: new Date(+at + 3600_000).toISOString() }); },
    'of an event': () => list({ event_id: pick(samples).event_id }),
    'one, with its attempts': () => `/deliveries/${pick(samples).id}`,
    'of a subscription': () => list({ subscription_id: pick(subscriptions) }),
    'the DLQ of a subscription': () => list({ subscription_id: pick(subscriptions), state: 'dlq' }),
    'answered 503': () => list({ status_code: 503, until: before().toISOString() }),
    'timed out': () => list({ error: 'timeout', until: before().toISOString() }),
    'of a type': () => list({ event_type: `bench.${below(SUBSCRIPTIONS)}`, until: before().toISOString() }),
    'of an ordering key': () => list({ ordering_key: `k${below(Math.min(100_000, deliveries / 10))}` }),
  };
}

async function ask(tenant, asked) {
  const times = Object.fromEntries(Object.keys(asked).map((name) => [name, []]));
  for (let i = 0; i < rounds; i++) {
    for (const [name, path] of Object.entries(asked)) {
      const target = path();
      const began = performance.now();
      await tenant.get(target);
      times[name].push(performance.now() - began);
    }
  }
  return times;
}

const rank = (sorted, share) => sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)].toFixed(1);
function print(times) {
  const row = (...cells) => console.log(`| ${cells[0].padEnd(26)} | ${cells.slice(1).map((cell) => cell.padStart(9)).join(' | ')} |`);
  row('question', 'p50 ms', 'p99 ms', 'greatest');
  row('---', '---', '---', '---');
  for (const [name, list] of Object.entries(times)) {
    const sorted = list.toSorted((a, b) => a - b);
    row(name, rank(sorted, 0.5), rank(sorted, 0.99), rank(sorted, 1));
  }
}

const server = new Server({ data: join(work, 'data'), flags: LOOPBACK_FLAGS, fixedPort: true });
try {
  const world = await prepare(server);
  const asked = await questions(world);
  const load = helper(['publish', new URL(server.url).port, '/v1/tenants/bench/events', server.adminKey, String(rate), '3600', '16', String(SUBSCRIPTIONS)]);
  const times = await ask(world.tenant, asked);
  load.kill();
  console.log(`\n${cpus()[0].model}, ${cpus().length} cores: ${deliveries} deliveries in the store, ${rate} events a second delivered meanwhile; each question ${rounds} times\n`);
  print(times);
} finally {
  for (const child of helpers) if (child.exitCode === null && child.signalCode === null) child.kill() && (await once(child, 'exit'));
  await server.remove();
  await rm(work, { recursive: true, force: true });
}
