// Backup, restore, check and migrate: the commands that an operator types, on the real program's stores.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { copyFile, cp, mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

import { ONLY_A_FILE } from './lib/shared_store.mjs';
import { Api, Tenant } from './lib/api.mjs';
import { BINARY, cleanEnvironment, run, temporaryFolder } from './lib/server.mjs';
import { lifecycleTest, test } from './lib/suite.mjs';
import { LONG_LIMIT_MS, waitFor } from './lib/wait.mjs';

const COMMAND_LIMIT_MS = 120_000;
const posthorn = (...args) => run(args, { limit: COMMAND_LIMIT_MS });

async function done(...args) {
  const ended = await posthorn(...args);
  assert.equal(ended.code, 0, `posthorn ${args.join(' ')}: ${ended.stdout}${ended.stderr}`);
  return ended;
}

async function refused(pattern, ...args) {
  const ended = await posthorn(...args);
  assert.equal(ended.code, 1, `posthorn ${args.join(' ')}: ${ended.stdout}${ended.stderr}`);
  assert.match(ended.stdout + ended.stderr, pattern);
  return ended;
}

// The line break: what begins with -- would be taken for a flag.
const sql = async (file, text) => (await promisify(execFile)('sqlite3', [file, `\n${text}`])).stdout.trim();

