// Bulk replays: by filter, counted first, in their own share, cancelled, gone on with after a crash.

import assert from 'node:assert/strict';
import { describe } from 'node:test';

import { Api } from './lib/api.mjs';
import { when } from './lib/receiver.mjs';
import { assertFields, assertId, assertProblem, assertTime, states } from './lib/shape.mjs';
import { lifecycleTest, suite } from './lib/suite.mjs';
import { gate, LONG_LIMIT_MS, waitFor } from './lib/wait.mjs';

const LOSING = { timeout_ms: 30_000, max_attempts: 1 };

/** A batch of events, so that the tests do not take long. */
async function publishMany(tenant, n, event = (i) => ({ type: 'order.made', data: { n: i } })) {
  const ids = [];
  for (let from = 0; from < n; from += 1000) {
    const body = Array.from({ length: Math.min(1000, n - from) }, (_, i) => event(from + i));
    ids.push(...(await tenant.expect(202, 'POST', '/events/batch', { body })).data.map((e) => e.id));
  }
  return ids;
}

const replay = (tenant, body) => tenant.expect(202, 'POST', '/replays', { body });
const ended = (tenant, id, state = 'done') =>
  waitFor(async () => {
    const found = await tenant.get(`/replays/${id}`);
    return found.state === state && found;
  }, { what: `replay ${id} to be ${state}` });

/** Publishes n events that all end in the DLQ; afterwards the endpoint is well. */
async function lose(tenant, shop, n, fields = {}, event) {
  shop.script = [404];
  const subscription = await tenant.subscribe(shop.url(), { policy: LOSING, ...fields });
  const events = await publishMany(tenant, n, event);
  await waitFor(async () => (await tenant.deliveries({ state: 'dlq', subscription_id: subscription.id })).length >= n, { what: 'all to be lost' });
  shop.requests.length = 0;
  shop.script = [204];
  return { subscription, events };
}

