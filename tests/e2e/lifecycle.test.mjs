// Starting, stopping, starting again; and starts that are refused.

import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import { chmod, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Api } from './lib/api.mjs';
import { hang, when } from './lib/receiver.mjs';
import { LOOPBACK_FLAGS, run, temporaryFolder } from './lib/server.mjs';
import { ONLY_A_FILE, onSharedStore } from './lib/shared_store.mjs';
import { lifecycleTest, test } from './lib/suite.mjs';
import { gate, waitFor } from './lib/wait.mjs';

const STOPPED = { code: 0, signal: null };

lifecycleTest('SIGTERM lets the attempt in flight finish, takes no new events, and exits 0', async ({ start, receiver }) => {
  const server = await start({ fixedPort: true });
  const tenant = await new Api(server).createTenant();
  const release = gate();
  const shop = await receiver([when(release.opened, 200)]);
  await tenant.subscribe(shop.url(), { policy: { timeout_ms: 30_000 } });
  const event = await tenant.publish();
  await shop.received();

  const ended = server.stop();
  const accepted = [];
  await waitFor(async () => {
    const answer = await new Api(server, { agent: false }).request('POST', `${tenant.path}/events`, { body: { type: 'late', data: 1 } }).catch(() => null);
    if (answer?.status === 202) accepted.push(answer.json.id);
    else if (answer) assert.equal(answer.status, 503, answer.text);
    return answer?.status !== 202;
  }, { what: 'publishing to be refused' });
  assert.ok(server.running, 'the attempt is still in flight');
  release.open();
  assert.deepEqual(await ended, STOPPED);

  await server.start();
  const delivery = await tenant.delivery(shop.requests[0].id);
  assert.equal(delivery.state, 'DELIVERED');
  assert.equal(delivery.attempt_count, 1);
  assert.equal(delivery.event_id, event.id);
  for (const id of accepted) await tenant.waitDelivery({ event_id: id });
});

lifecycleTest('SIGTERM does not wait for a black hole longer than its timeout', async ({ start, receiver }) => {
  const server = await start();
  const tenant = await new Api(server).createTenant();
  const shop = await receiver([hang(), 204]);
  await tenant.subscribe(shop.url(), { policy: { timeout_ms: 2000, retry: { schedule_seconds: [0, 0, 1, 1], jitter: 0 } } });
  const event = await tenant.publish();
  await shop.received();
  assert.deepEqual(await server.stop(), STOPPED);
  await server.start();
  const delivery = await tenant.waitDelivery(event);
  assert.equal(delivery.attempts[0].error, 'timeout', 'the attempt was settled before the stop');
});

lifecycleTest('SIGINT stops it as well', async ({ start }) => {
  const server = await start();
  assert.deepEqual(await server.stop('SIGINT'), STOPPED);
});

lifecycleTest('a restart keeps everything', async ({ start, receiver }) => {
  const server = await start({ fixedPort: true });
  const { url } = server;
  const api = new Api(server);
  const tenant = await api.createTenant({ tier: 'premium' });
  const shop = await receiver([204]);
  const subscription = await tenant.subscribe(shop.url(), { event_types: ['a.*'], metadata: { team: 'x' } });
  const paused = await tenant.subscribe(shop.url('/paused'), { status: 'paused' });
  const event = await tenant.publish('a.b', { n: 1 });
  const done = await tenant.waitDelivery({ event_id: event.id, subscription_id: subscription.id });
  const keyed = await tenant.request('POST', '/events', { body: '{"type":"b.c","data":1}', headers: { 'idempotency-key': 'k' } });
  const late = await tenant.publish('a.later', 2, { deliver_at: new Date(Date.now() + 3_600_000).toISOString() });
  const everything = async () => ({
    tenant: await api.get(tenant.path),
    subscriptions: await tenant.all('/subscriptions'),
    secrets: await tenant.get(`/subscriptions/${subscription.id}/secrets`),
    events: await Promise.all((await tenant.all('/events')).map(({ id }) => tenant.event(id))),
    deliveries: await Promise.all((await tenant.deliveries()).map(({ id }) => tenant.delivery(id))),
  });
  const before = await everything();
  assert.equal(before.deliveries.length, 5);

  for (const end of ['stop', 'kill']) {
    await server[end]();
    await server.start();
    assert.equal(server.url, url);
    // On a shared store a killed server's lanes are its successor's once its lease has run out.
    await waitFor(async () => !onSharedStore || isDeepStrictEqual(await everything(), before));
    assert.deepEqual(await everything(), before, `after ${end}`);
  }
  const again = await tenant.request('POST', '/events', { body: '{"type":"b.c","data":1}', headers: { 'idempotency-key': 'k' } });
  assert.deepEqual(again.json, { ...keyed.json, duplicate: true });
  assert.equal(shop.requests.length, 1, 'what was delivered is not sent again');

  // It goes on by itself, with the same secret.
  await tenant.change(paused.id, { status: 'active' });
  const resumed = await shop.received(3);
  for (const request of resumed.slice(1)) request.verify(paused.secret);
  await tenant.publish('a.c', 3);
  await waitFor(() => shop.requests.some((request) => request.path === '/hook' && request.json.data === 3));
  shop.requests.find((request) => request.path === '/hook' && request.json.data === 3).verify(subscription.secret);
  assert.equal(done.state, 'DELIVERED');
  assert.equal((await tenant.waitDelivery({ event_id: late.id, subscription_id: subscription.id }, 'PENDING')).attempt_count, 0);
});

