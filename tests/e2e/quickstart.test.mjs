// The first thing a newcomer does: subscribe, publish, and see a signed webhook arrive.

import assert from 'node:assert/strict';

import { states } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';

suite('quickstart', ({ test }) => {
  test('an event published is an event delivered, signed and verified', async ({ tenant, receiver }) => {
    const shop = await receiver([204]);
    const subscription = await tenant.subscribe(shop.url('/hooks'), { event_types: ['invoice.*'] });
    assert.match(subscription.secret, /^whsec_[A-Za-z0-9+/]+=*$/);

    const event = await tenant.publish('invoice.paid', { invoice: 'in_1', amount: 1250 });
    const delivery = await tenant.waitDelivery(event);

    const [request] = shop.requests;
    assert.equal(request.method, 'POST');
    assert.equal(request.path, '/hooks');
    assert.deepEqual(request.verify(subscription.secret), request.json);
    assert.deepEqual(request.json.data, { invoice: 'in_1', amount: 1250 });
    assert.equal(request.headers['content-type'], 'application/json');
    assert.match(request.headers['user-agent'], /^posthorn\/\d/);
    assert.equal(request.headers['posthorn-event-id'], event.id);
    assert.equal(request.headers['posthorn-attempt'], '1');
    assert.equal(request.id, delivery.id);
    assert.match(request.headers['webhook-timestamp'], /^\d{10}$/);

    assert.equal(delivery.attempt_count, 1);
    assert.equal(delivery.last_status_code, 204);
    assert.deepEqual(states(delivery), ['PENDING', 'ATTEMPTING', 'DELIVERED']);
    assert.equal(shop.requests.length, 1);
  });

  test('a secret of the subscriber’s own signs', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
    const subscription = await tenant.subscribe(shop.url(), { secret });
    assert.equal(subscription.secret, secret);
    await tenant.publish();
    const [request] = await shop.received();
    request.verify(secret);
  });

  test('connections are kept alive', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url(), { policy: { max_in_flight: 1 } });
    for (let i = 0; i < 5; i++) {
      await tenant.waitDelivery(await tenant.publish());
    }
    assert.ok(shop.connections < 5, `5 deliveries took ${shop.connections} connections`);
  });

  test('the server says that it lives and that it is ready, without a key', async ({ api }) => {
    for (const path of ['/healthz', '/readyz', '/metrics']) {
      const response = await api.request('GET', path, { key: null });
      assert.equal(response.status, 200, path);
    }
  });
});