suite('bulk replays', ({ test }) => {
  test('the dead-letter queue of a subscription is delivered: same ids, same bytes, progress to the end', async ({ tenant, receiver }) => {
    const shop = await receiver([404]);
    const subscription = await tenant.subscribe(shop.url(), { policy: LOSING });
    await publishMany(tenant, 30);
    const lost = await waitFor(async () => {
      const all = await tenant.deliveries({ state: 'dlq' });
      return all.length === 30 && all;
    });
    const before = new Map(shop.requests.map((r) => [r.id, r.text]));
    shop.requests.length = 0;
    shop.script = [204];

    const answer = await replay(tenant, { subscription_id: subscription.id, states: ['dlq'] });
    assertId(answer.id, 'rpl');
    assert.deepEqual(answer, { id: answer.id, matched: 30 });
    const done = await ended(tenant, answer.id);
    assertFields(done, ['id', 'state', 'matched', 'done', 'failed', 'requested_by', 'created_at']);
    assert.deepEqual({ ...done, created_at: 0 }, { id: answer.id, state: 'done', matched: 30, done: 30, failed: 0, requested_by: 'admin', created_at: 0 });
    assertTime(done.created_at);

    assert.equal(shop.requests.length, 30);
    for (const request of shop.requests) assert.equal(request.text, before.get(request.id));
    const delivery = await tenant.delivery(lost[0].id);
    assert.equal(delivery.event_id, lost[0].event_id);
    assert.deepEqual(states(delivery), ['PENDING', 'ATTEMPTING', 'DLQ', 'REPLAYING', 'ATTEMPTING', 'DELIVERED']);
    assert.equal(delivery.replay.source, answer.id);
    assert.equal(delivery.replay.requested_by, 'admin');
    assertTime(delivery.replay.at);
    assert.equal(delivery.attempts[1].trigger, 'replay');
    assert.equal((await tenant.all('/replays'))[0].id, answer.id);
  });

  test('what fails again is counted as failed', async ({ tenant, receiver }) => {
    const shop = await receiver([404]);
    await lose(tenant, shop, 6);
    shop.script = (request) => (request.json.data.n % 3 === 0 ? 404 : 204);
    const { id } = await replay(tenant, {});
    const { matched, done, failed } = await ended(tenant, id);
    assert.deepEqual({ matched, done, failed }, { matched: 6, done: 4, failed: 2 });
  });

  test('a dry run counts and changes nothing', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { events } = await lose(tenant, shop, 5);
    const answer = await replay(tenant, { dry_run: true });
    assert.equal(answer.matched, 5);
    const done = await ended(tenant, answer.id);
    assert.deepEqual([done.matched, done.done, done.failed], [5, 0, 0]);
    for (const event_id of events) assert.equal((await tenant.deliveries({ event_id }))[0].state, 'DLQ');
    assert.equal(shop.requests.length, 0);
  });

  test('filters: type, prefix, time, state, subscription', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const types = ['a.b', 'a.c', 'a', 'b'];
    const { subscription, events } = await lose(tenant, shop, 8, {}, (i) => ({ type: types[i % 4], data: i }));
    const other = await receiver([204]);
    const second = await tenant.subscribe(other.url());
    await tenant.waitDelivery({ ...(await tenant.publish('a.b')), subscription_id: second.id });
    await waitFor(async () => (await tenant.deliveries({ state: 'delivered' })).length === 2);
    const matched = async (body) => (await replay(tenant, { dry_run: true, ...body })).matched;
    assert.equal(await matched({}), 8);
    assert.equal(await matched({ event_type: 'a.b' }), 2);
    assert.equal(await matched({ event_type: 'a.*' }), 4);
    assert.equal(await matched({ states: ['delivered'] }), 2);
    assert.equal(await matched({ states: ['Delivered', 'DLQ'] }), 10);
    assert.equal(await matched({ states: ['delivered', 'dlq'], subscription_id: subscription.id }), 9);
    assert.equal(await matched({ states: ['delivered'], subscription_id: second.id }), 1);
    const middle = (await tenant.event(events[7])).created_at;
    assert.equal(await matched({ until: new Date(Date.parse(middle) + 1).toISOString() }), 8);
    assert.equal(await matched({ since: new Date(Date.parse(middle) + 1).toISOString() }), 0);
    assert.equal(await matched({ until: new Date(Date.parse((await tenant.event(events[0])).created_at)).toISOString() }), 0);
  });

  test('delivered ones are sent again when asked for', async ({ tenant, receiver }) => {
    const shop = await receiver([204]);
    const subscription = await tenant.subscribe(shop.url());
    const events = await publishMany(tenant, 12);
    await waitFor(async () => (await tenant.deliveries({ state: 'delivered' })).length === 12);
    const { id, matched } = await replay(tenant, { subscription_id: subscription.id, states: ['delivered'] });
    assert.equal(matched, 12);
    assert.equal((await ended(tenant, id)).done, 12);
    assert.equal(shop.requests.length, 24);
    assert.equal(new Set(shop.requests.map((r) => r.id)).size, events.length);
  });

  test('include_missing: what was published before the subscription existed is delivered', async ({ tenant, receiver }) => {
    const shop = await receiver([204]);
    await publishMany(tenant, 10, (i) => ({ type: i % 2 ? 'order.made' : 'user.made', data: i }));
    const subscription = await tenant.subscribe(shop.url(), { event_types: ['order.*'] });
    const after = await tenant.publish('order.made', 'after');
    await tenant.waitDelivery(after);
    const { id, matched } = await replay(tenant, { subscription_id: subscription.id, include_missing: true });
    assert.equal(matched, 5);
    const done = await ended(tenant, id);
    assert.deepEqual([done.matched, done.done], [5, 5]);
    assert.deepEqual(shop.requests.slice(1).map((r) => r.json.data), [1, 3, 5, 7, 9]);
    shop.requests[1].verify(subscription.secret);
    const delivery = await tenant.delivery(shop.requests[1].id);
    assert.deepEqual(states(delivery), ['PENDING', 'ATTEMPTING', 'DELIVERED']);
    assert.equal(delivery.replay.source, id);
    assert.equal((await replay(tenant, { subscription_id: subscription.id, include_missing: true, dry_run: true })).matched, 0);
  });

  test('include_missing asks the filter', async ({ tenant, receiver }) => {
    const shop = await receiver([204]);
    await publishMany(tenant, 9);
    const subscription = await tenant.subscribe(shop.url(), { filter: { data: { n: [{ numeric: ['>', 5] }] } } });
    const { id, matched } = await replay(tenant, { subscription_id: subscription.id, include_missing: true });
    assert.equal(matched, 3);
    assert.equal((await ended(tenant, id)).done, 3);
    assert.deepEqual(shop.requests.map((r) => r.json.data.n), [6, 7, 8]);
  });

  test('include_missing keeps the order of a strict lane', async ({ tenant, receiver }) => {
    const shop = await receiver([204]);
    await publishMany(tenant, 20);
    const subscription = await tenant.subscribe(shop.url(), { ordering: 'strict' });
    const { id } = await replay(tenant, { subscription_id: subscription.id, include_missing: true });
    await ended(tenant, id);
    assert.deepEqual(shop.requests.map((r) => r.json.data.n), Array.from({ length: 20 }, (_, i) => i));
  });

  test('cancelled: what was not attempted goes back to the dead-letter queue', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { subscription } = await lose(tenant, shop, 40, { policy: { ...LOSING, max_in_flight: 8 } });
    const open = gate();
    shop.script = [when(open.opened)];
    const { id } = await replay(tenant, { subscription_id: subscription.id });
    await shop.received(4);
    await tenant.change(subscription.id, { status: 'paused' });
    await tenant.expect(204, 'DELETE', `/replays/${id}`);
    const cancelled = await ended(tenant, id, 'cancelled');
    assert.equal(cancelled.matched, 40);
    const lost = await tenant.deliveries({ state: 'dlq' });
    assert.ok(lost.length >= 32 && lost.length <= 36, `${lost.length} are in the queue`);
    open.open();
    await waitFor(async () => (await tenant.get(`/replays/${id}`)).done === 40 - lost.length);
    await tenant.expect(204, 'DELETE', `/replays/${id}`);
    // A paused lane holds what a second replay starts: cancelling takes it back, with its reason.
    const second = await replay(tenant, { subscription_id: subscription.id });
    await waitFor(async () => (await tenant.deliveries({ state: 'replaying' })).length === 4);
    await tenant.expect(204, 'DELETE', `/replays/${second.id}`);
    await ended(tenant, second.id, 'cancelled');
    const back = (await tenant.deliveries({ state: 'dlq' })).filter((d) => d.failure_reason === 'replay_cancelled');
    assert.equal(back.length, 4);
    assert.deepEqual(states(await tenant.delivery(back[0].id)).slice(-2), ['REPLAYING', 'DLQ']);
  });

  test('cancelling one that has ended changes nothing', async ({ tenant }) => {
    const { id } = await replay(tenant, {});
    await ended(tenant, id);
    await tenant.expect(204, 'DELETE', `/replays/${id}`);
    assert.equal((await tenant.get(`/replays/${id}`)).state, 'done');
  });

  test('replays run in their own share: a live event does not wait for the backlog', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { subscription } = await lose(tenant, shop, 60, { policy: { ...LOSING, max_in_flight: 4 } });
    const held = gate();
    shop.script = (request) => (request.json.type === 'live' ? 204 : when(held.opened)());
    const { id } = await replay(tenant, { subscription_id: subscription.id });
    await shop.received(2);
    await tenant.waitDelivery(await tenant.publish('live'));
    assert.equal(shop.requests.length, 3, 'two replays, held, and the live event');
    held.open();
    assert.equal((await ended(tenant, id)).done, 60);
    assert.ok(Math.max(...shop.requests.map((r) => r.concurrency)) <= 3, 'two replays and one live event at a time');
  });

  test('a paused subscription holds up no other', async ({ tenant, receiver }) => {
    const [first, second] = [await receiver(), await receiver()];
    const held = await lose(tenant, first, 30);
    await tenant.change(held.subscription.id, { status: 'paused' });
    await lose(tenant, second, 30);
    const { id } = await replay(tenant, {});
    await second.received(30);
    assert.equal((await tenant.get(`/replays/${id}`)).state, 'running');
    await tenant.change(held.subscription.id, { status: 'active' });
    assert.equal((await ended(tenant, id)).done, 60);
  });

  test('a pace is kept', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await lose(tenant, shop, 45);
    const since = Date.now();
    const { id } = await replay(tenant, { per_second: 20 });
    await ended(tenant, id);
    assert.ok(Date.now() - since >= 1000, 'the first twenty at once, the others in their time');
    assert.equal(shop.requests.length, 45);
  });

  test('a deleted subscription takes no replays', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { subscription } = await lose(tenant, shop, 3);
    await tenant.expect(204, 'DELETE', `/subscriptions/${subscription.id}`);
    const { id, matched } = await replay(tenant, {});
    assert.equal(matched, 0);
    assert.equal((await ended(tenant, id)).matched, 0);
    assert.equal(shop.requests.length, 0);
  });

  test('bad requests are told field by field', async ({ api, tenant }) => {
    const bad = async (body, fields) => assertProblem(await tenant.request('POST', '/replays', { body }), 422, fields);
    await bad({ states: ['pending'] }, ['states[0]']);
    await bad({ states: [] }, ['states']);
    await bad({ states: 'dlq' }, ['states']);
    await bad({ event_type: '*' }, ['event_type']);
    await bad({ since: 'yesterday', until: 7 }, ['since', 'until']);
    await bad({ since: '2026-01-02T00:00:00Z', until: '2026-01-01T00:00:00Z' }, ['until']);
    await bad({ include_missing: true }, ['include_missing']);
    await bad({ subscription_id: 'sub_01', per_second: 0, dry_run: 'yes', colour: 'red' }, ['subscription_id', 'per_second', 'dry_run', 'colour']);
    const { id } = await replay(await api.createTenant(), {});
    assertProblem(await tenant.request('GET', `/replays/${id}`), 404);
    assertProblem(await tenant.request('DELETE', `/replays/${id}`), 404);
    assertProblem(await tenant.request('GET', '/replays/nonsense'), 404);
  });

  test('counts of the dead-letter queue, by reason and by subscription', async ({ tenant, receiver }) => {
    const [first, second] = [await receiver(), await receiver()];
    const a = await lose(tenant, first, 3);
    const b = await lose(tenant, second, 2, { policy: { ...LOSING, retry_on: [404] } });
    assert.deepEqual((await tenant.get('/deliveries/counts')).by_reason, { permanent_response: 3, attempts_exhausted: 2 });
    assert.deepEqual(await tenant.get(`/deliveries/counts?subscription_id=${b.subscription.id}`), {
      total: 2, by_reason: { attempts_exhausted: 2 }, data: [{ subscription_id: b.subscription.id, total: 2, by_reason: { attempts_exhausted: 2 } }], next_cursor: null,
    });
    const page = await tenant.get('/deliveries/counts?limit=1');
    assert.deepEqual([page.total, page.data[0].subscription_id], [5, a.subscription.id]);
    const next = await tenant.get(`/deliveries/counts?limit=1&cursor=${page.next_cursor}`);
    assert.deepEqual([next.data[0].subscription_id, next.next_cursor], [b.subscription.id, null]);
    await ended(tenant, (await replay(tenant, {})).id);
    assert.deepEqual(await tenant.get('/deliveries/counts'), { total: 0, by_reason: {}, data: [], next_cursor: null });
    assertProblem(await tenant.request('GET', '/deliveries/counts?subscription_id=x'), 422, ['subscription_id']);
  });

  test('scopes: replays:write asks and cancels, deliveries:read looks', async ({ api, tenant }) => {
    const key = async (scope) => (await api.expect(201, 'POST', '/v1/keys', { body: { tenant_id: tenant.id, scopes: [scope] } })).key;
    const [writer, reader, other] = [await key('replays:write'), await key('deliveries:read'), await key('events:read')];
    const made = await tenant.request('POST', '/replays', { body: {}, key: writer });
    assert.equal(made.status, 202);
    const path = `/replays/${made.json.id}`;
    assert.equal((await tenant.request('POST', '/replays', { body: {}, key: reader })).status, 403);
    assert.equal((await tenant.request('DELETE', path, { key: reader })).status, 403);
    for (const k of [writer, reader]) assert.equal((await tenant.request('GET', path, { key: k })).status, 200);
    assert.equal((await tenant.request('GET', path, { key: other })).status, 403);
    assert.match((await tenant.request('GET', path, { key: writer })).json.requested_by, /^key_/);
  });
});

