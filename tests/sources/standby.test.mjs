// Several nodes with the same [source] of kind cdc: one reads the slot, the others stand by.

import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Api } from '../e2e/lib/api.mjs';
import { Cluster, LEASE_MS } from '../e2e/lib/cluster.mjs';
import { Postgres } from '../e2e/lib/postgres.mjs';
import { temporaryFolder } from '../e2e/lib/server.mjs';
import { test } from '../e2e/lib/suite.mjs';
import { waitFor } from '../e2e/lib/wait.mjs';
import { emit } from './lib/cdc.mjs';

const NODES = 3;

/** Runs a body with nodes that share the store and a section, whose slot the first of them makes; the source is a database beside the store's. */
async function within(body) {
  const folder = await temporaryFolder();
  const cluster = new Cluster();
  try {
    const path = join(folder, 'posthorn.conf');
    const postgres = (cluster.postgres = await Postgres.start());
    Object.assign(cluster, { url: postgres.url, leaseMs: LEASE_MS });
    await postgres.sql('create database producer', 'postgres');
    const sql = (text) => postgres.sql(text, 'producer');
    await sql('create publication posthorn');
    await writeFile(path, `[source shop]\nkind = cdc\nurl = ${postgres.urlOf('producer')}\ntenant = acme\ncreate-slot = true\n`);
    // At once, as a deployment starts them.
    await Promise.all(Array.from({ length: NODES }, () => cluster.join(['--config', path])));
    const [{ api }] = cluster.nodes;
    const tenant = await api.createTenant({ id: 'acme' });
    await body(cluster, tenant, sql);
  } catch (error) {
    console.error(`---- the nodes said ----\n${cluster.log}\n---- end ----`);
    throw error;
  } finally {
    await cluster.remove();
    await rm(folder, { recursive: true, force: true });
  }
}

const stateOf = async (node) => (await node.api.get('/readyz')).sources[0];
const states = async (nodes) => (await Promise.all(nodes.map(stateOf))).map(({ state }) => state).sort();

/** Waits until one of them runs and the others stand by, and returns the one. */
async function reader(nodes) {
  const expected = ['running', ...nodes.slice(1).map(() => 'standing_by')];
  let seen;
  await waitFor(async () => (seen = await states(nodes)).join() === expected.join(), { what: () => `one to read, the others to stand by, last ${seen}` });
  for (const node of nodes) if ((await stateOf(node)).state === 'running') return node;
}

const metrics = async (node) => (await node.api.request('GET', '/metrics')).text;

/** Events that come one after the other until they are stopped; the numbers of those that were committed. */
function produce(sql) {
  const committed = [];
  let stopped = false;
  const done = (async () => {
    while (!stopped) {
      await sql(emit({ type: 'a', data: committed.length, ordering_key: 'k' }));
      committed.push(committed.length);
    }
  })();
  return { committed, stop: () => ((stopped = true), done) };
}

test('one node reads the slot, the others stand by; one takes over when it is killed, and nothing is lost', () =>
  within(async (cluster, tenant, sql) => {
    const first = await reader(cluster.nodes);
    const others = cluster.nodes.filter((node) => node !== first);
    for (const node of others) {
      assert.equal((await stateOf(node)).reason, null);
      assert.match(await metrics(node), /^posthorn_source_state\{source="shop",state="standing_by"\} 1$/m);
    }
    const producer = produce(sql);
    await waitFor(() => producer.committed.length > 20, { what: 'events' });
    await first.kill();
    const second = await reader(others);
    const soFar = producer.committed.length;
    await waitFor(() => producer.committed.length > soFar + 20, { what: 'events after it' });
    await producer.stop();

    tenant.api = second.api;
    let events;
    await waitFor(async () => (events = await tenant.all('/events')).length >= producer.committed.length, { what: () => `${producer.committed.length} events, ${events.length} are there` });
    assert.deepEqual(events.map(({ data }) => data).reverse(), producer.committed, 'each once, in the order of the commits');

    await first.start();
    first.api = new Api(first);
    assert.equal(await reader([second, first, ...others.filter((node) => node !== second)]), second, 'the one that comes back stands by');
    for (const node of cluster.nodes) {
      assert.doesNotMatch(node.log, / error .*replication slot/, 'standing by is no fault');
      const said = (what) => node.log.split(what).length - 1;
      assert.ok(said('source stands by') <= 2 + said(' error '), 'it is said once a time');
    }
  }));
