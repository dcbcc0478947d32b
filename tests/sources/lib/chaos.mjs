// A shop under load, a server, and what carries the events from the one to the other, of which something is killed -9 each
// round. In the end what was delivered is what was committed.

import assert from 'node:assert/strict';

import { Api } from '../../e2e/lib/api.mjs';
import { startReceiver } from '../../e2e/lib/receiver.mjs';
import { LOOPBACK_FLAGS, Server } from '../../e2e/lib/server.mjs';
import { waitFor } from '../../e2e/lib/wait.mjs';
import { randomFrom } from '../../crash/random.mjs';
import { Ledger } from './ledger.mjs';
import { BAD, Producer } from './producer.mjs';

const DRAIN_LIMIT_MS = 240_000;
const ROUND_LIMIT_MS = 120_000;
const TRANSACTIONS_A_ROUND = 25; // at most, before the kill
export const TENANT = 'acme';
const POLICY = { timeout_ms: 10_000, max_in_flight: 100, max_attempts: 100, retry: { schedule_seconds: [0, 0, ...Array(60).fill(1)], jitter: 0 } };

/** A server with the tenant and one ordered subscription of it; the ledger takes what it delivers. */
export class World {
  /** flags: of the server, beside the usual. */
  static async start(shop, { flags = [], subscription = {} } = {}) {
    const world = new World();
    world.shop = shop;
    world.ledger = new Ledger();
    world.receiver = await startReceiver((request) => world.ledger.take(request), { keep: false });
    world.server = await Server.start({ flags: [...LOOPBACK_FLAGS, ...flags], fixedPort: true });
    world.tenant = await new Api(world.server).createTenant({ id: TENANT });
    await world.tenant.subscribe(world.receiver.url(), { ordering: 'key', policy: POLICY, ...subscription });
    return world;
  }

  /** Waits until everything that was committed has come. */
  async drain() {
    let committed;
    let missing;
    await waitFor(
      async () => {
        committed = await this.shop.committed();
        missing = this.ledger.missing(committed);
        return missing === 0;
      },
      { limit: DRAIN_LIMIT_MS, every: 50, what: () => `${missing} of ${committed.length} changes to come` },
    );
    return committed;
  }

  async metric(name) {
    const { text } = await new Api(this.server).request('GET', '/metrics');
    return Number(text.split('\n').find((line) => line.startsWith(`${name} `))?.split(' ')[1]);
  }

  async remove() {
    await this.server.remove();
    await this.receiver.close();
    await this.shop.remove();
  }
}

/**
 * rounds: of load and a kill. victims: [{name, weight, kill(), start()}], beside the server and the database. Returns counts.
 */
export async function chaos(t, world, { rounds, seed, victims = [], producer: options = {} }) {
  const random = randomFrom(seed);
  const { server, shop } = world;
  const producer = new Producer(shop, random, options);
  const all = [
    ...victims,
    { name: 'server', weight: 3, kill: () => server.kill(), start: () => server.start() },
    ...(shop.database ? [{ name: 'database', weight: 2, kill: () => shop.database.kill(), start: () => shop.database.start() }] : []),
    ...(shop.database ? [] : [{ name: 'producer', weight: 1, kill: async () => producer.kill(), start: async () => {} }]),
  ];
  const kills = Object.fromEntries(all.map(({ name }) => [name, 0]));
  producer.start();
  try {
    for (let round = 1; round <= rounds; round++) {
      const goal = producer.done + 1 + random.below(TRANSACTIONS_A_ROUND);
      await waitFor(() => producer.done >= goal, { limit: ROUND_LIMIT_MS, every: 1, what: () => `${goal} transactions in round ${round} (${producer.done})` });
      const victim = pick(all, random);
      kills[victim.name]++;
      await victim.kill();
      await victim.start();
    }
  } finally {
    await producer.stop();
  }
  const committed = await world.drain();
  await waitFor(async () => (await shop.pending()) === 0, { limit: DRAIN_LIMIT_MS, what: 'no row to be left' });
  world.ledger.compare(committed);
  await compareRejected(shop, committed);
  t.diagnostic(
    `seed ${seed}: ${rounds} kills (${Object.entries(kills).map(([name, n]) => `${name} ${n}`).join(', ')}), ${committed.length} changes committed, ` +
      `${producer.cut} connections cut, ${world.ledger.requests - world.ledger.seen.size} deliveries repeated: 0 lost, 0 invented`,
  );
}

/** Each committed row that cannot be an event is among the rejected ones, once, and nothing else is. */
async function compareRejected(shop, committed) {
  const rejected = await shop.rejected();
  assert.equal(rejected.length, committed.filter(({ type }) => type === BAD).length);
  for (const [, type, reason] of rejected) {
    assert.equal(type, BAD);
    assert.match(reason, /^type: /);
  }
}

function pick(all, random) {
  let at = random.below(all.reduce((sum, { weight }) => sum + weight, 0));
  return all.find(({ weight }) => (at -= weight) < 0);
}
