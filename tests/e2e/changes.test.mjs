// Changes of a policy, a tenant or an ordering while there is work: what was accepted before goes by them, too.

import assert from 'node:assert/strict';

import { Api } from './lib/api.mjs';
import { when } from './lib/receiver.mjs';
import { lifecycleTest, suite } from './lib/suite.mjs';
import { gate, waitFor } from './lib/wait.mjs';

suite('changes of a tenant', ({ test }) => {
  test('a tenant’s leave to use plain http is withdrawn from all of its subscriptions', async ({ api, receiver }) => {
    const MANY = 250;
    const tenant = await api.createTenant({ allow_http: true });
    const other = await api.createTenant({ allow_http: true });
    const shop = await receiver([204]);
    await other.subscribe(shop.url('/other'));
    for (let i = 0; i < MANY; i++) await tenant.subscribe(shop.url(`/${i}`), { policy: { max_attempts: 1 } });
    await tenant.waitDelivery(await tenant.publish());
    await api.expect(200, 'PATCH', tenant.path, { body: { allow_http: false } });
    await waitFor(async () => {
      const { id } = await tenant.publish();
      const ended = await waitFor(async () => {
        const all = await tenant.deliveries({ event_id: id });
        return all.length === MANY && all.every(({ state }) => ['DELIVERED', 'DLQ'].includes(state)) && all;
      }, { what: 'all to end' });
      return ended.every(({ state }) => state === 'DLQ');
    }, { what: 'every one of them to be refused' });
    await other.waitDelivery(await other.publish());
  });
}, { flags: ['--allow-address', '127.0.0.0/8', '--allow-port', '1-65535'] });

const numbers = (shop) => shop.requests.map(({ json }) => json.data);
const upTo = (n) => Array.from({ length: n }, (_, i) => i);
const slowly = [{ status: 204, delay_ms: 10 }];

suite('changes of an ordering', ({ test }) => {
  test('none to strict: what waits is sent one by one, in publish order, and what comes later behind it', async ({ tenant, receiver }) => {
    const shop = await receiver(slowly);
    const { id } = await tenant.subscribe(shop.url(), { status: 'paused' });
    for (const n of upTo(30)) await tenant.publish('a', n);
    await tenant.change(id, { ordering: 'strict', status: 'active' });
    for (const n of upTo(10)) await tenant.publish('a', 30 + n);
    await shop.received(40);
    assert.deepEqual(numbers(shop), upTo(40));
    assert.deepEqual([...new Set(shop.requests.map(({ concurrency }) => concurrency))], [1]);
  });

  test('strict to none: nobody waits for the one before', async ({ tenant, receiver }) => {
    const release = gate();
    const shop = await receiver(({ json }) => (json.data === 0 ? when(release.opened)() : 204));
    const { id } = await tenant.subscribe(shop.url(), { ordering: 'strict', status: 'paused' });
    for (const n of upTo(10)) await tenant.publish('a', n);
    await tenant.change(id, { ordering: 'none', status: 'active' });
    await shop.received(10);
    release.open();
  });

  test('strict to key: other keys go on while one waits', async ({ tenant, receiver }) => {
    const release = gate();
    const shop = await receiver(({ json }) => (json.data === 0 ? when(release.opened)() : 204));
    const { id } = await tenant.subscribe(shop.url(), { ordering: 'strict', status: 'paused' });
    for (const n of upTo(9)) await tenant.publish('a', n, { ordering_key: `k${n % 3}` });
    await tenant.change(id, { ordering: 'key', status: 'active' });
    await shop.received(7);
    assert.deepEqual(numbers(shop).filter((n) => n % 3 === 0), [0]);
    release.open();
    await shop.received(9);
    for (const key of upTo(3)) assert.deepEqual(numbers(shop).filter((n) => n % 3 === key), [key, key + 3, key + 6]);
  });

  test('what is under way ends first', async ({ tenant, receiver }) => {
    const release = gate();
    const shop = await receiver([when(release.opened), when(release.opened), ...slowly]);
    const { id } = await tenant.subscribe(shop.url(), { policy: { max_in_flight: 2 } });
    for (const n of upTo(12)) await tenant.publish('a', n);
    await shop.received(2);
    await tenant.change(id, { ordering: 'strict' });
    await waitFor(async () => (await tenant.get(`/subscriptions/${id}/stats`)).waiting_on === 'ordering', { what: 'the lane to hold' });
    release.open();
    await shop.received(12);
    const underWay = numbers(shop).slice(0, 2); // any two: they were not ordered yet
    assert.deepEqual(numbers(shop).slice(2), upTo(12).filter((n) => !underWay.includes(n)));
    assert.deepEqual([...new Set(shop.requests.slice(2).map(({ concurrency }) => concurrency))], [1]);
  });
});

lifecycleTest('a change of ordering survives a kill -9', async ({ start, receiver }) => {
  const server = await start({ fixedPort: true });
  const tenant = await new Api(server).createTenant();
  const shop = await receiver(slowly);
  const { id } = await tenant.subscribe(shop.url(), { status: 'paused' });
  const MANY = 900; // more than one step's
  await tenant.expect(202, 'POST', '/events/batch', { body: upTo(MANY).map((data) => ({ type: 'a', data })) });
  await tenant.change(id, { ordering: 'strict' });
  await server.kill();
  await server.start();
  await tenant.change(id, { status: 'active' });
  await shop.received(100);
  assert.deepEqual(numbers(shop).slice(0, 100), upTo(100));
  assert.deepEqual([...new Set(shop.requests.slice(0, 100).map(({ concurrency }) => concurrency))], [1]);
});
