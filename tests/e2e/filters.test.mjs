// Filters: which events a subscription gets by what is in them.

import assert from 'node:assert/strict';

import { assertProblem } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';
import { gate, waitFor } from './lib/wait.mjs';
import { when } from './lib/receiver.mjs';

const PATTERN = {
  type: ['invoice.paid', { prefix: 'order.' }],
  data: {
    status: ['paid', { prefix: 'par' }],
    amount: [{ numeric: ['>', 100, '<=', 500] }],
    test: [{ exists: false }, false],
    customer: { country: [{ 'anything-but': ['XX', 'YY'] }] },
    $or: [{ items: { sku: ['A-1'], quantity: [{ numeric: ['>=', 2] }] } }, { note: [null, { suffix: '!' }] }],
  },
  $not: { ordering_key: ['internal'] },
};

const WANTED = {
  status: 'paid', amount: 100.5, customer: { country: 'DE' }, items: [{ sku: 'B-2', quantity: 9 }, { sku: 'A-1', quantity: 2 }],
};

/** How many deliveries an event came to, once its fan-out is done. */
async function fannedOut(tenant, event) {
  const { fanout } = await waitFor(async () => {
    const read = await tenant.event(event.id);
    return read.fanout.state === 'done' && read;
  }, { what: 'the fan-out to be done' });
  return fanout.deliveries;
}

