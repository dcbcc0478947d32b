// The objects of the contract's examples: exactly their fields, ids, times and defaults.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

import { assertFields, assertId, assertProblem, assertTime, states } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';

const SUBSCRIPTION = [
  'id', 'tenant_id', 'url', 'event_types', 'filter', 'description', 'metadata', 'status', 'disabled_reason', 'ordering',
  'format', 'signature', 'headers', 'receipts', 'policy', 'created_at', 'updated_at',
];
const EVENT = ['id', 'tenant_id', 'type', 'schema_version', 'ordering_key', 'deliver_at', 'created_at', 'data', 'fanout'];
const DELIVERY = [
  'id', 'tenant_id', 'event_id', 'event_type', 'subscription_id', 'state', 'attempt_count', 'next_attempt_at', 'waiting_on',
  'created_at', 'delivered_at', 'last_status_code', 'last_error', 'failure_reason', 'exhausted_at', 'ordering_key', 'replay',
  'receipt', 'attempts', 'timeline',
];
const ATTEMPT = [
  'id', 'delivery_id', 'number', 'started_at', 'latency_ms', 'phases_ms', 'status_code', 'error', 'url', 'request_headers',
  'response_headers', 'response_body', 'response_hash', 'worker_id', 'trigger',
];
const POLICY = {
  timeout_ms: 15_000,
  max_in_flight: 10,
  rate_limit: null,
  retry: { initial_seconds: 5, multiplier: 4, max_seconds: 21_600, jitter: 0.2 },
  max_attempts: 24,
  window_seconds: 259_200,
  retry_on: [],
  no_retry_on: [],
  disable_after_seconds: 432_000,
};

