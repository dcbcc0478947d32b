// Outboxes while relays, server and database are killed -9: what was committed is delivered, and nothing else.
// ROUNDS (100 in all; more for a long run) and SEED are environment variables.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { temporaryFolder } from '../e2e/lib/server.mjs';
import { waitFor } from '../e2e/lib/wait.mjs';
import { randomFrom } from '../crash/random.mjs';
import { chaos, World } from './lib/chaos.mjs';
import { Producer } from './lib/producer.mjs';
import { Relay } from './lib/relay.mjs';
import { MariaDbShop, PostgresShop, SqliteShop } from './lib/shop.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 100);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);
const RELAYS = 3;
const timeout = 120_000 + ROUNDS * 5000;

/** Runs a test with a shop in a world, and shows what was said when it fails. */
async function within(makeShop, worldOptions, body) {
  const shop = await makeShop();
  let world;
  try {
    world = await World.start(shop, await worldOptions(shop));
    await body(world, shop);
  } catch (error) {
    console.error(`SEED=${SEED}\n---- the server said ----\n${world?.server.log.slice(-10_000)}\n---- end ----`);
    throw error;
  } finally {
    await (world ?? shop).remove();
  }
}

/** The config file of a server that drains the shop itself. */
async function sourceFlags(shop) {
  const path = join(await temporaryFolder(), 'posthorn.conf');
  await writeFile(path, `[source shop]\nurl = ${shop.url}\ntenant = acme\npoll-ms = 20\n`);
  return { flags: ['--config', path] };
}

const withRelays = async () => ({});

function startRelays(world, n) {
  const relays = Array.from({ length: n }, () => new Relay(world.server, world.shop.url));
  relays.forEach((relay) => relay.start());
  const victims = relays.map((relay) => ({ name: 'relay', weight: 2, kill: () => relay.kill(), start: () => relay.start() }));
  const end = () => Promise.all(relays.map((relay) => relay.kill()));
  return { relays, victims, end };
}

async function chaosOfRelays(t, world, rounds) {
  const { relays, victims, end } = startRelays(world, RELAYS);
  try {
    await chaos(t, world, { rounds, seed: SEED, victims });
  } catch (error) {
    console.error(relays.map(({ log }) => log.slice(-3000)).join('\n----\n'));
    throw error;
  } finally {
    await end();
  }
}

test(`PostgreSQL: ${RELAYS} relays, kills (SEED=${SEED})`, { timeout }, (t) =>
  within(() => PostgresShop.start(), withRelays, (world) => chaosOfRelays(t, world, Math.ceil(ROUNDS * 0.4))));

test('PostgreSQL: the server drains it, kills', { timeout }, (t) =>
  within(() => PostgresShop.start(), sourceFlags, (world) => chaos(t, world, { rounds: Math.ceil(ROUNDS * 0.2), seed: SEED + 1 })));

test(`MariaDB: ${RELAYS} relays, kills`, { timeout }, (t) =>
  within(() => MariaDbShop.start(), withRelays, (world) => chaosOfRelays(t, world, Math.ceil(ROUNDS * 0.25))));

test('SQLite: the server drains it, kills', { timeout }, (t) =>
  within(() => SqliteShop.start(), sourceFlags, (world) => chaos(t, world, { rounds: Math.ceil(ROUNDS * 0.15), seed: SEED + 2 })));

/** How many relays hold ranges of the outbox. */
async function sharers(shop) {
  if (shop instanceof PostgresShop)
    return Number(await shop.sql("select count(distinct pid) from pg_locks where locktype = 'advisory' and objid::bigint & 255 < 16"));
  const base = "concat('posthorn.', left(sha1(concat(database(), '.', char(96), 'posthorn_outbox', char(96))), 16), '.')";
  const owners = Array.from({ length: 16 }, (_, i) => `select is_used_lock(concat(${base}, ${i})) as owner`).join(' union all ');
  return Number(await shop.sql(`select count(distinct owner) from (${owners}) as ranges`));
}

for (const [name, Shop] of [['PostgreSQL', PostgresShop], ['MariaDB', MariaDbShop]]) {
  test(`${name}: three relays, nothing twice, nothing missing, of each key in the order of its commits`, { timeout }, (t) =>
    within(() => Shop.start(), withRelays, async (world, shop) => {
      const { relays, end } = startRelays(world, RELAYS);
      const producer = new Producer(shop, randomFrom(SEED), { connections: 6, bad: 0 });
      try {
        await waitFor(async () => (await sharers(shop)) === RELAYS, { what: 'each relay to hold ranges' });
        producer.start();
        await waitFor(() => producer.done >= 600, { limit: 240_000, what: '600 transactions' });
        await producer.stop();
        const committed = await world.drain();
        world.ledger.compare(committed);
        assert.equal(await world.metric('posthorn_events_published_total'), committed.length);
        assert.deepEqual(await shop.rejected(), []);
        t.diagnostic(`${committed.length} changes through ${relays.length} relays`);
      } finally {
        await end();
      }
    }));
}