lifecycleTest('retries that came due while it was down are made after the start', async ({ start, receiver }) => {
  const server = await start();
  const tenant = await new Api(server).createTenant();
  const shop = await receiver([500, 204]);
  await tenant.subscribe(shop.url(), { policy: { retry: { schedule_seconds: [6], jitter: 0 } } });
  const event = await tenant.publish();
  const { next_attempt_at } = await tenant.waitDelivery(event, 'RETRY');
  await server.stop();
  await waitFor(() => Date.now() > Date.parse(next_attempt_at), { what: 'the retry to be overdue' });
  await server.start();
  assert.equal((await tenant.waitDelivery(event)).attempt_count, 2);
});

lifecycleTest('a receiver that may no longer be sent to: blocked_address', async ({ start, receiver }) => {
  const server = await start();
  const tenant = await new Api(server).createTenant();
  const shop = await receiver([500]);
  await tenant.subscribe(shop.url(), { policy: { retry: { schedule_seconds: Array(50).fill(2), jitter: 0 } } });
  const event = await tenant.publish();
  await tenant.waitDelivery(event, 'RETRY');
  await server.stop();
  const sent = shop.requests.length;
  server.flags = LOOPBACK_FLAGS.filter((flag) => !['--allow-address', '127.0.0.0/8'].includes(flag));
  await server.start();
  const delivery = await tenant.waitDelivery(event, 'DLQ');
  assert.equal(delivery.failure_reason, 'blocked_address');
  assert.equal(delivery.attempts.at(-1).error, 'blocked_address');
  assert.equal(shop.requests.length, sent);
});

lifecycleTest('a second Ctrl-C does not wait for attempts, which are sent again', async ({ start, receiver }) => {
  const server = await start();
  const tenant = await new Api(server).createTenant();
  const shop = await receiver([hang(), 204]);
  await tenant.subscribe(shop.url(), { policy: { timeout_ms: 60_000 } });
  const event = await tenant.publish();
  await waitFor(() => shop.requests.length === 1, { what: 'the attempt to be under way' });
  server.child.kill('SIGINT');
  await waitFor(() => server.stderr.includes('stopping'), { what: 'the stop to begin' });
  assert.deepEqual(await server.stop('SIGINT'), { code: 130, signal: null });
  assert.match(server.stderr, /ended at once/);
  await server.start();
  const delivery = await tenant.waitDelivery(event);
  assert.deepEqual(delivery.attempts.map(({ error }) => error), ['lease_expired', null]);
}, { skip: ONLY_A_FILE });

lifecycleTest('a second start on the same data folder is refused', async ({ start }) => {
  const server = await start();
  const second = await run(['serve', '--data', server.data, '--listen', '127.0.0.1:0'], { env: { POSTHORN_ADMIN_KEY: 'another-key-0123456789' } });
  assert.equal(second.signal, null, 'it ended by itself');
  assert.notEqual(second.code, 0);
  assert.match(second.stderr, /in use|already|lock|another/i);
  assert.ok(second.stderr.includes(server.data), `the folder is named: ${second.stderr}`);
  const { status } = await new Api(server).request('GET', '/v1/tenants');
  assert.equal(status, 200, 'the first goes on, with its own key');
}, { skip: ONLY_A_FILE });

