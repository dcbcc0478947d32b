// Searching the delivery log: every filter alone and together, and that it is told what is no filter.

import assert from 'node:assert/strict';

import { closedPort } from './lib/receiver.mjs';
import { assertProblem } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const ONCE = { timeout_ms: 30_000, max_attempts: 1 };

suite('search', ({ test }) => {
  test('by status code, error, reason, ordering key, type, subscription and time', async ({ tenant, receiver }) => {
    const shop = await receiver((request) => ({ ok: 204, refused: 404, broken: 500 })[request.json.type]);
    const first = await tenant.subscribe(shop.url(), { policy: ONCE });
    const dead = await tenant.subscribe(`http://127.0.0.1:${await closedPort()}/`, { policy: ONCE });
    for (const type of ['ok', 'refused', 'broken']) {
      for (const ordering_key of ['a', 'b']) await tenant.publish(type, 1, { ordering_key });
    }
    const closed = async () => (await tenant.deliveries()).filter(({ state }) => ['DELIVERED', 'DLQ'].includes(state));
    await waitFor(async () => (await closed()).length === 12, { what: 'twelve deliveries to end' });
    const all = await closed();
    const expected = async (query, filter) => {
      const found = (await tenant.deliveries(query)).map(({ id }) => id);
      assert.deepEqual(found, all.filter(filter).map(({ id }) => id), JSON.stringify(query));
      assert.ok(found.length > 0, `${JSON.stringify(query)} finds nothing`);
    };
    await expected({ status_code: 404 }, (d) => d.last_status_code === 404);
    await expected({ status_code: 204 }, (d) => d.last_status_code === 204);
    await expected({ status_code: 500, ordering_key: 'a' }, (d) => d.last_status_code === 500 && d.ordering_key === 'a');
    await expected({ error: 'connect_refused' }, (d) => d.last_error === 'connect_refused');
    await expected({ error: 'Connect_Refused', event_type: 'ok' }, (d) => d.last_error === 'connect_refused' && d.event_type === 'ok');
    await expected({ failure_reason: 'permanent_response' }, (d) => d.failure_reason === 'permanent_response');
    await expected({ failure_reason: 'attempts_exhausted', subscription_id: dead.id }, (d) => d.subscription_id === dead.id);
    await expected({ ordering_key: 'b' }, (d) => d.ordering_key === 'b');
    await expected({ ordering_key: 'b', subscription_id: first.id, state: 'delivered' }, (d) => d.ordering_key === 'b' && d.subscription_id === first.id && d.state === 'DELIVERED');
    await expected({ event_type: 'broken' }, (d) => d.event_type === 'broken');
    await expected({ event_type: 'broken', subscription_id: first.id }, (d) => d.event_type === 'broken' && d.subscription_id === first.id);
    const middle = all[6].created_at;
    await expected({ since: middle, event_type: 'broken' }, (d) => d.created_at >= middle && d.event_type === 'broken');
    await expected({ until: middle, status_code: 204 }, (d) => d.created_at < middle && d.last_status_code === 204);
    assert.deepEqual(await tenant.deliveries({ error: 'dns' }), []);
    assert.deepEqual(await tenant.deliveries({ ordering_key: 'none' }), []);
  });

  test('a page of each ends where the next begins', async ({ tenant, receiver }) => {
    const shop = await receiver([404]);
    await tenant.subscribe(shop.url(), { policy: ONCE });
    await tenant.subscribe(shop.url(), { policy: ONCE });
    for (let i = 0; i < 5; i++) await tenant.publish('order.made', i, { ordering_key: 'k' });
    await waitFor(async () => (await tenant.deliveries({ state: 'dlq' })).length === 10);
    for (const query of [{}, { status_code: 404 }, { failure_reason: 'permanent_response' }, { ordering_key: 'k' }, { event_type: 'order.made' }]) {
      const ids = (await tenant.deliveries({ ...query, limit: 3 })).map(({ id }) => id);
      assert.equal(new Set(ids).size, 10, JSON.stringify(query));
      assert.equal(ids.length, 10);
    }
  });

  test('what is no filter is told', async ({ tenant }) => {
    const bad = async (query, fields) => assertProblem(await tenant.request('GET', `/deliveries?${new URLSearchParams(query)}`), 422, fields);
    await bad({ status_code: 99, error: 'bad_luck', failure_reason: 'fate' }, ['status_code', 'error', 'failure_reason']);
    for (const status_code of ['600', '2xx', '', '0404', '-20']) await bad({ status_code }, ['status_code']);
  });
});