suite('filters', ({ test }) => {
  test('an event reaches those whose filter lets it through, and nobody else', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const wants = {
      paid: { data: { status: ['paid'] } },
      large: { data: { amount: [{ numeric: ['>', 100] }] } },
      everything: null,
    };
    for (const [path, filter] of Object.entries(wants)) await tenant.subscribe(shop.url(`/${path}`), { filter });
    const events = [
      [{ status: 'paid', amount: 5 }, ['everything', 'paid']],
      [{ status: 'open', amount: 101 }, ['everything', 'large']],
      [{ status: 'paid', amount: 1e3 }, ['everything', 'large', 'paid']],
      [{ status: 'open', amount: '101' }, ['everything']],
      ['paid', ['everything']],
    ];
    let expected = 0;
    for (const [data, paths] of events) {
      const event = await tenant.publish('invoice.paid', data);
      expected += paths.length;
      await shop.received(expected);
      assert.equal(await fannedOut(tenant, event), paths.length);
      const came = shop.requests.filter((request) => request.headers['posthorn-event-id'] === event.id);
      assert.deepEqual(came.map(({ path }) => path.slice(1)).sort(), paths);
    }
    assert.equal(shop.requests.length, expected);
  });

  test('the whole language', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { id } = await tenant.subscribe(shop.url(), { filter: PATTERN });
    assert.deepEqual((await tenant.subscription(id)).filter, PATTERN);
    const unwanted = [
      { ...WANTED, status: 'open' },
      { ...WANTED, amount: 100 },
      { ...WANTED, amount: 500.01 },
      { ...WANTED, test: true },
      { ...WANTED, customer: { country: 'XX' } },
      { ...WANTED, customer: {} },
      { ...WANTED, items: [{ sku: 'A-1', quantity: 1 }, { sku: 'B-2', quantity: 9 }] },
    ];
    for (const data of unwanted) assert.equal(await fannedOut(tenant, await tenant.publish('invoice.paid', data)), 0, JSON.stringify(data));
    assert.equal(await fannedOut(tenant, await tenant.publish('invoice.sent', WANTED)), 0);
    assert.equal(await fannedOut(tenant, await tenant.publish('invoice.paid', WANTED, { ordering_key: 'internal' })), 0);
    const wanted = [
      WANTED,
      { ...WANTED, status: 'partially', test: false },
      { ...WANTED, items: [], note: null },
      { ...WANTED, items: [], note: 'now!' },
    ];
    for (const data of wanted) assert.equal(await fannedOut(tenant, await tenant.publish('order.made', data)), 1, JSON.stringify(data));
    await shop.received(wanted.length);
    assert.equal(shop.requests.length, wanted.length);
  });

  test('numbers are compared exactly, and the last of two members counts', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const filter = '{"data":{"n":[9007199254740993,0.1]}}';
    await tenant.expect(201, 'POST', '/subscriptions', { body: `{"url":"${shop.url()}","filter":${filter}}` });
    const counts = { '9007199254740992': 0, '9007199254740993': 1, '0.10': 1, '1e-1': 1, '0.1000000000000000055': 0, '"0.1"': 0, '1,"n":0.1': 1, '0.1,"n":1': 0 };
    for (const [n, deliveries] of Object.entries(counts)) {
      const event = await tenant.publishText(`{"type":"a","data":{"n":${n}}}`);
      assert.equal(await fannedOut(tenant, event), deliveries, n);
    }
  });

  test('a bad filter is refused with its place, at creation and at a change', async ({ tenant }) => {
    const bad = [
      [{ status: ['paid'] }, /at filter\.status: /],
      [{ data: { status: 'paid' } }, /at filter\.data\.status: a list/],
      [{ data: { amount: [{ numeric: ['>', 'x'] }] } }, /at filter\.data\.amount\[0\]\.numeric\[1\]: a number was expected/],
      [{ data: { 'a.b': [1, { like: 'x' }] } }, /at filter\.data\["a\.b"\]\[1\]\.like: no such operator/],
      [{ $or: [] }, /at filter\.\$or: /],
      [{}, /at filter: names no field/],
      [[], /at filter: /],
      ['paid', /at filter: /],
      [{ data: { x: Array(2000).fill(1) } }, /at most 1000/],
      [{ data: { x: ['x'.repeat(20000)] } }, /at most 16384 bytes/],
    ];
    const { id } = await tenant.subscribe('http://127.0.0.1:9/', { filter: { data: { x: [1] } } });
    const before = await tenant.subscription(id);
    for (const [filter, message] of bad) {
      const refused = [await tenant.request('POST', '/subscriptions', { body: { url: 'http://127.0.0.1:9/', filter } })];
      // An object is merged into the filter that is there.
      if (JSON.stringify(filter) !== '{}') refused.push(await tenant.request('PATCH', `/subscriptions/${id}`, { body: { filter } }));
      for (const response of refused) {
        assertProblem(response, 422, ['filter']);
        assert.match(response.json.errors[0].message, message);
      }
    }
    assert.deepEqual(await tenant.subscription(id), before);
    assert.equal((await tenant.all('/subscriptions')).length, 1);
    const several = await tenant.request('POST', '/subscriptions', {
      body: { url: 'http://127.0.0.1:9/', filter: { data: { a: 1, b: [{ prefix: 1 }] } }, colour: 'red' },
    });
    assert.deepEqual(several.json.errors.map(({ field }) => field).sort(), ['colour', 'filter', 'filter']);
  });

  test('PATCH merges into a filter, null takes it away, and the change holds from the next event on', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { id } = await tenant.subscribe(shop.url(), { filter: { data: { a: [1], b: [2] } } });
    const publish = async (data) => fannedOut(tenant, await tenant.publish('a', data));
    assert.equal(await publish({ a: 1, b: 2 }), 1);
    assert.equal(await publish({ a: 1 }), 0);
    assert.deepEqual((await tenant.change(id, { filter: { data: { b: null, c: [3] } } })).filter, { data: { a: [1], c: [3] } });
    assert.equal(await publish({ a: 1, b: 2 }), 0);
    assert.equal(await publish({ a: 1, c: 3 }), 1);
    assert.deepEqual((await tenant.change(id, { description: 'x' })).filter, { data: { a: [1], c: [3] } });
    assertProblem(await tenant.request('PATCH', `/subscriptions/${id}`, { body: { filter: { data: null } } }), 422, ['filter']);
    assert.equal((await tenant.change(id, { filter: null })).filter, null);
    assert.equal(await publish({}), 1);
    assert.deepEqual((await tenant.change(id, { filter: { data: { a: [1] } } })).filter, { data: { a: [1] } });
    assert.equal(await publish({}), 0);
  });

  test('a filter holds in a batch, while paused, and not for a test', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { id } = await tenant.subscribe(shop.url(), { filter: { data: { a: [1] } }, status: 'paused' });
    const { data } = await tenant.expect(202, 'POST', '/events/batch', { body: [1, 2, 1].map((a) => ({ type: 'a', data: { a } })) });
    assert.deepEqual(await Promise.all(data.map((event) => fannedOut(tenant, event))), [1, 0, 1]);
    await tenant.change(id, { status: 'active' });
    await shop.received(2);
    const { delivery_id } = await tenant.expect(202, 'POST', `/subscriptions/${id}/test`);
    await tenant.waitDelivery(delivery_id);
    assert.equal(shop.requests.length, 3);
  });

  test('a filter holds after a restart', async ({ server, api, tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url(), { filter: { data: { a: [1] } } });
    await server.restart();
    api.agent.destroy();
    assert.equal(await fannedOut(tenant, await tenant.publish('a', { a: 2 })), 0);
    assert.equal(await fannedOut(tenant, await tenant.publish('a', { a: 1 })), 1);
    await shop.received(1);
  });

  test('a large fan-out is filtered, by the filters of when it was accepted', async ({ api, receiver }) => {
    const tenant = await api.createTenant({ limits: { max_subscriptions: 5000 } });
    const held = gate();
    const shop = await receiver(when(held.opened));
    const made = [];
    const numbers = Array.from({ length: 1500 }, (_, i) => i).values();
    await Promise.all(Array.from({ length: 16 }, async () => {
      for (const i of numbers) made.push(await tenant.subscribe(shop.url(`/${i}`), { filter: { data: { shard: [i % 3] } } }));
    }));
    const event = await tenant.publish('a', { shard: 1 });
    const last = made.findLast(({ filter }) => filter.data.shard[0] === 1);
    await tenant.change(last.id, { filter: { data: { shard: [7] } } });
    assert.equal(await fannedOut(tenant, event), 500);
    const { data } = await tenant.get(`/deliveries?event_id=${event.id}&subscription_id=${last.id}`);
    assert.equal(data.length, 1);
    held.open();
    await shop.received(500);
    assert.ok(shop.requests.every(({ path }) => Number(path.slice(1)) % 3 === 1));
    assert.equal(await fannedOut(tenant, await tenant.publish('a', { shard: 7 })), 1);
  });
});
