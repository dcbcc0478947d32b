// Large fan-outs beside everything else: they take turns, small events pass them, ordered lanes do not.

import assert from 'node:assert/strict';

import { subscribeMany } from './lib/subscribe.mjs';
import { suite } from './lib/suite.mjs';
import { LONG_LIMIT_MS, waitFor } from './lib/wait.mjs';

const WIDE = 20_000;
const BLASTS = 15;
const DONE = { limit: LONG_LIMIT_MS };

async function metric(api, name) {
  const { text } = await api.request('GET', '/metrics', { key: null });
  return Number(text.match(new RegExp(`^${name} (\\S+)$`, 'm'))[1]);
}

suite('fan-out', ({ test }) => {
  test('a small event passes the blasts before it; an ordered lane waits for them', async ({ server, api, receiver }) => {
    const tenant = await api.createTenant({ limits: { max_subscriptions: WIDE + 10 } });
    const shop = await receiver();
    // Paused: their deliveries are made and not sent.
    await subscribeMany(server, tenant.id, WIDE, { url: 'http://127.0.0.1:9/', status: 'paused', event_types: ['blast'] });
    await tenant.subscribe(shop.url('/small'), { event_types: ['small'] });
    await tenant.subscribe(shop.url('/ordered'), { event_types: ['blast', 'small'], ordering: 'strict' });

    const blasts = [];
    for (let i = 0; i < BLASTS; i++) blasts.push(await tenant.publish('blast', { i }));
    const small = await tenant.publish('small', {});
    const came = (path) => shop.requests.filter((request) => request.path === path).map((request) => request.headers['posthorn-event-id']);
    await waitFor(() => came('/small').length === 1, { every: 1 });
    const last = await tenant.event(blasts.at(-1).id);
    assert.notEqual(last.fanout.state, 'done', 'the small event came only after the blasts');
    assert.deepEqual(came('/small'), [small.id]);
    const [pending, lag] = [await metric(api, 'posthorn_fanout_jobs_pending'), await metric(api, 'posthorn_fanout_lag_seconds')];
    assert.ok(pending >= 1 && pending <= BLASTS, `${pending} jobs pending`);
    assert.ok(lag > 0 && lag < 60, `a lag of ${lag} s`);

    for (const { id } of blasts) {
      const { fanout } = await waitFor(async () => {
        const event = await tenant.event(id);
        return event.fanout.state === 'done' && event;
      }, DONE);
      assert.equal(fanout.deliveries, WIDE + 1);
    }
    await waitFor(() => came('/ordered').length === BLASTS + 1, { ...DONE, what: () => `the ordered lane: ${came('/ordered')}` });
    assert.deepEqual(came('/ordered'), [...blasts.map(({ id }) => id), small.id]);
    // What the gauges told is taken back.
    for (const name of ['posthorn_fanout_jobs_pending', 'posthorn_fanout_lag_seconds', 'posthorn_delivery_queue_lag_seconds']) {
      await waitFor(async () => (await metric(api, name)) === 0, { what: `${name} to be 0` });
    }
  });
});
