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

    const events = [...Array.from({ length: BLASTS }, (_, i) => ({ type: 'blast', data: { i } })), { type: 'small', data: {} }];
    const state = async ({ id }) => (await tenant.event(id)).fanout.state;
    /** Publishes them at once, and answers whether the gauges were seen to tell of it: on a fast machine, it is soon over. */
    const blast = async () => {
      blasts = (await tenant.expect(202, 'POST', '/events/batch', { body: events })).data;
      small = blasts.pop();
      published.push(...blasts, small);
      do {
        const [pending, lag] = [await metric(api, 'posthorn_fanout_jobs_pending'), await metric(api, 'posthorn_fanout_lag_seconds')];
        assert.ok(pending <= BLASTS && lag < LONG_LIMIT_MS / 1000, `${pending} jobs pending for ${lag} s`);
        if (pending > 0 && lag > 0) return true;
      } while ((await state(blasts.at(-1))) !== 'done');
      return false;
    };
    const published = [];
    let blasts, small;
    await waitFor(blast, { what: 'the gauges to tell of jobs' });

    for (const one of blasts) {
      await waitFor(async () => (await state(one)) === 'done', DONE);
      assert.equal((await tenant.event(one.id)).fanout.deliveries, WIDE + 1);
    }
    const came = (path) => shop.requests.filter((request) => request.path === path).map((request) => request.headers['posthorn-event-id']);
    await waitFor(() => came('/ordered').length === published.length, { ...DONE, what: () => `the ordered lane: ${came('/ordered')}` });
    assert.deepEqual(came('/ordered'), published.map(({ id }) => id));
    // Each of the lane's comes after the one before was answered: what came before the last of them did not wait for all blasts.
    const place = (path, { id }) => shop.requests.findIndex((request) => request.path === path && request.headers['posthorn-event-id'] === id);
    assert.ok(place('/small', small) < place('/ordered', blasts.at(-1)), 'the small event came only after the blasts');
    // What the gauges told is taken back.
    for (const name of ['posthorn_fanout_jobs_pending', 'posthorn_fanout_lag_seconds', 'posthorn_delivery_queue_lag_seconds']) {
      await waitFor(async () => (await metric(api, name)) === 0, { what: `${name} to be 0` });
    }
  });
});
