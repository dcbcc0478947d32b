// Change data capture while server and database are killed -9: what was committed is delivered, and nothing else.
// CDC_ROUNDS (100; 1,000 for a long run) and SEED are environment variables.

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { temporaryFolder } from '../e2e/lib/server.mjs';
import { literal } from './lib/cdc.mjs';
import { chaos, World } from './lib/chaos.mjs';
import { PostgresShop } from './lib/shop.mjs';

const ROUNDS = Number(process.env.CDC_ROUNDS ?? process.env.ROUNDS ?? 100);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);
const timeout = 120_000 + ROUNDS * 5000;

const TABLES = `create table moves ("order" int not null, version int not null, tx text not null, type text not null);
  create publication posthorn for table moves`;
const RULE = 'public.moves insert type={type} ordering-key={order} data=order,version,tx';

/** One half of the events are messages, the other half are rows of a table. */
function emit(client, { type, data, ordering_key }) {
  if (parseInt(data.tx[0], 16) % 2 === 0)
    return client.query(`select pg_logical_emit_message(true, 'posthorn', $1)`, [JSON.stringify({ type, data, ordering_key })]);
  return client.query('insert into moves values ($1, $2, $3, $4)', [data.order, data.version, data.tx, type]);
}

/** The rest of what chaos asks of a shop. */
function observe(shop, world) {
  shop.pending = async () => {
    const lsn = await shop.sql('select pg_current_wal_lsn()');
    return (await shop.sql(`select count(*) from pg_replication_slots where confirmed_flush_lsn >= ${literal(lsn)}`)) === '1' ? 0 : 1;
  };
  // What is read twice is kept twice, under one key.
  shop.rejected = async () => {
    const text = await readFile(join(world.server.data, 'shop.rejected.jsonl'), 'utf8').catch(() => '');
    const rejects = text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
    return [...new Map(rejects.map((one) => [one.key, [one.ordering_key, one.type, one.reason]])).values()];
  };
}

test(`messages and tables, kills (SEED=${SEED})`, { timeout }, async (t) => {
  const shop = await PostgresShop.start({ emit, prepare: (one) => one.sql(TABLES) });
  let world;
  try {
    const path = join(await temporaryFolder(), 'posthorn.conf');
    await writeFile(path, `[source shop]\nkind = cdc\nurl = ${shop.url}\ntenant = acme\nslot = shop\nrule = ${RULE}\n`);
    await shop.sql("select pg_create_logical_replication_slot('shop', 'pgoutput')");
    world = await World.start(shop, { flags: ['--config', path] });
    observe(shop, world);
    await chaos(t, world, { rounds: ROUNDS, seed: SEED });
  } catch (error) {
    console.error(`SEED=${SEED}\n---- the server said ----\n${world?.server.log.slice(-10_000)}\n---- end ----`);
    throw error;
  } finally {
    await (world ?? shop).remove();
  }
});