suite('replays by themselves', ({ test }) => {
  const policy = { timeout_ms: 30_000, max_attempts: 1, replay_on_recovery: true };

  test('the endpoint recovers: what it lost meanwhile comes, once', async ({ tenant, receiver }) => {
    const shop = await receiver([500]);
    const subscription = await tenant.subscribe(shop.url(), { policy });
    assert.equal(subscription.policy.replay_on_recovery, true);
    await publishMany(tenant, 20);
    // The breaker is open behind ten failures; the others wait for its probe, which comes after some five seconds.
    await waitFor(async () => {
      const { breaker, in_flight, dlq, pending } = await tenant.get(`/subscriptions/${subscription.id}/stats`);
      return breaker === 'open' && in_flight === 0 && dlq + pending === 20 && dlq >= 10;
    });
    // A probe may have come since that was asked: what was refused until now is what was lost.
    const lost = shop.requests.map(({ id }) => id);
    shop.script = [204];
    await waitFor(async () => (await tenant.deliveries({ state: 'delivered' })).length === 20);
    const [recovery, ...others] = await tenant.all('/replays');
    assert.deepEqual(others, []);
    assert.equal(recovery.requested_by, 'system');
    const { done } = await ended(tenant, recovery.id);
    assert.equal(done, lost.length);
    for (const id of lost) assert.equal((await tenant.delivery(id)).replay.source, recovery.id);
  });

  test('enabled again: what ran out of attempts comes, what was refused for good does not', async ({ tenant, receiver }) => {
    const shop = await receiver();
    shop.script = (request) => (request.json.type === 'refused' ? 404 : 500);
    const subscription = await tenant.subscribe(shop.url(), { policy });
    for (const type of ['refused', 'lost', 'lost']) await tenant.publish(type);
    await waitFor(async () => (await tenant.deliveries({ state: 'dlq' })).length === 3);
    await tenant.change(subscription.id, { status: 'disabled' });
    shop.script = [204];
    await tenant.change(subscription.id, { description: 'moved' });
    await tenant.change(subscription.id, { status: 'active' });
    await waitFor(async () => (await tenant.deliveries({ state: 'delivered' })).length === 2);
    assert.deepEqual((await tenant.deliveries({ state: 'dlq' })).map((d) => d.event_type), ['refused']);
    // Nothing was lost since: no second replay.
    await tenant.change(subscription.id, { status: 'disabled' });
    await tenant.change(subscription.id, { status: 'active' });
    await tenant.waitDelivery(await tenant.publish('lost'));
    await waitFor(async () => (await tenant.all('/replays')).length === 1, { what: 'a replay of nothing to leave no entry' });
  });

  test('one that does not ask for it is left alone', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { subscription } = await lose(tenant, shop, 2, { policy: { ...policy, replay_on_recovery: false, retry_on: [404] } });
    await tenant.change(subscription.id, { status: 'disabled' });
    await tenant.change(subscription.id, { status: 'active' });
    await tenant.waitDelivery(await tenant.publish());
    assert.equal((await tenant.deliveries({ state: 'dlq' })).length, 2);
    assert.deepEqual(await tenant.all('/replays'), []);
    assert.equal('replay_on_recovery' in (await tenant.change(subscription.id, { policy: { replay_on_recovery: null } })).policy, false);
  });
}, { concurrency: 3 });

