// A bulk replay that is killed in the middle, again and again: nothing is lost, and what comes twice comes under the same
// webhook-id. REPLAYED and KILLS are environment variables.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Api } from '../e2e/lib/api.mjs';
import { startReceiver } from '../e2e/lib/receiver.mjs';
import { Server } from '../e2e/lib/server.mjs';
import { waitFor } from '../e2e/lib/wait.mjs';

const REPLAYED = Number(process.env.REPLAYED ?? 100_000);
const KILLS = Number(process.env.KILLS ?? 2);
const BATCH = 1000;
const IN_FLIGHT = 400;
const LIMIT_MS = 240_000;
const POLICY = { timeout_ms: 10_000, max_in_flight: IN_FLIGHT, max_attempts: 20, retry: { schedule_seconds: Array(20).fill(0), jitter: 0 }, no_retry_on: [404] };

const count = async (tenant) => (await tenant.get('/deliveries/counts')).total;

async function lose(tenant, n) {
  for (let from = 0; from < n; from += BATCH) {
    const body = Array.from({ length: Math.min(BATCH, n - from) }, (_, i) => ({ type: 'order.made', data: from + i }));
    await tenant.expect(202, 'POST', '/events/batch', { body });
  }
  await waitFor(async () => (await count(tenant)) === n, { limit: LIMIT_MS, every: 200, what: `${n} to be lost` });
}

test(`a bulk replay of ${REPLAYED} and ${KILLS} times kill -9`, { timeout: 3 * LIMIT_MS }, async (t) => {
  const came = new Map(); // webhook-id to how often
  let status = 404;
  const receiver = await startReceiver((request) => {
    if (status === 204) came.set(request.id, (came.get(request.id) ?? 0) + 1);
    return status;
  }, { keep: false });
  const server = await Server.start({ fixedPort: true });
  try {
    const tenant = await new Api(server).createTenant({ tier: 'premium', limits: { max_in_flight: 1000 } });
    await tenant.subscribe(receiver.url(), { policy: POLICY });
    await lose(tenant, REPLAYED);
    status = 204;
    const since = Date.now();
    const { id, matched } = await tenant.expect(202, 'POST', '/replays', { body: {} });
    assert.equal(matched, REPLAYED);
    for (let kill = 1; kill <= KILLS; kill++) {
      await waitFor(() => came.size >= (REPLAYED * kill) / (KILLS + 1), { limit: LIMIT_MS, every: 1, what: () => `the replay to come on (${came.size})` });
      await server.kill();
      assert.ok(came.size < REPLAYED, 'killed in the middle');
      await server.start();
    }
    const done = await waitFor(async () => {
      const replay = await tenant.get(`/replays/${id}`);
      return replay.state === 'done' && replay;
    }, { limit: LIMIT_MS, every: 50, what: () => `the replay to be done (${came.size} came)` });
    const seconds = (Date.now() - since) / 1000;

    assert.deepEqual([done.matched, done.done, done.failed], [REPLAYED, REPLAYED, 0]);
    assert.equal(came.size, REPLAYED, 'every one came');
    assert.equal(await count(tenant), 0);
    const repeated = [...came.values()].reduce((sum, n) => sum + n - 1, 0);
    assert.ok(repeated <= KILLS * IN_FLIGHT, `${repeated} came twice: no more than were in flight at a kill`);
    t.diagnostic(`${REPLAYED} replayed in ${seconds.toFixed(1)} s with ${KILLS} kills: 0 lost, ${repeated} repeated under the same id`);
  } catch (error) {
    console.error(`---- the server said ----\n${server.saidSince(0)}\n---- end ----`);
    throw error;
  } finally {
    await server.remove();
    await receiver.close();
  }
});
