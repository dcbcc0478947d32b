// Operational events: what the system tells a tenant's own subscriptions that ask for posthorn.* by name.

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';

import { Api, MORTAL } from './lib/api.mjs';
import { run, temporaryFolder } from './lib/server.mjs';
import { lifecycleTest, suite } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const EXHAUSTED = 'posthorn.delivery.exhausted';
const DISABLED = 'posthorn.subscription.disabled';
const FAILING = 'posthorn.subscription.failing';
const RECOVERED = 'posthorn.subscription.recovered';

/** A retry a second. */
const SECONDLY = { retry: { initial_seconds: 1, multiplier: 1, max_seconds: 1, jitter: 0 } };
let markers = 0;

/** A receiver of the tenant's operational events. `next(type)` waits for the one with that type and checks its signature. */
async function listen(tenant, receiver, eventTypes = ['posthorn.*'], fields = {}) {
  const inbox = await receiver([204]);
  const subscription = await tenant.subscribe(inbox.url(), { event_types: eventTypes, ...fields });
  const ofType = (type) => inbox.requests.filter((request) => request.json.type === type);
  return {
    inbox, subscription, ofType,
    async next(type, nth = 1) {
      await waitFor(() => ofType(type).length >= nth, { what: () => `${type} (came: ${inbox.requests.map(({ json }) => json.type)})` });
      const request = ofType(type)[nth - 1];
      return request.verify(subscription.secret);
    },
  };
}

/** Sends one delivery to the dead-letter queue, and waits until that is told: whatever came before it has come by then. */
async function markExhausted(tenant, receiver, ops) {
  const told = ops.ofType(EXHAUSTED).length;
  const marker = await receiver([404]);
  const type = `marker.${++markers}`;
  await tenant.subscribe(marker.url(), { event_types: [type] });
  const event = await tenant.publish(type);
  await waitFor(() => ops.ofType(EXHAUSTED).some(({ json }) => json.data.event_id === event.id), { what: 'the marker to be told' });
  return ops.ofType(EXHAUSTED).length - told;
}