lifecycleTest('first steps are told until there is a tenant', async ({ start }) => {
  const server = await start();
  await waitFor(() => server.stderr.includes('# 3. its delivery'), { what: 'the first steps' });
  await new Api(server).createTenant();
  await server.restart();
  await server.stop();
  assert.ok(!server.stderr.includes('/v1/tenants'), server.stderr);
});

lifecycleTest('a file that may not grow: 503, no event is counted that was refused, and few lines of it', async ({ start }) => {
  const server = await start({ within: ['prlimit', '--fsize=1500000'] });
  const api = new Api(server);
  const tenant = await api.createTenant();
  await tenant.subscribe('http://127.0.0.1:9/', { status: 'paused' });
  const publish = () => tenant.request('POST', '/events', { body: { type: 'a.b', data: 'x'.repeat(20_000) } });
  let refused = 0;
  await waitFor(async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, publish));
    refused += answers.filter(({ status }) => status === 503).length;
    return refused >= 300;
  }, { what: 'the store to be full' });
  await waitFor(async () => {
    await publish();
    return (await api.request('GET', '/readyz', { key: null })).status === 503;
  }, { what: 'it to be no longer ready' });
  const { text } = await api.request('GET', '/metrics');
  const deliveries = (await tenant.all('/deliveries')).length;
  assert.equal(Number(/^posthorn_deliveries_pending (\d+)$/m.exec(text)[1]), deliveries);
  assert.equal((await tenant.all('/events')).length, deliveries);
  assert.ok(server.running);
  assert.ok(server.log.match(/ error /g).length < refused, 'not two for each');
}, { skip: ONLY_A_FILE });

lifecycleTest('a port that another program has is named', async ({ start }) => {
  const taken = new URL((await start()).url).host;
  const folder = await temporaryFolder();
  const second = await run(['serve', '--data', folder, '--listen', taken], { env: { POSTHORN_ADMIN_KEY: 'another-key-0123456789' } });
  await rm(folder, { recursive: true });
  assert.equal(second.code, 1);
  assert.match(second.stderr, new RegExp(`cannot listen there listen=${taken} error="Address already in use" advice=`));
});

lifecycleTest('the first start makes an admin key: printed once, kept with mode 0600', async ({ start }) => {
  const server = await start({ adminKey: null });
  const file = join(server.data, 'admin.key');
  const key = (await readFile(file, 'utf8')).trim();
  assert.ok(key.length >= 32, 'a key that cannot be guessed');
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.ok((server.stdout + server.stderr).includes(key));
  const tenant = await new Api(server, { key }).createTenant({ id: 'acme' });
  await server.restart();
  assert.ok(!(server.stdout + server.stderr).includes(key), 'printed once');
  assert.equal((await readFile(file, 'utf8')).trim(), key);
  await server.stop();
  await chmod(file, 0o644);
  await server.start();
  assert.match(server.stderr, /the admin key may be read by others: chmod 600/);
  await tenant.get('/events');
  assert.equal((await tenant.request('GET', '/events', { key: `${key}x` })).status, 401);
});

lifecycleTest('POSTHORN_ADMIN_KEY in force is the key', async ({ start }) => {
  const server = await start();
  await server.stop();
  server.givenKey = 'a-new-admin-key-0123456789';
  await server.start();
  await new Api(server).createTenant();
  assert.equal((await new Api(server, { key: 'e2e-admin-key-0123456789abcdef' }).request('GET', '/v1/tenants')).status, 401);
});

lifecycleTest('secrets and keys are not written to the log', async ({ start, receiver }) => {
  const server = await start();
  const tenant = await new Api(server).createTenant();
  const shop = await receiver([500, 404]);
  const { secret } = await tenant.subscribe(shop.url());
  await tenant.waitDelivery(await tenant.publish('a.b', 'a-payload-that-is-private'), 'DLQ');
  await server.stop();
  for (const text of [secret, server.adminKey, 'a-payload-that-is-private']) assert.ok(!server.log.includes(text));
});