describe('a replay and a kill', () => {
  lifecycleTest('it goes on where it was: nothing lost, nothing started twice', async ({ start, receiver }) => {
    const server = await start({ fixedPort: true });
    const tenant = await new Api(server).createTenant();
    const shop = await receiver();
    const n = 3000;
    const { subscription } = await lose(tenant, shop, n, { policy: { max_attempts: 1, max_in_flight: 200 } });
    shop.script = [204];
    const { id, matched } = await replay(tenant, { subscription_id: subscription.id });
    assert.equal(matched, n);
    await shop.received(500, { every: 1 });
    await server.kill();
    const before = shop.requests.length;
    assert.ok(before < n, 'killed in the middle');
    await server.start();
    await waitFor(async () => (await tenant.get(`/replays/${id}`)).state === 'done', { limit: LONG_LIMIT_MS });
    const { done, failed } = await tenant.get(`/replays/${id}`);
    // An attempt that the kill cut off counts: with a policy of one it is in the queue again.
    assert.equal(done + failed, n);
    const again = await tenant.deliveries({ state: 'dlq' });
    assert.equal(again.length, failed);
    assert.equal(new Set(shop.requests.map((r) => r.id)).size >= done, true);
    const twice = shop.requests.length - new Set(shop.requests.map((r) => r.id)).size;
    assert.ok(twice <= 100, `${twice} were sent twice: no more than were in flight`);
  });
});
