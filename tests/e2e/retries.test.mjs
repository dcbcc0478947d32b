// The retry taxonomy: what each outcome of an attempt leads to.

import assert from 'node:assert/strict';

import { redirect, retryAfter, when } from './lib/receiver.mjs';
import { states } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';
import { gate, waitFor } from './lib/wait.mjs';

/** Retries at once, up to `attempts` in all. */
const soon = (attempts, more = {}) => ({
  timeout_ms: 30_000, retry: { schedule_seconds: Array(attempts - 1).fill(0), jitter: 0 }, ...more,
});
const SECONDLY = { initial_seconds: 1, multiplier: 1, max_seconds: 1, jitter: 0 };
/** Clocks may differ in the rounding of a millisecond. */
const ROUNDING_MS = 10;
const TRANSIENT = [300, 301, 302, 303, 304, 307, 308, 408, 409, 425, 500, 501, 502, 503, 504, 507, 599];
const PERMANENT = [400, 401, 402, 403, 404, 405, 406, 411, 413, 414, 415, 418, 421, 422, 426, 428, 431, 451, 499];

suite('retries', ({ test }) => {
  test('2xx is success', async ({ tenant, receiver }) => {
    for (const status of [200, 201, 202, 203, 204, 205, 206, 226, 299]) {
      const shop = await receiver([status]);
      const { id } = await tenant.subscribe(shop.url(), { event_types: [`s.${status}`] });
      const event = await tenant.publish(`s.${status}`);
      const delivery = await tenant.waitDelivery({ event_id: event.id, subscription_id: id });
      assert.equal(delivery.last_status_code, status);
      assert.equal(delivery.attempt_count, 1);
    }
  });

  for (const status of TRANSIENT) {
    test(`${status} is transient`, async ({ tenant, receiver }) => {
      const shop = await receiver([status, 204]);
      await tenant.subscribe(shop.url(), { policy: soon(2) });
      const delivery = await tenant.waitDelivery(await tenant.publish());
      assert.deepEqual(delivery.attempts.map((attempt) => attempt.status_code), [status, 204]);
      assert.deepEqual(states(delivery), ['PENDING', 'ATTEMPTING', 'RETRY', 'ATTEMPTING', 'DELIVERED']);
    });
  }

  test('other 4xx are permanent: the dead-letter queue at once', async ({ tenant, receiver }) => {
    for (const status of PERMANENT) {
      const shop = await receiver([status]);
      await tenant.subscribe(shop.url(), { event_types: [`s.${status}`], policy: soon(5) });
      const delivery = await tenant.waitDelivery(await tenant.publish(`s.${status}`), 'DLQ');
      assert.equal(delivery.attempt_count, 1, `${status}`);
      assert.equal(delivery.last_status_code, status);
      assert.equal(typeof delivery.failure_reason, 'string');
      assert.notEqual(delivery.failure_reason, '');
      assert.notEqual(delivery.exhausted_at, null);
      assert.equal(delivery.next_attempt_at, null);
      assert.deepEqual(states(delivery), ['PENDING', 'ATTEMPTING', 'DLQ']);
    }
  });

  test('410 is gone: the dead-letter queue, and the subscription is disabled', async ({ tenant, receiver }) => {
    const shop = await receiver([410]);
    const { id } = await tenant.subscribe(shop.url(), { policy: soon(5) });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.equal(delivery.attempt_count, 1);
    const subscription = await tenant.subscription(id);
    assert.equal(subscription.status, 'disabled');
    assert.equal(typeof subscription.disabled_reason, 'string');

    const ignored = await tenant.publish();
    assert.equal((await tenant.event(ignored.id)).fanout.deliveries, 0, 'a disabled subscription does not match');
    const again = await tenant.change(id, { status: 'active' });
    assert.equal(again.disabled_reason, null);
  });

  test('a redirect is not followed', async ({ tenant, receiver }) => {
    const elsewhere = await receiver([200]);
    for (const status of [301, 302, 303, 307, 308]) {
      const shop = await receiver([redirect(elsewhere.url(), status), 200]);
      await tenant.subscribe(shop.url(), { event_types: [`r.${status}`], policy: soon(2) });
      const delivery = await tenant.waitDelivery(await tenant.publish(`r.${status}`));
      assert.deepEqual(delivery.attempts.map((attempt) => attempt.status_code), [status, 200]);
    }
    assert.equal(elsewhere.requests.length, 0);
  });

  test('retry_on and no_retry_on override the taxonomy', async ({ tenant, receiver }) => {
    const missing = await receiver([404, 403, 200]);
    await tenant.subscribe(missing.url(), { event_types: ['a'], policy: soon(3, { retry_on: [403, 404] }) });
    assert.equal((await tenant.waitDelivery(await tenant.publish('a'))).attempt_count, 3);

    const broken = await receiver([500, 200]);
    await tenant.subscribe(broken.url(), { event_types: ['b'], policy: soon(3, { no_retry_on: [500] }) });
    assert.equal((await tenant.waitDelivery(await tenant.publish('b'), 'DLQ')).attempt_count, 1);
  });

  test('an explicit schedule: one retry an entry, then the dead-letter queue', async ({ tenant, receiver }) => {
    const shop = await receiver([500]);
    await tenant.subscribe(shop.url(), { policy: { retry: { schedule_seconds: [0, 1, 0], jitter: 0 } } });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.equal(delivery.attempt_count, 4);
    assert.equal(delivery.failure_reason.length > 0, true);
    assert.equal(delivery.last_status_code, 500);
    assert.notEqual(delivery.exhausted_at, null);
    assert.deepEqual(shop.requests.map((request) => request.attempt), [1, 2, 3, 4]);
    assert.equal(new Set(shop.requests.map((request) => request.id)).size, 1);
    assert.ok(shop.requests[2].at - shop.requests[1].at >= 1000 - ROUNDING_MS, 'the second delay is one second');
  });

  test('max_attempts ends it before the schedule does', async ({ tenant, receiver }) => {
    const shop = await receiver([500]);
    await tenant.subscribe(shop.url(), { policy: soon(10, { max_attempts: 2 }) });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.equal(delivery.attempt_count, 2);
    assert.equal(shop.requests.length, 2);
  });

  test('a retry that would come after the window is given up at once', async ({ tenant, receiver }) => {
    const shop = await receiver([500]);
    const policy = { retry: { schedule_seconds: [3600], jitter: 0 }, window_seconds: 60 };
    await tenant.subscribe(shop.url(), { policy });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.equal(delivery.attempt_count, 1);
    assert.match(delivery.failure_reason, /window/);
  });

  test('each attempt is signed afresh', async ({ tenant, receiver }) => {
    const shop = await receiver([500, 204]);
    const { secret } = await tenant.subscribe(shop.url(), { policy: { retry: { schedule_seconds: [1], jitter: 0 } } });
    await tenant.publish();
    const [first, second] = await shop.received(2);
    first.verify(secret);
    second.verify(secret);
    assert.ok(Number(second.headers['webhook-timestamp']) > Number(first.headers['webhook-timestamp']));
    assert.equal(second.id, first.id);
  });
}, { concurrency: 8 });