test('starts that are refused', async (t) => {
  const data = await temporaryFolder();
  const KEY = { POSTHORN_ADMIN_KEY: 'e2e-admin-key-0123456789abcdef' };
  const refused = async (args, env, pattern) => {
    const { code, signal, stderr } = await run(['serve', ...args], { env });
    assert.equal(signal, null, `it ended by itself: ${stderr}`);
    assert.notEqual(code, 0);
    assert.match(stderr, pattern);
  };
  const base = ['--data', join(data, 'd'), '--listen', '127.0.0.1:0'];
  try {
    await t.test('an empty admin key', () => refused(base, { POSTHORN_ADMIN_KEY: '' }, /admin.?key/i));
    await t.test('an unknown flag names the nearest known one', () => refused([...base, '--allow-htp'], KEY, /--allow-htp[^]*--allow-http\b/));
    await t.test('an unknown variable names the nearest known one', () =>
      refused(base, { ...KEY, POSTHORN_LISEN: '127.0.0.1:0' }, /POSTHORN_LISEN[^]*POSTHORN_LISTEN\b/));
    await t.test('an unknown line of the config file names the nearest known one', async () => {
      const file = join(data, 'config');
      await writeFile(file, 'lisen = 127.0.0.1:0\n');
      await refused([...base, '--config', file], KEY, /lisen[^]*listen/);
    });
    await t.test('a config file that is not there', () => refused([...base, '--config', join(data, 'none')], KEY, /none/));
    await t.test('values that make no sense', async () => {
      for (const [flag, value] of [['--listen', 'nowhere'], ['--listen', '127.0.0.1:99999'], ['--allow-address', '1.2.3.4/99'], ['--allow-port', '9-1'], ['--allow-port', 'x']]) {
        await refused(['--data', join(data, 'd'), flag, value], KEY, new RegExp(flag.slice(2)));
      }
    });
    await t.test('a flag without its value', () => refused(['--data'], KEY, /data/));
    await t.test('a data folder that cannot be one', async () => {
      const file = join(data, 'file');
      await writeFile(file, '');
      await refused(['--data', file, '--listen', '127.0.0.1:0'], KEY, /file/);
    });
    await t.test('a store that is none', async () => {
      const folder = join(data, 'store');
      await mkdir(folder);
      await refused(['--data', folder, '--listen', '127.0.0.1:0', '--store', 'mysql://localhost/x'], KEY, /store|mysql/);
    });
  } finally {
    await rm(data, { recursive: true, force: true });
  }
});

lifecycleTest('a port that is taken is named', async ({ start }) => {
  const server = await start();
  const folder = await temporaryFolder();
  const { host } = new URL(server.url);
  const { code, signal, stderr } = await run(['serve', '--data', folder, '--listen', host], { env: { POSTHORN_ADMIN_KEY: 'k'.repeat(30) } });
  await rm(folder, { recursive: true, force: true });
  assert.equal(signal, null);
  assert.notEqual(code, 0);
  assert.ok(stderr.includes(host), stderr);
});

lifecycleTest('flags win over variables', async ({ start }) => {
  const server = await start({ env: { POSTHORN_LISTEN: '127.0.0.1:1' } });
  assert.notEqual(new URL(server.url).port, '1');
});

lifecycleTest('requests that are under way at a stop are answered, and do not hold it up', async ({ start, receiver }) => {
  const server = await start({ flags: [...LOOPBACK_FLAGS, '--stop-timeout-ms', '30000'] });
  const tenant = await new Api(server).createTenant();
  const shop = await receiver([204]);
  const made = [];
  for (let i = 0; i < 300; i++) made.push((await tenant.subscribe(shop.url(), { event_types: ['none'] })).id);
  const deletions = made.map((id) => tenant.request('DELETE', `/subscriptions/${id}`).catch((error) => error));
  await deletions[0];
  const ended = await server.stop();
  assert.deepEqual(ended, STOPPED);
  assert.match(server.stderr, /\bstopped\b/, 'it came to its end by itself');
  assert.doesNotMatch(server.stderr, /did not end within/);
  for (const answer of await Promise.all(deletions)) {
    if (answer.status !== undefined) assert.ok([204, 503].includes(answer.status), `${answer.status} ${answer.text}`);
  }
});
