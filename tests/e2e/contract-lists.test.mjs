// Lists: newest first, pages, cursors, filters.

import assert from 'node:assert/strict';

import { assertProblem } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const ids = (list) => list.map((object) => object.id);

suite('lists', ({ test }) => {
  test('an empty list', async ({ tenant }) => {
    for (const path of ['/subscriptions', '/events', '/deliveries']) {
      assert.deepEqual(await tenant.get(path), { data: [], next_cursor: null });
    }
  });

  test('events come newest first, over pages, each once', async ({ tenant }) => {
    const published = [];
    for (let i = 0; i < 7; i++) published.unshift((await tenant.publish('a.b', i)).id);

    const first = await tenant.get('/events?limit=3');
    assert.deepEqual(ids(first.data), published.slice(0, 3));
    assert.equal(typeof first.next_cursor, 'string');

    await tenant.publish('a.b', 'published while somebody pages');
    const cursor = (page) => encodeURIComponent(page.next_cursor);
    const second = await tenant.get(`/events?limit=3&cursor=${cursor(first)}`);
    assert.deepEqual(ids(second.data), published.slice(3, 6));
    const third = await tenant.get(`/events?limit=3&cursor=${cursor(second)}`);
    assert.deepEqual(ids(third.data), published.slice(6));
    assert.equal(third.next_cursor, null);
  });

  test('a page that holds exactly the rest is the last', async ({ tenant }) => {
    for (let i = 0; i < 4; i++) await tenant.publish('a.b', i);
    const first = await tenant.get('/events?limit=2');
    const second = await tenant.get(`/events?limit=2&cursor=${encodeURIComponent(first.next_cursor)}`);
    assert.equal(second.data.length, 2);
    assert.equal(second.next_cursor, null);
  });

  test('fifty at a time unless asked otherwise, 250 at most', async ({ tenant }) => {
    const batch = Array.from({ length: 260 }, (_, i) => ({ type: 'a.b', data: i }));
    await tenant.expect(202, 'POST', '/events/batch', { body: batch });
    assert.equal((await tenant.get('/events')).data.length, 50);
    assert.equal((await tenant.get('/events?limit=250')).data.length, 250);
    assert.equal((await tenant.get('/events?limit=1')).data.length, 1);
    assert.equal((await tenant.all('/events', { limit: '250' })).length, 260);
  });

  test('422: limits, cursors and filters that make no sense', async ({ api, tenant }) => {
    const bad = ['limit=0', 'limit=251', 'limit=x', 'limit=-1', 'limit=1.5', 'limit=', 'since=yesterday', 'until=2026-13-01T00:00:00Z', 'colour=red'];
    for (const path of ['/events', '/deliveries']) {
      for (const query of bad) assertProblem(await tenant.request('GET', `${path}?${query}`), 422, [query.split('=')[0]]);
    }
    for (const query of ['limit=0', 'colour=red']) {
      assertProblem(await tenant.request('GET', `/subscriptions?${query}`), 422);
      assertProblem(await api.request('GET', `/v1/tenants?${query}`), 422);
    }
    assertProblem(await tenant.request('GET', '/deliveries?state=asleep'), 422, ['state']);
    assertProblem(await tenant.request('GET', '/events?colour=red&limit=0&size=1'), 422, ['colour', 'limit', 'size']);
    for (const cursor of ['nonsense', '%00', 'x'.repeat(5000), 'ZXZ0XzE', "'"]) {
      const response = await tenant.request('GET', `/events?cursor=${cursor}`);
      assert.ok([400, 414, 422].includes(response.status), `cursor=${cursor} answered ${response.status}`);
    }
  });

  test('events by type and time', async ({ tenant }) => {
    const first = await tenant.publish('invoice.paid', 1);
    await waitFor(() => Date.now() > Date.parse(first.created_at) + 2);
    const second = await tenant.publish('invoice.paid', 2, { ordering_key: 'in_2' });
    const other = await tenant.publish('invoice.sent', 3);

    assert.deepEqual(ids(await tenant.all('/events', { type: 'invoice.paid' })), [second.id, first.id]);
    assert.deepEqual(ids(await tenant.all('/events', { type: 'invoice' })), []);
    assert.deepEqual(ids(await tenant.all('/events', { ordering_key: 'in_2' })), [second.id]);
    assert.deepEqual(ids(await tenant.all('/events', { since: second.created_at })), [other.id, second.id]);
    assert.ok(ids(await tenant.all('/events', { until: second.created_at })).includes(first.id));
    assert.ok(!ids(await tenant.all('/events', { until: first.created_at })).includes(second.id));
    assert.deepEqual(ids(await tenant.all('/events', { type: 'invoice.paid', since: second.created_at })), [second.id]);
    assert.deepEqual(await tenant.all('/events', { since: '2100-01-01T00:00:00Z' }), []);
  });

  test('deliveries by state, subscription, event and type', async ({ tenant, receiver }) => {
    const good = await receiver([200]);
    const bad = await receiver([404]);
    const a = await tenant.subscribe(good.url(), { event_types: ['invoice.*'] });
    const b = await tenant.subscribe(bad.url(), { event_types: ['invoice.paid'] });
    const paid = await tenant.publish('invoice.paid');
    const sent = await tenant.publish('invoice.sent');
    const delivered = [
      await tenant.waitDelivery({ event_id: sent.id }),
      await tenant.waitDelivery({ event_id: paid.id, subscription_id: a.id }),
    ].map((delivery) => delivery.id);
    const dead = (await tenant.waitDelivery({ event_id: paid.id, subscription_id: b.id }, 'DLQ')).id;

    const matching = async (query) => ids(await tenant.deliveries(query)).sort();
    for (const state of ['DLQ', 'dlq', 'Dlq']) assert.deepEqual(await matching({ state }), [dead]);
    assert.deepEqual(await matching({ state: 'delivered' }), [...delivered].sort());
    assert.deepEqual(await matching({ state: 'PENDING' }), []);
    assert.deepEqual(await matching({ subscription_id: b.id }), [dead]);
    assert.deepEqual(await matching({ event_id: sent.id }), [delivered[0]]);
    assert.deepEqual(await matching({ event_type: 'invoice.paid' }), [delivered[1], dead].sort());
    assert.deepEqual(await matching({ event_type: 'invoice.paid', state: 'delivered', subscription_id: a.id, event_id: paid.id }), [delivered[1]]);
    assert.deepEqual(await matching({ since: paid.created_at }), [...delivered, dead].sort());
    assert.deepEqual(await matching({ until: '2000-01-01T00:00:00Z' }), []);
    const unfound = await tenant.request('GET', '/deliveries?subscription_id=sub_1');
    assert.ok(unfound.status === 422 || (unfound.status === 200 && unfound.json.data.length === 0));
  });

  test('deliveries over pages, filtered', async ({ tenant, receiver }) => {
    const shop = await receiver([200]);
    await tenant.subscribe(shop.url());
    const batch = Array.from({ length: 12 }, (_, i) => ({ type: i % 2 ? 'odd' : 'even', data: i }));
    await tenant.expect(202, 'POST', '/events/batch', { body: batch });
    await waitFor(async () => (await tenant.deliveries({ state: 'delivered' })).length === 12);
    const odd = await tenant.all('/deliveries', { event_type: 'odd', state: 'delivered', limit: '4' });
    assert.equal(odd.length, 6);
    assert.equal(new Set(ids(odd)).size, 6);
    const created = odd.map((delivery) => delivery.created_at);
    assert.deepEqual(created, [...created].sort().reverse());
  });

  test('subscriptions and tenants over pages', async ({ api, tenant }) => {
    const made = [];
    for (let i = 0; i < 5; i++) made.unshift((await tenant.subscribe('http://127.0.0.1:9/')).id);
    assert.deepEqual(ids(await tenant.all('/subscriptions', { limit: '2' })), made);
    const first = await api.get('/v1/tenants?limit=1');
    assert.equal(first.data.length, 1);
    assert.ok('next_cursor' in first);
  });
});
