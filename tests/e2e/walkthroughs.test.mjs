// The three stories a webhook system must be able to tell, told by the real one.

import assert from 'node:assert/strict';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { Api, MORTAL } from './lib/api.mjs';
import { hang } from './lib/receiver.mjs';
import { states } from './lib/shape.mjs';
import { lifecycleTest } from './lib/suite.mjs';
import { LONG_LIMIT_MS, waitFor } from './lib/wait.mjs';

lifecycleTest('subscriber times out → retries with jitter → eventual success', async ({ start, receiver }) => {
  const tenant = await new Api(await start()).createTenant();

  // A payment event is created. The subscriber's endpoint does not answer in time, twice; then it recovers.
  const subscriber = await receiver([hang(), hang(), 204]);
  const retry = { initial_seconds: 2, multiplier: 2, max_seconds: 60, jitter: 0.5 };
  const { secret } = await tenant.subscribe(subscriber.url(), { policy: { timeout_ms: 3000, retry } });
  const event = await tenant.publish('payment.created', { payment: 'pay_1' });

  // The delivery moves to RETRY, with a next attempt by exponential backoff and jitter: 2 s ± 50 %, 4 s ± 50 %.
  const waiting = await tenant.waitDelivery(event, 'RETRY');
  const { id } = waiting;
  assert.ok(Date.parse(waiting.next_attempt_at) > Date.parse(waiting.attempts.at(-1).started_at));

  // The subscriber recovers and answers 204: DELIVERED, with delivered_at and the final status code.
  const delivery = await tenant.waitDelivery(id);
  for (const [number, backoff_ms] of [[1, 2000], [2, 4000]]) {
    const [failed, next] = delivery.attempts.slice(number - 1);
    const wait_ms = Date.parse(next.started_at) - (Date.parse(failed.started_at) + failed.latency_ms);
    assert.ok(wait_ms >= 0.5 * backoff_ms - 10, `attempt ${number + 1} came ${wait_ms} ms after attempt ${number}`);
  }
  assert.notEqual(delivery.delivered_at, null);
  assert.equal(delivery.last_status_code, 204);

  // Observability shows the full attempt chain.
  assert.deepEqual(
    delivery.attempts.map(({ number, error, status_code }) => [number, error, status_code]),
    [[1, 'timeout', null], [2, 'timeout', null], [3, null, 204]],
  );
  assert.deepEqual(states(delivery), [
    'PENDING', 'ATTEMPTING', 'RETRY', 'ATTEMPTING', 'RETRY', 'ATTEMPTING', 'DELIVERED',
  ]);
  for (const request of subscriber.requests) {
    request.verify(secret);
    assert.equal(request.id, id);
  }
});

lifecycleTest('worker crash after sending → duplicate delivery → idempotency handling', async ({ start, receiver }) => {
  const server = await start();
  const tenant = await new Api(server).createTenant();

  // The subscriber processes the first delivery, but before its answer is stored the worker is dead.
  const processed = new Set();
  let killed;
  const subscriber = await receiver(async (request) => {
    processed.add(request.id);
    if (request.attempt === 1) await (killed = server.kill());
    return 200;
  });
  const { secret } = await tenant.subscribe(subscriber.url(), { policy: MORTAL });
  const event = await tenant.publish('payment.created', { payment: 'pay_1' });
  await subscriber.received();
  await waitFor(() => killed);
  assert.deepEqual(await killed, { code: null, signal: 'SIGKILL' });

  // Another worker takes the same delivery and sends it again, without being asked.
  await server.start();
  const delivery = await tenant.waitDelivery(event);

  // The subscriber saw the same event twice, with the same key, and processed it once.
  const [first, second] = subscriber.requests;
  assert.equal(subscriber.requests.length, 2);
  for (const request of [first, second]) {
    request.verify(secret);
    assert.equal(request.id, delivery.id);
    assert.equal(request.headers['posthorn-event-id'], event.id);
  }
  assert.equal(second.text, first.text);
  assert.deepEqual([first.attempt, second.attempt], [1, 2]);
  assert.deepEqual([...processed], [delivery.id]);

  // The history shows both attempts, and hides nothing.
  assert.deepEqual(
    delivery.attempts.map(({ number, error, status_code }) => [number, error, status_code]),
    [[1, 'lease_expired', null], [2, null, 200]],
  );
  assert.equal(delivery.attempt_count, 2);
  assert.deepEqual(states(delivery), ['PENDING', 'ATTEMPTING', 'RETRY', 'ATTEMPTING', 'DELIVERED']);
});

const SUBSCRIBERS = 1500;
const PAYLOAD_BYTES = 64 * 1024;

lifecycleTest(`fan-out event to ${SUBSCRIBERS} subscriptions: one job, chunks, the payload stored once`, async ({ start, receiver }) => {
  const server = await start();
  const tenant = await new Api(server).createTenant({ limits: { max_subscriptions: 2 * SUBSCRIBERS } });
  const subscribers = await receiver([204]);
  const subscribed = new Map();
  const paths = Array.from({ length: SUBSCRIBERS }, (_, i) => `/subscriber/${i}`);
  await eachOf(paths, 32, async (path) => {
    const { id, secret } = await tenant.subscribe(subscribers.url(path), { event_types: ['release.published'] });
    subscribed.set(path, { id, secret });
  });
  const before = await folderSize(server.data);

  // The event of a popular type is accepted at once and expanded by a job.
  const event = await tenant.publish('release.published', 'x'.repeat(PAYLOAD_BYTES));
  const seen = new Set();
  await waitFor(
    async () => {
      const { fanout } = await tenant.event(event.id);
      seen.add(fanout.state);
      assert.ok(fanout.deliveries <= SUBSCRIBERS);
      return fanout.state === 'done';
    },
    { what: 'the fan-out to be done' },
  );
  for (const state of seen) assert.match(state, /^(pending|expanding|done)$/);
  assert.equal((await tenant.event(event.id)).fanout.deliveries, SUBSCRIBERS);

  // Every subscriber gets it, once, under a key of its own, signed with its own secret.
  await subscribers.received(SUBSCRIBERS, { limit: LONG_LIMIT_MS });
  await waitFor(async () => (await tenant.deliveries({ state: 'delivered' })).length === SUBSCRIBERS, { limit: LONG_LIMIT_MS, every: 200 });
  assert.equal(subscribers.requests.length, SUBSCRIBERS);
  assert.deepEqual(new Set(subscribers.requests.map((request) => request.path)), new Set(paths));
  assert.equal(new Set(subscribers.requests.map((request) => request.id)).size, SUBSCRIBERS);
  assert.equal(new Set(subscribers.requests.map((request) => request.text)).size, 1);
  for (const request of subscribers.requests.slice(0, 20)) request.verify(subscribed.get(request.path).secret);

  // Stored once, referenced by all.
  const grown = (await folderSize(server.data)) - before;
  assert.ok(grown < (SUBSCRIBERS * PAYLOAD_BYTES) / 2, `the store grew by ${grown} bytes`);
});

async function eachOf(items, parallel, work) {
  const queue = items.values();
  await Promise.all(
    Array.from({ length: parallel }, async () => {
      for (const item of queue) await work(item);
    }),
  );
}

async function folderSize(folder) {
  const files = await readdir(folder);
  const sizes = await Promise.all(files.map(async (file) => (await stat(join(folder, file))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