/** A folder of the test's own; inside(name) is a path in it. */
async function scratch(body) {
  const folder = await temporaryFolder();
  try {
    await body((name) => join(folder, name));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A stopped server's data folder with deliveries in many states. */
async function makeStore(start, receiver) {
  const server = await start({});
  const api = new Api(server);
  const tenant = await api.createTenant();
  const good = await receiver([204]);
  const bad = await receiver([404]);
  const down = await receiver([500]);
  await tenant.subscribe(good.url(), { event_types: ['good'] });
  await tenant.subscribe(bad.url(), { event_types: ['bad'] });
  const waiting = await tenant.subscribe(down.url(), {
    event_types: ['ordered'], ordering: 'key',
    policy: { retry: { schedule_seconds: [3600, 3600], jitter: 0 }, max_attempts: 3 },
  });
  for (let i = 0; i < 3; i++) await tenant.publish('good', { i });
  for (let i = 0; i < 3; i++) await tenant.publish('ordered', { i }, { ordering_key: 'one' });
  await tenant.publishText(JSON.stringify({ type: 'good', data: 1 }), { 'idempotency-key': 'once' });
  const dead = await tenant.publish('bad', {});
  await tenant.waitDelivery(dead, 'DLQ');
  await waitFor(async () => (await tenant.deliveries({ state: 'delivered' })).length === 4, { what: 'four deliveries' });
  await waitFor(async () => (await tenant.deliveries({ state: 'retry' })).length === 1, { what: 'a retry' });
  const replayed = (await tenant.deliveries({ state: 'dlq' }))[0];
  await tenant.expect(202, 'POST', `/deliveries/${replayed.id}/replay`);
  await waitFor(async () => (await tenant.delivery(replayed.id)).attempt_count === 2, { what: 'the replay' });
  await tenant.waitDelivery(replayed.id, 'DLQ');
  await server.stop();
  api.agent.destroy();
  return { server, tenant, waiting };
}

describe('backup and restore', { concurrency: false, skip: ONLY_A_FILE }, () => {
  lifecycleTest('a backup under load holds all that was acknowledged before it began, and is delivered from elsewhere', async ({ start, receiver }) =>
    scratch(async (inside) => {
      const server = await start({});
      const api = new Api(server);
      const tenant = await api.createTenant();
      // Nothing of it is delivered by the first server: the restored one has to.
      const got = await receiver(async () => 204);
      const { id, secret } = await tenant.subscribe(got.url(), { event_types: ['later'] });
      await tenant.change(id, { status: 'paused' });
      const busy = await receiver([204], { keep: false });
      for (let i = 0; i < 5; i++) await tenant.subscribe(busy.url(), { event_types: ['later', 'load'], ordering: i % 2 ? 'key' : 'none' });

      const acknowledged = [];
      let publishing = true;
      const publish = async (n) => {
        while (publishing) acknowledged.push((await tenant.publish('later', { n, filler: 'x'.repeat(2000) }, { ordering_key: String(n) })).id);
      };
      const publishers = Array.from({ length: 8 }, (_, n) => publish(n));
      await waitFor(() => acknowledged.length > 200, { what: 'events' });
      const before = [...acknowledged];
      const { stdout } = await done('backup', inside('a.db'), '--data', server.data);
      const more = acknowledged.length;
      await waitFor(() => acknowledged.length > more + 50, { what: 'publishing to go on' });
      publishing = false;
      await Promise.all(publishers);

      assert.equal(statSync(inside('a.db')).mode & 0o777, 0o600);
      assert.deepEqual(readdirSync(inside('.')), ['a.db'], 'it needs no file beside it');
      assert.match(stdout, /sealed with the key of fingerprint [0-9a-f]{32}, which is not in it/);
      const key = (await readFile(join(server.data, 'secret.key'), 'utf8')).trim();
      assert.ok(!(await readFile(inside('a.db'))).includes(key));
      await done('check', inside('a.db'));
      await done('check', '--data', server.data); // while the server runs
      await server.stop();

      await mkdir(inside('data'), { mode: 0o700 });
      await copyFile(join(server.data, 'secret.key'), inside('data/secret.key'));
      await done('restore', inside('a.db'), '--data', inside('data'));
      const restored = await start({ data: inside('data') });
      const there = new Tenant(new Api(restored), tenant.id);
      await there.change(id, { status: 'active' });
      const webhooks = () => new Set(got.requests.map((request) => request.headers['posthorn-event-id']));
      await waitFor(() => before.every((event) => webhooks().has(event)), { what: 'all that was acknowledged before the backup', limit: LONG_LIMIT_MS });
      for (const request of got.requests) request.verify(secret);
      await restored.stop();
      await done('check', '--data', inside('data'));
      api.agent.destroy();
      there.api.agent.destroy();
    }),
  );

  lifecycleTest('a restore is refused where it would overwrite, unless --force says so', async ({ start, receiver }) =>
    scratch(async (inside) => {
      const { server, tenant } = await makeStore(start, receiver);
      await done('backup', inside('a.db'), '--data', server.data);
      await refused(/is there already/, 'backup', inside('a.db'), '--data', server.data);
      await refused(/there is no store/, 'backup', inside('b.db'), '--data', inside('nowhere'));
      assert.ok(!existsSync(inside('b.db')));

      await refused(/is not empty \(posthorn\.db/, 'restore', inside('a.db'), '--data', server.data);
      await server.start();
      const again = new Tenant(new Api(server), tenant.id);
      const lost = await again.publish('good', { after: 'the backup' });
      await refused(/another posthorn runs on this data folder/, 'restore', inside('a.db'), '--data', server.data, '--force');
      await server.kill(); // its log is not in its file
      await done('restore', inside('a.db'), '--data', server.data, '--force');
      assert.deepEqual(readdirSync(server.data).filter((name) => /wal|shm|restoring|damaged/.test(name)), []);
      await server.start();
      await again.expect(404, 'GET', `/events/${lost.id}`);
      assert.equal((await again.deliveries({ state: 'delivered' })).length, 4);

      const other = await start({});
      await other.stop();
      await refused(/secret key at hand is not the one/, 'restore', inside('a.db'), '--data', other.data, '--force');
      await writeFile(inside('text'), 'no store'.repeat(1000));
      await refused(/damaged, or no database/, 'restore', inside('text'), '--data', inside('new'));
      await refused(/cannot be read/, 'restore', inside('missing'), '--data', inside('new'));
      await sql(inside('foreign'), 'CREATE TABLE t (a)');
      await refused(/belongs to another program/, 'restore', inside('foreign'), '--data', inside('new'));
      await copyFile(inside('a.db'), inside('newer'));
      await sql(inside('newer'), 'PRAGMA user_version=4711');
      await refused(/newer posthorn/, 'restore', inside('newer'), '--data', inside('new'));
      assert.deepEqual(readdirSync(inside('new')).filter((name) => !name.endsWith('.lock')), []);
      again.api.agent.destroy();
    }),
  );

  lifecycleTest('a damaged store gives way, and its file is kept', async ({ start, receiver }) =>
    scratch(async (inside) => {
      const { server } = await makeStore(start, receiver);
      await done('backup', inside('a.db'), '--data', server.data);
      await writeFile(join(server.data, 'posthorn.db'), 'x'.repeat(10_000));
      await refused(/damaged/, 'check', '--data', server.data);
      await done('restore', inside('a.db'), '--data', server.data, '--force');
      await done('check', '--data', server.data);
      assert.ok(existsSync(join(server.data, 'posthorn.db.damaged')));
      await server.start();
    }),
  );

  lifecycleTest('a restore that is killed leaves all or nothing', async ({ start, receiver }) =>
    scratch(async (inside) => {
      const { server, tenant } = await makeStore(start, receiver);
      await server.start();
      const api = new Api(server);
      const same = new Tenant(api, tenant.id);
      for (let i = 0; i < 40; i++) await same.publish('nobody', 'x'.repeat(1_000_000));
      await server.stop();
      await done('backup', inside('large.db'), '--data', server.data);

      let half = 0;
      let whole = 0;
      // Each is killed a little longer after it has begun to write, until one has come to its end. Where the first does, it was seen too late: once more.
      for (let tries = 0, ms = 0; tries < 60 && (whole === 0 || half === 0); tries++, ms = half ? Math.ceil(ms * 1.5) + 1 : 0) {
        const data = inside(`try-${tries}`);
        await mkdir(data);
        await copyFile(join(server.data, 'secret.key'), join(data, 'secret.key'));
        const child = spawn(BINARY, ['restore', inside('large.db'), '--data', data], { env: cleanEnvironment(), stdio: 'ignore' });
        const ended = once(child, 'close');
        const written = () => ['posthorn.db', 'posthorn.db.restoring'].some((name) => existsSync(join(data, name)));
        await waitFor(written, { what: 'the restore to begin', every: 1 });
        await delay(ms);
        child.kill('SIGKILL');
        await ended;
        if (existsSync(join(data, 'posthorn.db'))) {
          whole++;
        } else {
          assert.ok(existsSync(join(data, 'posthorn.db.restoring')));
          half++;
          // A start would make an empty store of it.
          const { code, stderr } = await run(['serve', '--data', data, '--listen', '127.0.0.1:0']);
          assert.equal(code, 1);
          assert.match(stderr, /a restore did not come to its end/);
          assert.ok(!existsSync(join(data, 'posthorn.db')));
          await done('restore', inside('large.db'), '--data', data);
        }
        await done('check', '--data', data);
        assert.equal(await sql(join(data, 'posthorn.db'), "SELECT count(*) FROM events WHERE type='nobody'"), '40');
        await rm(data, { recursive: true });
      }
      assert.ok(half > 0 && whole > 0, `killed in the middle ${half} times, after the end ${whole} times`);

      // In the place of another store: that one stays whole until the end.
      const old = await start({});
      await old.stop();
      await copyFile(join(server.data, 'secret.key'), join(old.data, 'secret.key'));
      await sql(join(old.data, 'posthorn.db'), 'DELETE FROM seal_keys; DELETE FROM server_keys');
      const child = spawn(BINARY, ['restore', inside('large.db'), '--data', old.data, '--force'], { env: cleanEnvironment(), stdio: 'ignore' });
      const ended = once(child, 'close');
      // Or it is seen too late, at its end.
      await waitFor(() => existsSync(join(old.data, 'posthorn.db.restoring')) || child.exitCode !== null, { every: 1, what: 'the restore to begin' });
      child.kill('SIGKILL');
      await ended;
      const events = Number(await sql(join(old.data, 'posthorn.db'), 'SELECT count(*) FROM events'));
      assert.ok(events === 0 || events >= 40, `${events} events`);
      await old.start();
      api.agent.destroy();
    }),
  );
});

// ---- check ----

/** What an accident or a bug could do to a store, and what check says of it. */
const DAMAGES = [
  ['DELETE FROM events WHERE key=(SELECT min(event) FROM deliveries)', /deliveries without their event/],
  ['UPDATE events SET tenant=4711 WHERE key=(SELECT min(event) FROM deliveries)', /of another tenant than their event's/],
  ['DELETE FROM subscriptions WHERE no=1', /deliveries without their subscription/],
  ['DELETE FROM tenants', /subscriptions without their tenant/],
  ['DELETE FROM deliveries WHERE event=(SELECT min(event) FROM deliveries)', /attempts without their delivery/],
  ['UPDATE deliveries SET state=9 WHERE state=3', /a state that there is none of/],
  ['UPDATE deliveries SET state=1, due_at=NULL WHERE state=2', /ATTEMPTING deliveries without a lease/],
  ['UPDATE deliveries SET lease_until=1 WHERE state=2', /leases on deliveries that are not ATTEMPTING/],
  ['UPDATE deliveries SET state=1, lease_until=1, claimed_at=1 WHERE state=2', /could be claimed once more/],
  ['UPDATE deliveries SET due_at=1 WHERE state=3', /closed deliveries that still stand in a lane/],
  ['UPDATE deliveries SET closed_at=NULL WHERE state=3', /time of closing does not fit/],
  ['UPDATE deliveries SET reason=NULL WHERE state=4', /DLQ deliveries without a reason/],
  ['UPDATE deliveries SET reason=1 WHERE state=3', /reasons on deliveries that are not in the DLQ/],
  ['UPDATE deliveries SET state=0 WHERE state=2', /PENDING deliveries that have been attempted/],
  ['UPDATE deliveries SET attempts=0 WHERE state=2', /RETRY deliveries that have not been attempted/],
  ['UPDATE deliveries SET state=5 WHERE state=2', /REPLAYING deliveries that nobody asked for/],
  ['UPDATE deliveries SET base=7 WHERE state=3', /counts of attempts that do not add up/],
  ['UPDATE deliveries SET lane_key=NULL, due_at=NULL WHERE state=2', /wait and are due never/],
  ['UPDATE deliveries SET due_at=NULL WHERE lane_key IS NOT NULL', /lane keys of which nothing may go/],
  ['UPDATE deliveries SET state=1, attempts=1, lease_until=1, claimed_at=1, due_at=NULL WHERE lane_key IS NOT NULL', /several are ATTEMPTING/],
  ['DELETE FROM attempts WHERE subscription=(SELECT subscription FROM deliveries WHERE state=2)', /recorded attempts are not those that ended/],
  ['DELETE FROM attempts WHERE number=2', /gaps in their recorded attempts/],
  ['DELETE FROM attempts WHERE to_state=3', /of which recorded attempts are missing/],
  ['UPDATE attempts SET to_state=2 WHERE to_state=3', /whose last attempt was no success/],
  ['UPDATE events SET has_job=1', /events without the fan-out job/],
  ['INSERT INTO fanout_jobs (event, tenant, cursor, upper, deliveries, state) VALUES (1, 1, 0, 0, 0, 2)', /jobs without their event/],
  ['INSERT INTO fanout_jobs (event, tenant, cursor, upper, deliveries, state) SELECT key, 1, 9, 1, 99, 0 FROM events LIMIT 1',
    /jobs that stand where none can[^]*count more deliveries than there are/],
  ['UPDATE dlq_counts SET n=n+1', /counts of the DLQ that are not what is in it/],
  ["DELETE FROM subscription_log; UPDATE marks SET value=(SELECT max(key) FROM events) WHERE name='log_watermark'", /the log by subscription lacks/],
  ["DELETE FROM type_log; UPDATE marks SET value=(SELECT max(key) FROM events) WHERE name='type_watermark'", /the log by type lacks/],
  ['INSERT INTO replay_lanes VALUES (1, 1, 0, 10, 2, 10)', /replays' lanes that do not add up/],
  ["UPDATE idempotency SET body_hash=x'00'", /idempotency keys that are malformed/],
  ["UPDATE idempotency SET events=zeroblob(16)", /idempotency keys without their events/],
  ['UPDATE secrets SET seal_key=4711', /secrets that no known key has sealed/],
  ['UPDATE secrets SET subscription=4711', /secrets of no live subscription/],
  ['UPDATE secrets SET sealed=zeroblob(64)', /secrets that their key does not open/],
  ['INSERT INTO subscription_tls SELECT 1, 1, no, zeroblob(64) FROM seal_keys', /client certificates that their key does not open/],
  ['UPDATE server_keys SET seal_key=4711', /keys of the server's own that no known key has sealed/],
  ['UPDATE server_keys SET bytes=zeroblob(61)', /keys of the server's own that their key does not open/],
  ["UPDATE subscriptions SET headers=x'00'", /headers that no known key has sealed/],
  ["UPDATE subscriptions SET headers=zeroblob(64), headers_key=(SELECT no FROM seal_keys)", /headers of subscriptions that their key does not open/],
  ["UPDATE subscriptions SET status=3, headers=zeroblob(64)", /headers of deleted subscriptions/],
  [`UPDATE subscriptions SET doc='{"headers":{"a":"b"}}' WHERE no=1`, /headers that lie in clear: 1, such as subscription 1/],
  ["UPDATE attempts SET request_headers='a: b'", /headers that lie in clear/],
  ['UPDATE attempts SET request_headers=zeroblob(64)', /headers of attempts that their key does not open/],
  ["UPDATE seal_keys SET fingerprint=zeroblob(16)", /secret key at hand is not the one/],
  ['DROP INDEX deliveries_due', /the schema lacks a table, index or trigger: 1, such as deliveries_due/],
  ['DROP INDEX deliveries_due; CREATE INDEX deliveries_due ON deliveries (due_at)', /another table, index or trigger of this name/],
];

describe('check', { concurrency: false, skip: ONLY_A_FILE }, () => {
  lifecycleTest('a sound store is sound, and every damage is found', async ({ start, receiver }) =>
    scratch(async (inside) => {
      const { server } = await makeStore(start, receiver);
      const store = join(server.data, 'posthorn.db');
      assert.match((await done('check', '--data', server.data)).stdout, /1 tenants, 3 subscriptions, 8 events, 8 deliveries[^]*sound\n$/);
      const { stdout } = await done('check', '--data', server.data, '--json');
      assert.deepEqual({ sound: true, findings: [], events: 8, ...JSON.parse(stdout) }, JSON.parse(stdout));
      for (const [statement, pattern] of DAMAGES) {
        await copyFile(store, inside('broken.db'));
        await sql(inside('broken.db'), statement);
        const { stdout: found } = await refused(pattern, 'check', inside('broken.db'), '--data', server.data);
        assert.match(found, /NOT SOUND\n$/, statement);
      }
      // The pages themselves.
      server.damaged = true;
      const file = await open(store, 'r+');
      const { size } = await file.stat();
      for (let at = 4096; at < size; at += 4096) await file.write(Buffer.alloc(64, 0xa5), 0, 64, at + 8);
      await file.close();
      const { stdout: damaged } = await posthorn('check', '--data', server.data, '--json');
      assert.equal(JSON.parse(damaged).sound, false);
      assert.match(damaged, /is damaged/);
      await refused(/not sound|damaged/, 'restore', store, '--data', inside('new'));
    }),
  );

  test('wrong usage ends with status 2', async () => {
    for (const [args, pattern] of [
      [['backup'], /FILE is missing/],
      [['restore'], /FILE is missing/],
      [['backup', 'a', '--force'], /unknown flag --force/],
      [['migrate', 'surplus'], /unexpected argument surplus/],
      [['check', '--daat', 'x'], /did you mean --data\?/],
      [['restore', 'a', '--force=yes'], /--force=yes: must be true or false/],
      [['check', '--store', 'mysql:x'], /must be sqlite:FILE/],
    ]) {
      const { code, stderr } = await run(args);
      assert.equal(code, 2, `${args}: ${stderr}`);
      assert.match(stderr, pattern);
    }
  });
});

describe('migrate', { concurrency: false, skip: ONLY_A_FILE }, () => {
  lifecycleTest('makes a store, leaves a current one alone, and is refused under a server', async ({ start }) =>
    scratch(async (inside) => {
      assert.match((await done('migrate', '--data', inside('data'))).stdout, /^made a store: schema \d+\n$/);
      assert.match((await done('migrate', '--data', inside('data'))).stdout, /^up to date: schema \d+\n$/);
      await done('check', '--data', inside('data'));
      await start({ data: inside('data') });
      await refused(/another posthorn runs/, 'migrate', '--data', inside('data'));
    }),
  );

  lifecycleTest('brings an old store up to date', async ({ start }) =>
    scratch(async (inside) => {
      await mkdir(inside('data'));
      const store = inside('data/posthorn.db');
      const schema = new URL('../../src/store/schema/sqlite/', import.meta.url);
      for (const file of readdirSync(schema).sort().slice(0, 6)) await sql(store, await readFile(new URL(file, schema), 'utf8'));
      await sql(store, `PRAGMA application_id=${0x706f7374}; PRAGMA user_version=6;
        INSERT INTO tenants (id, doc, created_at, updated_at) VALUES ('old', '{}', 1, 1)`);
      assert.match((await done('check', store)).stdout, /schema is of an older posthorn \(6;/);
      await cp(inside('data'), inside('other'), { recursive: true });
      assert.match((await done('migrate', '--data', inside('data'))).stdout, /^migrated: schema 6 to \d+\n$/);
      await done('check', '--data', inside('data'));
      const server = await start({ data: inside('data') });
      assert.doesNotMatch(server.stderr, /brought up to date/);
      const api = new Api(server);
      await api.expect(200, 'GET', '/v1/tenants/old');
      assert.match((await start({ data: inside('other') })).stderr, /brought up to date.* schema=6 to=\d+/, 'a start does it, too, and says so');
      api.agent.destroy();
    }),
  );
});
