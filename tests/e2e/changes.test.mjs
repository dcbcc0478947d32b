// Changes of a policy, a tenant or an ordering while there is work: what was accepted before goes by them, too.

import assert from 'node:assert/strict';

import { suite } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

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