suite('objects', ({ test }) => {
  test('a tenant', async ({ api, tenant }) => {
    const created = await api.expect(201, 'POST', '/v1/tenants', { body: { id: `${tenant.id}.b_-9`, name: 'Acme', tier: 'premium' } });
    assert.equal(created.id, `${tenant.id}.b_-9`);
    assert.equal(created.name, 'Acme');
    assert.equal(created.tier, 'premium');
    assert.equal(typeof created.limits, 'object');
    assertTime(created.created_at);
    assert.deepEqual(await api.get(`/v1/tenants/${created.id}`), created);
    assert.equal((await api.get(tenant.path)).tier, 'standard');
    const { data } = await api.get('/v1/tenants?limit=250');
    assert.ok(data.some((one) => one.id === created.id));
    const changed = await api.expect(200, 'PATCH', `/v1/tenants/${created.id}`, { body: { name: 'Acme Inc.' } });
    const misspelt = await api.request('PATCH', `/v1/tenants/${created.id}`, { body: { colour: null, limits: { max_foo: null } } });
    assertProblem(misspelt, 422, ['colour', 'limits.max_foo']);
    assert.equal(changed.name, 'Acme Inc.');
    assert.equal(changed.tier, 'premium');
    const { status } = await api.request('DELETE', `/v1/tenants/${created.id}`);
    assert.ok([200, 202, 204].includes(status), `DELETE answered ${status}`);
    await api.expect(404, 'GET', `/v1/tenants/${created.id}`);
  });

  test('a subscription, with its defaults', async ({ tenant }) => {
    const created = await tenant.expect(201, 'POST', '/subscriptions', { body: { url: 'http://127.0.0.1:9/hook' } });
    assertFields(created, [...SUBSCRIPTION, 'secret']);
    const { secret, ...subscription } = created;
    assert.match(secret, /^whsec_/);
    const secretBytes = Buffer.from(secret.slice('whsec_'.length), 'base64').length;
    assert.ok(secretBytes >= 24 && secretBytes <= 64, `a secret of ${secretBytes} bytes`);
    assertId(subscription.id, 'sub');
    assertTime(subscription.created_at);
    assertTime(subscription.updated_at);
    assert.deepEqual(subscription, {
      id: subscription.id,
      tenant_id: tenant.id,
      url: 'http://127.0.0.1:9/hook',
      event_types: [],
      filter: null,
      description: '',
      metadata: {},
      status: 'active',
      disabled_reason: null,
      ordering: 'none',
      format: 'envelope',
      signature: 'hmac',
      headers: {},
      receipts: false,
      policy: POLICY,
      created_at: subscription.created_at,
      updated_at: subscription.updated_at,
    });
    assert.deepEqual(await tenant.subscription(subscription.id), subscription, 'the secret is shown once');
    assert.deepEqual((await tenant.get('/subscriptions')).data, [subscription]);
  });

  test('a subscription, with all its fields given', async ({ tenant }) => {
    const fields = {
      url: 'http://127.0.0.1:9/hook?a=1&b=%20',
      event_types: ['invoice.*', 'user.created'],
      description: 'Ünïcode “quotes” \\ \n',
      metadata: { team: 'billing', n: '1' },
      status: 'paused',
      ordering: 'key',
      format: 'raw',
      headers: { 'X-Api-Key': 'k1' },
      policy: {
        ...POLICY,
        timeout_ms: 2000,
        max_in_flight: 3,
        rate_limit: { per_second: 5, burst: 10 },
        retry: { schedule_seconds: [5, 300, 1800], jitter: 0 },
        retry_on: [404],
        no_retry_on: [500],
      },
    };
    const created = await tenant.expect(201, 'POST', '/subscriptions', { body: fields });
    for (const [name, value] of Object.entries(fields)) assert.deepEqual(created[name], value, name);
  });

  test('an event', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url());
    const answer = await tenant.publish('invoice.paid', { amount: 1 });
    assertFields(answer, ['id', 'type', 'created_at', 'duplicate']);
    assertId(answer.id, 'evt');
    assertTime(answer.created_at);
    assert.equal(answer.type, 'invoice.paid');
    assert.equal(answer.duplicate, false);

    await tenant.waitDelivery(answer);
    const event = await tenant.event(answer.id);
    assertFields(event, EVENT);
    assert.deepEqual(event, {
      id: answer.id,
      tenant_id: tenant.id,
      type: 'invoice.paid',
      schema_version: '1',
      ordering_key: null,
      deliver_at: null,
      created_at: answer.created_at,
      data: { amount: 1 },
      fanout: { state: 'done', deliveries: 1 },
    });
  });

  test('a delivery that is done, and its attempt', async ({ tenant, receiver }) => {
    const shop = await receiver([{ status: 200, headers: { 'X-Trace': 'abc' }, body: 'thanks' }]);
    const subscription = await tenant.subscribe(shop.url('/hook?a=1'));
    const event = await tenant.publish('invoice.paid', 1, { ordering_key: 'in_1' });
    const delivery = await tenant.waitDelivery(event);
    assertFields(delivery, DELIVERY);
    assertId(delivery.id, 'dlv');
    assertTime(delivery.created_at);
    assertTime(delivery.delivered_at);
    const { attempts, timeline, ...rest } = delivery;
    assert.deepEqual(rest, {
      id: delivery.id,
      tenant_id: tenant.id,
      event_id: event.id,
      event_type: 'invoice.paid',
      subscription_id: subscription.id,
      state: 'DELIVERED',
      attempt_count: 1,
      next_attempt_at: null,
      waiting_on: null,
      created_at: delivery.created_at,
      delivered_at: delivery.delivered_at,
      last_status_code: 200,
      last_error: null,
      failure_reason: null,
      exhausted_at: null,
      ordering_key: 'in_1',
      replay: null,
      receipt: null,
    });
    for (const step of timeline) {
      assertFields(step, ['at', 'from', 'to', 'reason']);
      assertTime(step.at);
    }
    assert.deepEqual(timeline.map(({ from, to }) => [from, to]), [[null, 'PENDING'], ['PENDING', 'ATTEMPTING'], ['ATTEMPTING', 'DELIVERED']]);

    assert.equal(attempts.length, 1);
    assert.deepEqual(await tenant.attempts(delivery.id), attempts);
    const [attempt] = attempts;
    assertFields(attempt, ATTEMPT);
    assertId(attempt.id, 'att');
    assertTime(attempt.started_at);
    assertFields(attempt.phases_ms, ['dns', 'connect', 'tls', 'wait']);
    for (const phase of Object.values(attempt.phases_ms)) assert.ok(Number.isInteger(phase) && phase >= 0);
    assert.ok(Number.isInteger(attempt.latency_ms) && attempt.latency_ms >= 0);
    assert.equal(attempt.delivery_id, delivery.id);
    assert.equal(attempt.number, 1);
    assert.equal(attempt.status_code, 200);
    assert.equal(attempt.error, null);
    assert.equal(attempt.url, shop.url('/hook?a=1'));
    assert.equal(attempt.response_body, 'thanks');
    assert.equal(attempt.response_hash, `sha256:${createHash('sha256').update('thanks').digest('hex')}`);
    assert.equal(attempt.trigger, 'schedule');
    assert.equal(typeof attempt.worker_id, 'string');
    assert.equal(lowerCased(attempt.response_headers)['x-trace'], 'abc');
    const sent = lowerCased(attempt.request_headers);
    for (const name of ['content-type', 'user-agent', 'webhook-id', 'webhook-timestamp', 'webhook-signature', 'posthorn-event-id', 'posthorn-attempt']) {
      assert.equal(sent[name], shop.requests[0].headers[name], name);
    }
  });

  test('a delivery that waits for its retry', async ({ tenant, receiver }) => {
    const shop = await receiver([500]);
    await tenant.subscribe(shop.url(), { policy: { retry: { schedule_seconds: [3600], jitter: 0 } } });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'RETRY');
    assertFields(delivery, DELIVERY);
    assert.equal(delivery.attempt_count, 1);
    assert.equal(delivery.last_status_code, 500);
    assert.equal(delivery.last_error, null);
    assert.equal(delivery.delivered_at, null);
    assert.deepEqual(states(delivery), ['PENDING', 'ATTEMPTING', 'RETRY']);
    const [attempt] = delivery.attempts;
    const delay = Date.parse(delivery.next_attempt_at) - (Date.parse(attempt.started_at) + attempt.latency_ms);
    assert.ok(delay >= 3_600_000 - 5 && delay < 3_660_000, `next attempt after ${delay} ms`);
  });

  test('a delivery in a list', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url());
    await tenant.waitDelivery(await tenant.publish());
    const [delivery] = await tenant.deliveries();
    for (const name of DELIVERY.filter((name) => !['attempts', 'timeline'].includes(name))) assert.ok(name in delivery, name);
  });
});

const lowerCased = (headers) => Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
