// kill -9 at random moments while an event becomes 100,000 deliveries: in the end there is one for each subscription, none is
// missing and none is there twice. ROUNDS (kills; 30) and SEED are environment variables.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { Api, Tenant } from '../e2e/lib/api.mjs';
import { Server, temporaryFolder } from '../e2e/lib/server.mjs';
import { waitFor } from '../e2e/lib/wait.mjs';
import { randomFrom } from './random.mjs';
import { subscribeMany } from '../e2e/lib/subscribe.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 30);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);

const SUBSCRIPTIONS = 100_000;
const EVENTS_A_FOLDER = 15; // then the folder begins anew, so that it does not grow without end
const START_MS = 1500; // a second kill comes at most this long after the start
const AGAIN = 0.2; // how often there is a second one
const FIRST_GUESS_MS = 400;
const LATE_MAX = 30;
const DONE_LIMIT_MS = 60_000;

test(`${ROUNDS} times kill -9 while one event fans out to ${SUBSCRIPTIONS} (SEED=${SEED})`, { timeout: 120_000 + ROUNDS * 20_000 }, async (t) => {
  const random = randomFrom(SEED);
  const pristine = await temporaryFolder();
  const server = new Server({ data: await temporaryFolder() });
  try {
    await prepare(server, pristine);
    const counts = { late: 0, begun: 0, again: 0 };
    const pace = { whole_ms: FIRST_GUESS_MS };
    for (let kills = 0, events = 1; kills < ROUNDS; events++) {
      assert.ok(counts.late < LATE_MAX + ROUNDS, 'the expansion is nearly always done before the kill');
      if (events % EVENTS_A_FOLDER === 0) await renew(server, pristine);
      const { id, fanout } = await killWhileExpanding(server, random, pace);
      if (fanout.state === 'done') {
        counts.late++;
        await expanded(server, id);
        continue;
      }
      kills++;
      counts.begun += fanout.state === 'expanding';
      if (random.chance(AGAIN)) {
        await server.spawn();
        await new Promise((resolve) => setTimeout(resolve, random.below(START_MS)));
        await server.kill();
        counts.again++;
      }
      await server.start();
      await expanded(server, id);
    }
    t.diagnostic(`seed ${SEED}: ${ROUNDS} kills before the end of an expansion, ${counts.begun} of them in its midst, and ` +
      `${counts.again} more during the start; an expansion takes about ${pace.whole_ms} ms`);
    t.diagnostic(`${ROUNDS + counts.late} expansions of ${SUBSCRIPTIONS} counted: none missing, none twice`);
  } catch (error) {
    console.error(`SEED=${SEED}\n---- the server said ----\n${server.saidSince(0)}\n---- end ----`);
    throw error;
  } finally {
    await server.remove();
    for (const folder of [pristine, server.data]) await rm(folder, { recursive: true, force: true });
  }
});

/** A folder with all the subscriptions; they are paused, so that nothing but the expansion goes on. */
async function prepare(server, pristine) {
  await server.start();
  const api = new Api(server);
  await api.createTenant({ id: 'blast', limits: { max_subscriptions: SUBSCRIPTIONS } });
  await subscribeMany(server, 'blast', SUBSCRIPTIONS, { url: 'http://127.0.0.1:9/', status: 'paused' });
  api.agent.destroy();
  await server.stop();
  await cp(server.data, pristine, { recursive: true });
  await server.start();
}

async function renew(server, pristine) {
  await server.kill();
  await rm(server.data, { recursive: true });
  await cp(pristine, server.data, { recursive: true });
  await server.start();
}

const tenantOf = (server) => new Tenant(new Api(server), 'blast');

/** Kills at any moment of an expansion; not when that is over: then the next guess is better. */
async function killWhileExpanding(server, random, pace) {
  const tenant = tenantOf(server);
  const { id } = await tenant.publish('blast', {});
  const after_ms = random.below(pace.whole_ms);
  await new Promise((resolve) => setTimeout(resolve, after_ms));
  const { fanout } = await tenant.event(id);
  if (fanout.state === 'done') pace.whole_ms = Math.max(after_ms, 10);
  else await server.kill();
  if (fanout.state === 'expanding') pace.whole_ms = Math.ceil((after_ms + 1) * SUBSCRIPTIONS / Math.max(fanout.deliveries, 1000));
  tenant.api.agent.destroy();
  return { id, fanout };
}

/** Waits until the fan-out says that it is done, and counts what it made, in the store itself. */
async function expanded(server, id) {
  const tenant = tenantOf(server);
  let event;
  await waitFor(async () => (event = await tenant.event(id)).fanout.state === 'done', {
    limit: DONE_LIMIT_MS, every: 5, what: () => `the end of a fan-out: ${JSON.stringify(event.fanout)}`,
  });
  tenant.api.agent.destroy();
  assert.equal(event.fanout.deliveries, SUBSCRIPTIONS, `${id} says that it has ${event.fanout.deliveries} deliveries`);
  const [rows, distinct, missing] = await query(server, `
    SELECT count(*), count(DISTINCT d.subscription),
      (SELECT count(*) FROM subscriptions s WHERE NOT EXISTS
        (SELECT 1 FROM deliveries m WHERE m.event = e.key AND m.subscription = s.no))
    FROM (SELECT max(key) AS key FROM events) e JOIN deliveries d ON d.event = e.key`);
  assert.deepEqual({ rows, distinct, missing }, { rows: SUBSCRIPTIONS, distinct: SUBSCRIPTIONS, missing: 0 }, id);
}

/** The one row of a query; the server goes on meanwhile. */
async function query(server, sql) {
  const { stdout } = await promisify(execFile)('sqlite3', ['-readonly', '-batch', join(server.data, 'posthorn.db'), sql]);
  return stdout.trim().split('|').map(Number);
}
