// kill -9 at random moments under load: nothing that was acknowledged is lost, nothing is stuck, and what comes twice comes
// under the same webhook-id. An outside ledger remembers what was acknowledged. ROUNDS and SEED are environment variables.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Api } from '../e2e/lib/api.mjs';
import { startReceiver } from '../e2e/lib/receiver.mjs';
import { Server } from '../e2e/lib/server.mjs';
import { waitFor } from '../e2e/lib/wait.mjs';
import { Inbox } from './inbox.mjs';
import { Ledger } from './ledger.mjs';
import { Load } from './load.mjs';
import { randomFrom } from './random.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 50);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);

const FAN_OUT_SUBSCRIPTIONS = 1200; // more than 1,000: expanded by a job
const FAN_OUT_EVERY = 4; // rounds
const LOAD_MS = 250; // a kill comes at most this long after the load began
const START_LIMIT_MS = 60;
const DRAIN_LIMIT_MS = 120_000;
const POLICY = {
  timeout_ms: 10_000,
  max_in_flight: 50,
  max_attempts: 100,
  retry: { schedule_seconds: [0, ...Array(60).fill(1)], jitter: 0 },
};

test(`${ROUNDS} times kill -9 under load (SEED=${SEED})`, { timeout: 60_000 + DRAIN_LIMIT_MS + ROUNDS * 5000 }, async (t) => {
  const random = randomFrom(SEED);
  const inbox = new Inbox();
  const receiver = await startReceiver((request) => inbox.take(request), { keep: false });
  const server = await Server.start();
  try {
    const ledger = new Ledger();
    const tenants = await prepare(server, receiver, ledger);
    const counts = { acknowledged: 0, unanswered: 0, duringFanOut: 0, duringStart: 0 };
    for (let round = 1; round <= ROUNDS; round++) {
      const fansOut = round % FAN_OUT_EVERY === 0;
      const load = new Load(server, tenants, ledger, random);
      await load.run({ fansOut, kill_after_ms: random.below(LOAD_MS) });
      if (fansOut && ledger.fanOuts.some((id) => inbox.count(id) < FAN_OUT_SUBSCRIPTIONS)) counts.duringFanOut++;

      if (random.chance(0.15)) {
        await server.spawn(); // and once more, while it recovers
        await new Promise((resolve) => setTimeout(resolve, random.below(START_LIMIT_MS)));
        await server.kill();
        counts.duringStart++;
      }
      await server.assertSound(); // as the kill has left it
      await server.start();
      await load.repeatWithKeys();
      inbox.assertSane();
      counts.acknowledged = ledger.acknowledged.size;
      counts.unanswered += load.unanswered;
    }

    await drained(tenants, ledger, inbox);
    await assertNothingLost(tenants, ledger, inbox);
    const { requests, distinct } = inbox;
    t.diagnostic(`seed ${SEED}: ${ROUNDS} kills, ${counts.duringStart} more during the start, ${counts.duringFanOut} during a fan-out`);
    t.diagnostic(`${counts.acknowledged} events acknowledged, ${counts.unanswered} requests cut off`);
    t.diagnostic(`${requests} requests received for ${distinct} deliveries: 0 lost, ${requests - distinct} repeated after an error or a crash`);
    t.diagnostic(`duplicates: ${inbox.duplicates} of ${distinct} (${((100 * inbox.duplicates) / distinct).toFixed(3)} %)`);
  } catch (error) {
    console.error(`SEED=${SEED}\n---- the server said ----\n${server.saidSince(0)}\n---- end ----`);
    throw error;
  } finally {
    await server.remove();
    await receiver.close();
  }
});

/** Two tenants: one under steady load, and one whose events fan out widely. */
async function prepare(server, receiver, ledger) {
  const api = new Api(server);
  const load = await api.createTenant({ id: 'load' });
  const wide = await api.createTenant({ id: 'wide', limits: { max_subscriptions: 2 * FAN_OUT_SUBSCRIPTIONS } });
  for (const [name, event_types] of Object.entries({ all: [], a: ['load.a'], star: ['load.*'] })) {
    const { id } = await load.subscribe(receiver.url(`/${name}`), { event_types, policy: POLICY });
    ledger.subscribed(load.id, id, event_types);
  }
  const numbers = Array.from({ length: FAN_OUT_SUBSCRIPTIONS }, (_, i) => i).values();
  await Promise.all(
    Array.from({ length: 32 }, async () => {
      for (const i of numbers) {
        const { id } = await wide.subscribe(receiver.url(`/wide/${i}`), { policy: POLICY });
        ledger.subscribed(wide.id, id, []);
      }
    }),
  );
  api.agent.destroy();
  return { load, wide };
}

const OPEN = ['PENDING', 'ATTEMPTING', 'RETRY', 'REPLAYING'];

/** Waits until no event has a fan-out to do and no delivery is open. */
async function drained(tenants, ledger, inbox) {
  for (const tenant of Object.values(tenants)) {
    tenant.api = new Api(tenant.api.server);
    let last;
    await waitFor(
      async () => {
        const open = await Promise.all(OPEN.map(async (state) => (await tenant.get(`/deliveries?state=${state}&limit=5`)).data));
        last = open.flat();
        return last.length === 0 && ledger.fanOuts.every((id) => inbox.count(id) >= FAN_OUT_SUBSCRIPTIONS);
      },
      { limit: DRAIN_LIMIT_MS, every: 100, what: () => `nothing to be open in ${tenant.id}: ${JSON.stringify(last)}` },
    );
  }
}

async function assertNothingLost(tenants, ledger, inbox) {
  for (const tenant of Object.values(tenants)) {
    const events = await tenant.all('/events');
    const stored = new Set(events.map(({ id }) => id));
    for (const [id, event] of ledger.acknowledged) {
      if (event.tenant === tenant.id) assert.ok(stored.has(id), `${id} was acknowledged and is not stored`);
    }

    // Every event that is stored, acknowledged or not, reached every subscription that it matches, under one webhook-id.
    const expected = new Map();
    for (const { id, type } of events) {
      for (const subscription of ledger.matching(tenant.id, type)) expected.set(`${id} ${subscription}`, null);
    }
    for (const delivery of await tenant.deliveries()) {
      const pair = `${delivery.event_id} ${delivery.subscription_id}`;
      assert.equal(delivery.state, 'DELIVERED', JSON.stringify(delivery));
      assert.ok(expected.has(pair), `a delivery that should not be: ${JSON.stringify(delivery)}`);
      assert.equal(expected.get(pair), null, `two deliveries of ${pair}`);
      expected.set(pair, delivery.id);
      assert.equal(inbox.eventOf(delivery.id), delivery.event_id, `${delivery.id} says DELIVERED, the receiver knows nothing of it`);
    }
    for (const [pair, delivery] of expected) assert.notEqual(delivery, null, `no delivery of ${pair}`);
  }
  inbox.assertSane();
}