suite('operational events', ({ test }) => {
  test('a delivery in the dead-letter queue is told, signed, and listed like any event', async ({ tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    const exact = await listen(tenant, receiver, [EXHAUSTED]);
    const everything = await listen(tenant, receiver, []);
    const shop = await receiver([500]);
    const { id } = await tenant.subscribe(shop.url('/shop?x=1'), { event_types: ['invoice.*'], policy: { retry: { schedule_seconds: [0, 0], jitter: 0 } } });
    const event = await tenant.publish('invoice.paid', { amount: 1 });
    const delivery = await tenant.waitDelivery({ event_id: event.id, subscription_id: id }, 'DLQ');

    const told = await ops.next(EXHAUSTED);
    assert.equal(told.tenant_id, tenant.id);
    assert.deepEqual(told.data, {
      subscription_id: id,
      url: shop.url('/shop?x=1'),
      delivery_id: delivery.id,
      event_id: event.id,
      event_type: 'invoice.paid',
      attempt_count: 3,
      failure_reason: delivery.failure_reason,
      last_status_code: 500,
      last_error: null,
      exhausted_at: delivery.exhausted_at,
    });
    assert.deepEqual((await exact.next(EXHAUSTED)).data, told.data);
    await everything.inbox.received(1);
    assert.deepEqual(everything.inbox.requests.map(({ json }) => json.type), ['invoice.paid'], 'an empty list does not include them');

    const listed = await tenant.all('/events', { type: EXHAUSTED });
    assert.deepEqual(listed.map((each) => each.id), [told.id]);
    assert.equal((await tenant.event(told.id)).fanout.deliveries, 2);
    await tenant.waitDelivery({ event_id: told.id, subscription_id: ops.subscription.id });
  });

  test('an attempt without an answer is told by its error', async ({ tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    const shop = await receiver([() => {}]);
    await tenant.subscribe(shop.url(), { event_types: ['a'], policy: { timeout_ms: 200, max_attempts: 1 } });
    await tenant.publish('a');
    const { data } = await ops.next(EXHAUSTED);
    assert.deepEqual([data.last_status_code, data.last_error, data.failure_reason], [null, 'timeout', 'attempts_exhausted']);
  });

  test('410 disables, and both are told', async ({ tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    const shop = await receiver([410]);
    const { id } = await tenant.subscribe(shop.url(), { event_types: ['a'] });
    await tenant.publish('a');
    const { data } = await ops.next(DISABLED);
    const subscription = await tenant.subscription(id);
    assert.equal(subscription.status, 'disabled');
    assert.equal(data.subscription_id, id);
    assert.equal(data.url, shop.url());
    assert.equal(data.disabled_reason, subscription.disabled_reason);
    assert.equal(data.disabled_at, subscription.updated_at);
    assert.equal((await ops.next(EXHAUSTED)).data.failure_reason, 'gone');
  });

  test('an endpoint that only fails for disable_after_seconds is disabled, and that is told', async ({ tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    const shop = await receiver([500]);
    const { id } = await tenant.subscribe(shop.url(), { event_types: ['a'], policy: { ...SECONDLY, disable_after_seconds: 1 } });
    await tenant.publish('a');
    const { data } = await ops.next(DISABLED);
    assert.equal((await tenant.subscription(id)).status, 'disabled');
    assert.equal(data.disabled_reason, (await tenant.subscription(id)).disabled_reason);
    assert.ok(Date.parse(data.disabled_at) - Date.parse(data.failing_since) >= 1000);
  });

  test('disabling by the API is the owner’s own doing, and not told', async ({ tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    const shop = await receiver([204]);
    const { id } = await tenant.subscribe(shop.url(), { event_types: ['a'] });
    await tenant.change(id, { status: 'disabled' });
    await markExhausted(tenant, receiver, ops);
    assert.equal(ops.ofType(DISABLED).length, 0);
  });

  test('the breaker opens: failing; the first success afterwards: recovered', async ({ tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    let broken = true;
    const shop = await receiver(() => (broken ? 500 : 204));
    const { id } = await tenant.subscribe(shop.url(), { event_types: ['a'], policy: SECONDLY });
    for (let i = 0; i < 10; i++) await tenant.publish('a', i);
    const failing = await ops.next(FAILING);
    await waitFor(async () => (await tenant.get(`/subscriptions/${id}/stats`)).breaker === 'open', { what: 'the breaker, if it probes just now, to be open again' });
    assert.equal(failing.data.subscription_id, id);
    assert.equal(failing.data.url, shop.url());
    assert.equal(failing.data.last_status_code, 500);
    assert.ok(Date.parse(failing.data.failing_since) <= Date.parse(failing.timestamp));
    broken = false;
    const recovered = await ops.next(RECOVERED);
    assert.equal(recovered.data.subscription_id, id);
    assert.equal(recovered.data.failing_since, failing.data.failing_since);
    assert.ok(Date.parse(recovered.data.recovered_at) >= Date.parse(failing.data.failing_since));
    await waitFor(async () => (await tenant.deliveries({ state: 'DELIVERED', event_type: 'a' })).length === 10, { what: 'the backlog to drain' });
    assert.equal(ops.ofType(FAILING).length, 1);
    assert.equal(ops.ofType(RECOVERED).length, 1);
  });

  test('a window that closes without an attempt is told', async ({ tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    const shop = await receiver([204]);
    const { id } = await tenant.subscribe(shop.url(), { event_types: ['a'], status: 'paused', policy: { window_seconds: 1 } });
    const event = await tenant.publish('a');
    await tenant.change(id, { status: 'disabled' });
    const { data } = await ops.next(EXHAUSTED);
    assert.deepEqual(
      [data.event_id, data.attempt_count, data.failure_reason, data.last_status_code, data.last_error],
      [event.id, 0, 'window_expired', null, null],
    );
  });

  test('deleting a subscription is the owner’s own doing: what waited is not told', async ({ tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    const shop = await receiver([204]);
    const { id } = await tenant.subscribe(shop.url(), { event_types: ['a'], status: 'paused' });
    const event = await tenant.publish('a');
    await tenant.expect(204, 'DELETE', `/subscriptions/${id}`);
    const delivery = await tenant.waitDelivery(event, 'DLQ');
    assert.equal(delivery.failure_reason, 'subscription_deleted');
    assert.equal(await markExhausted(tenant, receiver, ops), 1, 'the marker alone');
  });

  test('deliveries of posthorn.* events raise none', async ({ tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    const gone = await receiver([404, 410]);
    const deaf = await tenant.subscribe(gone.url(), { event_types: ['posthorn.*'] });
    await tenant.expect(202, 'POST', `/subscriptions/${deaf.id}/test`);
    await waitFor(async () => (await tenant.deliveries({ state: 'DLQ', subscription_id: deaf.id })).length === 1, { what: 'the test to fail' });
    assert.equal(await markExhausted(tenant, receiver, ops), 1);
    await waitFor(async () => (await tenant.subscription(deaf.id)).status === 'disabled', { what: 'the deaf one to be disabled by 410' });
    assert.equal(await markExhausted(tenant, receiver, ops), 1);
    assert.deepEqual([...new Set(ops.inbox.requests.map(({ json }) => json.type))], [EXHAUSTED]);
  });

  test('one tenant hears nothing of another', async ({ api, tenant, receiver }) => {
    const ops = await listen(tenant, receiver);
    const other = await api.createTenant();
    const theirs = await listen(other, receiver);
    const shop = await receiver([404]);
    await other.subscribe(shop.url(), { event_types: ['a'] });
    await other.publish('a');
    await theirs.next(EXHAUSTED);
    assert.equal(await markExhausted(tenant, receiver, ops), 1);
  });
});

lifecycleTest('kill -9 loses none: as many are told as are in the dead-letter queue', async ({ start, receiver }) => {
  const server = await start({ fixedPort: true });
  const tenant = await new Api(server).createTenant();
  const ops = await listen(tenant, receiver, ['posthorn.*'], { policy: MORTAL });
  const shop = await receiver([404]);
  await tenant.subscribe(shop.url(), { event_types: ['a'], policy: { ...MORTAL, max_in_flight: 50 } });
  const COUNT = 400;
  await tenant.expect(202, 'POST', '/events/batch', { body: Array.from({ length: COUNT }, (_, n) => ({ type: 'a', data: n })) });
  for (const some of [20, 150, 300]) {
    await shop.received(some);
    await server.kill();
    await server.start();
  }
  await waitFor(async () => (await tenant.deliveries({ state: 'DLQ', event_type: 'a' })).length === COUNT, { what: 'all to fail' });
  const listed = await tenant.all('/events', { type: EXHAUSTED });
  assert.equal(listed.length, COUNT);
  const about = () => new Set(ops.ofType(EXHAUSTED).map(({ json }) => json.data.delivery_id));
  await waitFor(() => about().size === COUNT, { what: () => `all to be told, so far ${about().size}` });
});

lifecycleTest('what was failing before a kill -9 is told to have recovered after it', async ({ start, receiver }) => {
  const server = await start({ fixedPort: true });
  const tenant = await new Api(server).createTenant();
  const ops = await listen(tenant, receiver, ['posthorn.*'], { policy: MORTAL });
  let broken = true;
  const shop = await receiver(() => (broken ? 500 : 204));
  await tenant.subscribe(shop.url(), { event_types: ['a'], policy: SECONDLY });
  for (let i = 0; i < 10; i++) await tenant.publish('a', i);
  const failing = await ops.next(FAILING);
  await server.kill();
  broken = false;
  await server.start();
  const recovered = await ops.next(RECOVERED);
  assert.equal(recovered.data.failing_since, failing.data.failing_since);
  // What had come, and was not yet written down as delivered when the kill came, comes again.
  assert.equal(new Set(ops.ofType(FAILING).map(({ id }) => id)).size, 1);
});

// ---- the operator's own webhook ----

const SECRET = `whsec_${Buffer.from('operator-secret-of-the-e2e-tests').toString('base64')}`;

function withOperator(url, more = {}) {
  return { fixedPort: true, env: { POSTHORN_OPERATOR_URL: url, POSTHORN_OPERATOR_SECRET: SECRET }, ...more };
}

/** Makes a tenant whose only subscription sends one delivery to the dead-letter queue. */
async function tenantInTrouble(api, receiver) {
  const tenant = await api.createTenant();
  const shop = await receiver([404]);
  const subscription = await tenant.subscribe(shop.url(), { event_types: ['a'] });
  const event = await tenant.publish('a');
  await tenant.waitDelivery(event, 'DLQ');
  return { tenant, subscription, event };
}

lifecycleTest('the operator’s webhook gets the events of all tenants, and nothing of it shows in theirs', async ({ start, receiver }) => {
  const inbox = await receiver([204]);
  const server = await start(withOperator(inbox.url('/alerts')));
  const api = new Api(server);
  const one = await tenantInTrouble(api, receiver);
  await inbox.received(1);
  const two = await tenantInTrouble(api, receiver);
  await inbox.received(2);
  const told = inbox.requests.map((request) => request.verify(SECRET));
  assert.deepEqual(told.map((event) => event.type), [EXHAUSTED, EXHAUSTED]);
  assert.deepEqual(told.map((event) => event.tenant_id), [one.tenant.id, two.tenant.id]);
  assert.deepEqual(told.map((event) => event.data.event_id), [one.event.id, two.event.id]);
  for (const { tenant, subscription, event } of [one, two]) {
    assert.deepEqual((await tenant.all('/events')).map(({ id }) => id), [event.id]);
    assert.deepEqual((await tenant.all('/subscriptions')).map(({ id }) => id), [subscription.id]);
    assert.equal((await tenant.deliveries()).length, 1);
    for (const { id } of told) assert.equal((await tenant.request('GET', `/events/${id}`)).status, 404);
    for (const { id } of inbox.requests) assert.equal((await tenant.request('GET', `/deliveries/${id}`)).status, 404);
  }
  const tenants = (await api.get('/v1/tenants')).data.map(({ id }) => id);
  assert.deepEqual(tenants.sort(), [one.tenant.id, two.tenant.id].sort());
});

lifecycleTest('the operator’s webhook follows the settings from start to start', async ({ start, receiver }) => {
  const first = await receiver([410]);
  const server = await start(withOperator(first.url()));
  const api = new Api(server);
  await tenantInTrouble(api, receiver);
  await first.received(1);
  await waitFor(() => server.log.includes('a subscription was disabled'), { what: 'the 410 to disable it' });

  const second = await receiver([204]);
  const other = `whsec_${Buffer.from('another-secret-of-the-e2e-tests').toString('base64')}`;
  server.env = { POSTHORN_OPERATOR_URL: second.url(), POSTHORN_OPERATOR_SECRET: other };
  await server.restart();
  const { event } = await tenantInTrouble(api, receiver);
  await second.received(1);
  assert.equal(second.requests[0].verify(other).data.event_id, event.id);
  assert.equal(second.requests[0].headers['webhook-signature'].split(' ').length, 1, 'the old secret signs no more');

  server.env = {};
  await server.restart();
  const tenant = await api.createTenant();
  await markExhausted(tenant, receiver, await listen(tenant, receiver));
  assert.equal(second.requests.length, 1);
});

lifecycleTest('an operator-url that may not be sent to is a refusal to start', async () => {
  const folder = await temporaryFolder();
  for (const [url, flags, problem] of [
    ['http://alerts.example.com/', [], /operator-url.*https/s],
    ['https://10.0.0.1/', [], /operator-url.*private/s],
    ['nonsense', [], /operator-url/],
    ['https://alerts.example.com/', ['--operator-secret', 'whsec_short'], /operator-secret must be whsec_/],
  ]) {
    const args = ['serve', '--data', folder, '--listen', '127.0.0.1:0', '--operator-url', url];
    const ended = await run([...args, ...(flags.length ? flags : ['--operator-secret', SECRET])]);
    assert.notEqual(ended.code, 0, url);
    assert.match(ended.stderr, problem);
  }
  const without = await run(['serve', '--data', folder, '--operator-url', 'https://alerts.example.com/']);
  assert.equal(without.code, 2);
  assert.match(without.stderr, /operator-url needs operator-secret/);
  await rm(folder, { recursive: true });
});
