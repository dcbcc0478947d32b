// A running installation moves from SQLite to PostgreSQL: stopped, imported, started again; nothing that was acknowledged is lost.

import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';

import { Api, Tenant } from './lib/api.mjs';
import { Postgres } from './lib/postgres.mjs';
import { LOOPBACK_FLAGS, run } from './lib/server.mjs';
import { lifecycleTest } from './lib/suite.mjs';
import { LONG_LIMIT_MS, waitFor } from './lib/wait.mjs';

const COMMAND_LIMIT_MS = 120_000;

describe('import', { concurrency: false }, () => {
  let pg;
  before(async () => (pg = await Postgres.start()));
  after(() => pg?.remove());

  const importInto = (server, database) =>
    run(['import', '--from', `sqlite:${server.data}/posthorn.db`, '--to', pg.urlOf(database)], { limit: COMMAND_LIMIT_MS });

  async function makeDatabase(name) {
    const client = await pg.connect('postgres');
    await client.query(`CREATE DATABASE ${name}`);
    await client.end();
  }

  /** What a client sees of a tenant that does not change by itself. */
  async function look(tenant) {
    const deliveries = await tenant.deliveries({ state: 'delivered' });
    return {
      subscriptions: await tenant.all('/subscriptions'),
      events: await tenant.all('/events'),
      delivered: deliveries,
      attempts: await Promise.all(deliveries.map(({ id }) => tenant.attempts(id))),
      dead: (await tenant.deliveries({ state: 'dlq' })).map(({ id }) => id),
      dlq: await tenant.get('/deliveries/counts'),
    };
  }

  lifecycleTest('what was there is there under the same ids, and what was open is delivered', async ({ start, receiver }) => {
    await makeDatabase('moved');
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--lease-margin-ms', '2000'] });
    const api = new Api(server);
    const tenant = await api.createTenant();
    const good = await receiver([204]);
    const bad = await receiver([404]);
    const later = await receiver([204]);
    let answers = false;
    const slow = await receiver(async () => (answers ? 204 : undefined)); // at first it never answers
    const failing = await receiver(async () => (answers ? 204 : 500));
    await tenant.subscribe(good.url(), { event_types: ['good'] });
    await tenant.subscribe(bad.url(), { event_types: ['bad'] });
    const paused = await tenant.subscribe(later.url(), { event_types: ['later'], ordering: 'key' });
    await tenant.change(paused.id, { status: 'paused' });
    const hanging = await tenant.subscribe(slow.url(), { event_types: ['slow'], policy: { timeout_ms: 15_000 } });
    const retrying = await tenant.subscribe(failing.url(), {
      event_types: ['failing'], policy: { retry: { schedule_seconds: [30, 30, 30, 30], jitter: 0 }, max_attempts: 5 },
    });

    for (let i = 0; i < 5; i++) await tenant.publish('good', { i, text: 'é\u0000"' });
    const ordered = [];
    for (let i = 0; i < 6; i++) ordered.push((await tenant.publish('later', { i }, { ordering_key: 'one' })).id);
    const once = await tenant.publishText(JSON.stringify({ type: 'good', data: 1 }), { 'idempotency-key': 'order-1' });
    await tenant.waitDelivery(await tenant.publish('bad', {}), 'DLQ');
    const stuck = await tenant.publish('slow', {});
    await slow.received(1);
    const again = await tenant.publish('failing', {});
    await tenant.waitDelivery(again, 'RETRY');
    await waitFor(async () => (await tenant.deliveries({ state: 'delivered' })).length === 6, { what: 'what can be delivered' });

    const running = await importInto(server, 'moved');
    assert.equal(running.code, 1);
    assert.match(running.stderr, /another posthorn runs on this data folder .*stop it/);
    const before = await look(tenant);
    await server.kill(); // an attempt is under way
    const moved = await importInto(server, 'moved');
    assert.equal(moved.code, 0, moved.stdout + moved.stderr);
    assert.match(moved.stdout, /events +\d+ rows, as they were/);
    assert.match(moved.stdout, /moved \d+ rows\. Now start posthorn with --store/);
    assert.ok(!moved.stdout.includes('posthorn@'), 'the URL may hold a password');

    server.flags = [...server.flags, '--store', pg.urlOf('moved')];
    await server.start();
    const there = new Tenant(new Api(server), tenant.id);
    assert.deepEqual(await look(there), before);
    assert.equal((await there.publishText(JSON.stringify({ type: 'good', data: 1 }), { 'idempotency-key': 'order-1' })).id, once.id);

    answers = true;
    await there.change(paused.id, { status: 'active' });
    await there.change(retrying.id, { policy: { retry: { schedule_seconds: [1], jitter: 0 }, max_attempts: 5 } });
    for (const event of [stuck, again]) await there.waitDelivery(event, 'DELIVERED', { limit: LONG_LIMIT_MS });
    await later.received(ordered.length, { limit: LONG_LIMIT_MS });
    assert.deepEqual(later.requests.map((request) => request.headers['posthorn-event-id']), ordered, 'in their order');
    for (const [got, { secret }] of [[later, paused], [slow, hanging]]) got.requests.at(-1).verify(secret);
    const fresh = await there.publish('good', { fresh: true });
    await there.waitDelivery(fresh);
    assert.ok(fresh.id > again.id, 'ids go on ascending');

    const checked = await run(['check', '--store', pg.urlOf('moved'), '--data', server.data], { limit: COMMAND_LIMIT_MS });
    assert.equal(checked.code, 0, checked.stdout + checked.stderr);
    const twice = await importInto(server, 'moved');
    assert.equal(twice.code, 1);
    assert.match(twice.stderr, /a posthorn runs on it/);
    await server.stop();
    const full = await importInto(server, 'moved');
    assert.equal(full.code, 1);
    assert.match(full.stderr, /is not empty/);
    api.agent.destroy();
    there.api.agent.destroy();
  });

  lifecycleTest('an import that is killed leaves nothing, and is run again', async ({ start, receiver }) => {
    await makeDatabase('killed');
    const server = await start({});
    const api = new Api(server);
    const tenant = await api.createTenant();
    const { id } = await tenant.subscribe((await receiver([204])).url());
    await tenant.change(id, { status: 'paused' });
    for (let i = 0; i < 20; i++) await tenant.publish('a', { filler: 'x'.repeat(1000), i });
    await server.stop();
    // It waits for this lock in the middle, and is killed there.
    const made = await run(['migrate', '--store', pg.urlOf('killed')], { limit: COMMAND_LIMIT_MS });
    assert.equal(made.code, 0, made.stderr);
    const holder = await pg.connect('killed');
    await holder.query('BEGIN; LOCK TABLE deliveries_open IN EXCLUSIVE MODE');
    const watcher = await pg.connect('killed');
    const importing = run(['import', '--from', `sqlite:${server.data}/posthorn.db`, '--to', pg.urlOf('killed')], { limit: COMMAND_LIMIT_MS });
    const waiting = () => watcher.query("SELECT pid FROM pg_stat_activity WHERE wait_event_type='Lock' AND datname='killed'");
    await waitFor(async () => (await waiting()).rows.length === 1, { what: 'the import to wait' });
    await watcher.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type='Lock' AND datname='killed'");
    const ended = await importing;
    assert.equal(ended.code, 1, ended.stdout);
    await holder.query('ROLLBACK');
    const { rows } = await watcher.query('SELECT (SELECT count(*) FROM tenants) + (SELECT count(*) FROM events) AS n');
    assert.equal(rows[0].n, '0');
    await Promise.all([holder.end(), watcher.end()]);
    const again = await importInto(server, 'killed');
    assert.equal(again.code, 0, again.stdout + again.stderr);
    api.agent.destroy();
  });

  lifecycleTest('what is missing or wrong is said', async () => {
    const cases = [
      [['import'], 2, /--from is missing[^]*--to is missing/],
      [['import', '--from', 'x.db', '--to', pg.url], 2, /--from must be sqlite:FILE/],
      [['import', '--from', 'sqlite:/x.db', '--to', 'sqlite:/y.db'], 2, /--to must be postgres/],
      [['import', '--from', 'sqlite:/nowhere/x.db', '--to', pg.url], 1, /there is no store at \/nowhere\/x\.db/],
    ];
    for (const [args, code, pattern] of cases) {
      const ended = await run(args);
      assert.equal(ended.code, code, ended.stderr);
      assert.match(ended.stderr, pattern);
    }
  });
});
