// The log: a line an entry, well-formed, with the ids of what it is about, and without payloads or secrets, at any level.

import assert from 'node:assert/strict';

import { Api, QUICK } from './lib/api.mjs';
import { startCollector } from './lib/collector.mjs';
import { closedPort } from './lib/receiver.mjs';
import { LOOPBACK_FLAGS } from './lib/server.mjs';
import { onSharedStore } from './lib/shared_store.mjs';
import { lifecycleTest } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const ID = /^(sub|dlv|evt|rpl|key|sec)_[0-9A-Z]{26}$/;
const MARK = 'marker-that-nobody-may-log';

/** Everything that may hold a secret or a payload, marked; answers the secrets that the server made. */
async function eventfulRun(server, receiver) {
  const api = new Api(server);
  const tenant = await api.createTenant({ name: MARK });
  const secrets = [];
  const shop = await receiver([
    { status: 500, headers: { 'x-mark': MARK }, body: MARK },
    { status: 200, headers: { 'x-mark': MARK }, body: MARK },
  ]);
  const given = `whsec_${Buffer.from(`${MARK}-as-a-secret`.slice(0, 32)).toString('base64')}`;
  const subscription = await tenant.subscribe(`${shop.url()}?token=${MARK}`, {
    event_types: ['good'], headers: { authorization: `Bearer ${MARK}` }, metadata: { mark: MARK }, description: MARK, secret: given, receipts: true,
  });
  secrets.push(given, subscription.secret, (await tenant.expect(200, 'POST', `/subscriptions/${subscription.id}/rotate-secret`, { body: {} })).secret);
  const key = await api.expect(201, 'POST', '/v1/keys', { body: { tenant_id: tenant.id, scopes: ['events:write'] } });
  secrets.push(key.key);

  const event = await tenant.expect(202, 'POST', '/events', { body: { type: 'good', data: { mark: MARK } }, headers: { 'idempotency-key': MARK, tracestate: `a=${MARK}`, traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' } });
  const delivery = await tenant.waitDelivery(event);
  const token = shop.requests.at(-1).headers['posthorn-receipt-token'];
  secrets.push(token);
  await tenant.request('POST', `/deliveries/${delivery.id}/receipt`, { body: { status: 'failed', note: MARK }, headers: { 'posthorn-receipt-token': token }, key: null });

  // What is refused: bodies, keys, paths and queries of strangers.
  await tenant.request('POST', '/events', { body: `{"type":"good","data":"${MARK}` });
  await tenant.request('POST', '/events', { body: { type: 'good', data: 1, [MARK]: 1 } });
  await tenant.request('GET', `/deliveries?state=${MARK}`);
  await api.request('GET', `/v1/${MARK}`);
  await api.request('GET', '/v1/tenants', { key: MARK });
  await api.request('POST', `/v1/tenants/${MARK}/events`, { body: { type: 'good', data: 1 }, key: MARK });

  // An endpoint that only fails, one that is gone, and an attempt that a crash cuts off.
  const dead = await tenant.subscribe(`http://127.0.0.1:${await closedPort()}/${MARK}`, { event_types: ['dead'], policy: { ...QUICK, max_in_flight: 10 } });
  for (let i = 0; i < 12; i++) await tenant.publish('dead', { mark: MARK });
  await waitFor(() => server.stderr.includes('an endpoint only fails'), { what: 'the log to tell of the dead endpoint' });
  const gone = await tenant.subscribe((await receiver([410])).url(), { event_types: ['gone'] });
  await tenant.waitDelivery(await tenant.publish('gone', { mark: MARK }), 'DLQ');
  const hung = await receiver([() => {}, 204]);
  await tenant.subscribe(hung.url(), { event_types: ['hung'] });
  await tenant.publish('hung', { mark: MARK });
  await hung.received(1);
  const before = server.stderr;
  await server.kill();
  await server.start();
  await hung.received(2);
  await server.stop();
  return { log: before + server.stderr, tenant, subscription, delivery, dead, gone, secrets: [...secrets, server.adminKey] };
}

function assertSilent(log, secrets) {
  const said = log.split('\n').find((line) => line.includes(MARK));
  assert.equal(said, undefined);
  for (const secret of secrets) {
    assert.ok(secret, 'a secret to look for');
    for (const form of [secret, secret.replace(/^wh\w+_/, '')]) assert.ok(!log.includes(form), `a secret in the log: ${form}`);
  }
}

/** A debug run, with a collector that refuses spans, so that this is told, too. */
const logTest = (name, format, body) => lifecycleTest(name, async ({ start, receiver }) => {
  const collector = await startCollector();
  collector.answer = 400;
  try {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--log-level', 'debug', '--log-format', format, '--otlp-url', collector.url, '--otlp-header', `Authorization: Bearer ${MARK}`] });
    await body(await eventfulRun(server, receiver));
  } finally {
    await collector.close();
  }
});

logTest('as JSON: every line is an object, tells the ids, and holds no payload or secret', 'json', ({ log, tenant, subscription, delivery, dead, gone, secrets }) => {
  const lines = log.trimEnd().split('\n').map((line) => JSON.parse(line));
  for (const line of lines) {
    assert.match(line.at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.ok(['debug', 'info', 'warn', 'error'].includes(line.level), line.level);
    assert.ok(line.message);
    for (const name of ['subscription', 'delivery', 'event', 'replay']) if (name in line) assert.match(line[name], ID);
  }
  assertSilent(log, secrets);
  const attempts = lines.filter((line) => line.delivery === delivery.id && line.message === 'an attempt has ended');
  assert.deepEqual(attempts.map(({ tenant: t, subscription: s, attempt, outcome, state, status, trace }) => ({ t, s, attempt, outcome, state, status, trace })), [
    { attempt: 1, outcome: 'transient', state: 'RETRY', status: 500 },
    { attempt: 2, outcome: 'success', state: 'DELIVERED', status: 200 },
  ].map((expected) => ({ t: tenant.id, s: subscription.id, trace: '4bf92f3577b34da6a3ce929d0e0e4736', ...expected })));
  const told = (message) => lines.find((line) => line.message.startsWith(message));
  assert.deepEqual([told('an endpoint only fails').level, told('an endpoint only fails').subscription], ['warn', dead.id]);
  assert.deepEqual([told('a subscription was disabled').tenant, told('a subscription was disabled').subscription], [tenant.id, gone.id]);
  if (!onSharedStore) assert.equal(told('attempts were cut off').level, 'warn');
  assert.equal(told('the collector does not take spans').level, 'warn');
  const published = lines.find((line) => line.route === '/v1/tenants/{t}/events' && line.status === 202);
  assert.deepEqual([published.method, published.tenant, published.actor], ['POST', tenant.id, 'admin']);
});

logTest('as text: a line an entry, and no payload or secret', 'text', ({ log, delivery, secrets }) => {
  assertSilent(log, secrets);
  assert.match(log, new RegExp(`^\\S+Z debug an attempt has ended tenant=\\S+ subscription=sub_\\w{26} delivery=${delivery.id} attempt=1 .*status=500`, 'm'));
  const others = log.split('\n').filter((line) => line && !/^\d{4}-\d\d-\d\dT\S+Z (debug|info |warn |error) /.test(line));
  assert.ok(others.every((line) => /^(Paste|# |curl |\S+ receive )/.test(line.trim())), `only the first steps are no entries: ${others}`);
});

lifecycleTest('what is below the level is not logged, and a made admin key is a JSON line of its own', async ({ start }) => {
  const server = await start({ adminKey: null, flags: [...LOOPBACK_FLAGS, '--log-format', 'json'] });
  await new Api(server).createTenant();
  await server.stop();
  const lines = server.stderr.trimEnd().split('\n').map((line) => JSON.parse(line));
  assert.ok(lines.every(({ level }) => level !== 'debug'));
  assert.deepEqual(lines.filter((line) => 'admin_key' in line).map((line) => line.admin_key), [server.adminKey]);
});