suite('backpressure', ({ test }) => {
  for (const status of [429, 503]) {
    test(`${status} with Retry-After in seconds: not before it`, async ({ tenant, receiver }) => {
      const shop = await receiver([retryAfter(status, 2), 204]);
      await tenant.subscribe(shop.url(), { policy: soon(3) });
      const delivery = await tenant.waitDelivery(await tenant.publish());
      assert.ok(shop.requests[1].at - shop.requests[0].at >= 2000 - ROUNDING_MS);
      assert.equal(delivery.attempt_count, 2);
    });

    test(`${status} with Retry-After as a date: not before it`, async ({ tenant, receiver }) => {
      const at = new Date(Math.ceil(Date.now() / 1000) * 1000 + 2000);
      const shop = await receiver([retryAfter(status, at.toUTCString()), 204]);
      await tenant.subscribe(shop.url(), { policy: soon(3) });
      await tenant.waitDelivery(await tenant.publish());
      assert.ok(shop.requests[1].at >= at.getTime() - ROUNDING_MS, `came ${at.getTime() - shop.requests[1].at} ms early`);
    });

    test(`${status} with Retry-After does not count towards max_attempts`, async ({ tenant, receiver }) => {
      const shop = await receiver([retryAfter(status, 0), retryAfter(status, 1), 500, 204]);
      await tenant.subscribe(shop.url(), { policy: { retry: SECONDLY, max_attempts: 2 } });
      const delivery = await tenant.waitDelivery(await tenant.publish());
      assert.equal(delivery.attempt_count, 4, 'attempts begun are all counted');
    });
  }

  test('429 without Retry-After is backpressure too', async ({ tenant, receiver }) => {
    const shop = await receiver([429, 429, 500, 500]);
    await tenant.subscribe(shop.url(), { policy: { retry: SECONDLY, max_attempts: 2 } });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.equal(delivery.attempt_count, 4);
  });

  test('503 without Retry-After counts', async ({ tenant, receiver }) => {
    const shop = await receiver([503]);
    await tenant.subscribe(shop.url(), { policy: soon(5, { max_attempts: 2 }) });
    assert.equal((await tenant.waitDelivery(await tenant.publish(), 'DLQ')).attempt_count, 2);
  });

  test('the whole lane waits for Retry-After', async ({ tenant, receiver }) => {
    const shop = await receiver([retryAfter(429, 2), 204]);
    await tenant.subscribe(shop.url(), { policy: soon(3) });
    const first = await tenant.publish('a.b', 'first');
    await waitFor(async () => ['RETRY', 'DELIVERED'].includes((await tenant.deliveries({ event_id: first.id }))[0].state), { what: 'the refusal to be known' });
    await tenant.publish('a.b', 'second');
    const [refused, ...later] = await shop.received(3);
    for (const request of later) assert.ok(request.at - refused.at >= 2000 - ROUNDING_MS, `${request.json.data} came early`);
  });

  test('another lane does not wait', async ({ tenant, receiver }) => {
    const shop = await receiver([retryAfter(429, 3600)]);
    const other = await receiver([204]);
    const slow = await tenant.subscribe(shop.url(), { policy: soon(3) });
    const fast = await tenant.subscribe(other.url());
    const event = await tenant.publish();
    await tenant.waitDelivery({ event_id: event.id, subscription_id: slow.id }, 'RETRY');
    const next = await tenant.publish();
    await tenant.waitDelivery({ event_id: next.id, subscription_id: fast.id });
    assert.equal(shop.requests.length, 1);
  });

  test('Retry-After past the window: given up at once', async ({ tenant, receiver }) => {
    const shop = await receiver([retryAfter(429, 3600)]);
    await tenant.subscribe(shop.url(), { policy: soon(3, { window_seconds: 60 }) });
    // Capped at the window or past it: either way the next attempt is not after the window.
    const event = await tenant.publish();
    await shop.received();
    const delivery = await waitFor(async () => {
      const [one] = await tenant.deliveries({ event_id: event.id });
      return ['DLQ', 'RETRY'].includes(one.state) && one;
    }, { what: 'the refusal to be known' });
    if (delivery.state === 'RETRY') {
      assert.ok(Date.parse(delivery.next_attempt_at) <= Date.parse(delivery.created_at) + 60_000);
    }
  });

  test('a Retry-After that says nothing is ignored', async ({ tenant, receiver }) => {
    for (const value of ['soon', '-5', '', '1e3', 'Sun, 99 Foo 2026 00:00:00 GMT', 'Sun, 06 Nov 1994 08:49:37 GMT']) {
      const shop = await receiver([retryAfter(429, value), 204]);
      const type = `v.${shop.url().match(/\d+(?=\/hook)/)[0]}`;
      await tenant.subscribe(shop.url(), { event_types: [type], policy: soon(3) });
      await tenant.waitDelivery(await tenant.publish(type));
    }
  });

  test('max_in_flight is never passed', async ({ tenant, receiver }) => {
    const full = gate();
    const shop = await receiver(async (request) => {
      if (request.concurrency === 3) full.open();
      await full.opened;
      return 204;
    });
    await tenant.subscribe(shop.url(), { policy: { max_in_flight: 3 } });
    await tenant.expect(202, 'POST', '/events/batch', { body: Array.from({ length: 30 }, (_, i) => ({ type: 'a.b', data: i })) });
    const requests = await shop.received(30);
    assert.equal(Math.max(...requests.map((request) => request.concurrency)), 3);
  });

  test('a slow subscriber holds no other back', async ({ tenant, receiver }) => {
    const release = gate();
    const slow = await receiver([when(release.opened)]);
    const fast = await receiver([204]);
    await tenant.subscribe(slow.url(), { policy: { timeout_ms: 30_000 } });
    await tenant.subscribe(fast.url());
    await tenant.expect(202, 'POST', '/events/batch', { body: Array.from({ length: 50 }, (_, i) => ({ type: 'a.b', data: i })) });
    await fast.received(50);
    assert.ok(slow.requests.length <= 10);
    release.open();
    await slow.received(50);
  });
}, { concurrency: 8 });
