// Change data capture: events out of a PostgreSQL's log exist exactly when the change was committed.

import assert from 'node:assert/strict';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';

import { Postgres } from '../e2e/lib/postgres.mjs';
import { run, Server, temporaryFolder } from '../e2e/lib/server.mjs';
import { ONLY_A_FILE } from '../e2e/lib/shared_store.mjs';
import { TEST_LIMIT_MS } from '../e2e/lib/suite.mjs';
import { LONG_LIMIT_MS, waitFor } from '../e2e/lib/wait.mjs';
import { emit, Shop } from './lib/cdc.mjs';

const ORDERS = `create table orders (id int primary key, total numeric(10,2), paid boolean, note text, doc jsonb, tags text[], at timestamptz);
  alter table orders alter note set storage external`;

// They mostly wait.
describe('change data capture', { concurrency: 4 }, () => {
  let pg;
  before(async () => (pg = await Postgres.start()));
  after(() => pg?.remove());

  const test = (name, options, body) =>
    it(name, { timeout: TEST_LIMIT_MS }, async () => {
      const shop = await Shop.start(pg, options);
      try {
        await body(shop);
      } catch (error) {
        console.error(`---- the server said ----\n${shop.server.log}\n---- end ----`);
        throw error;
      } finally {
        await shop.remove();
      }
    });

  test('messages of committed transactions become events, in their order, with all they say', {}, async (shop) => {
    await shop.api.createTenant({ id: 'umbrella' });
    const later = new Date(Date.now() + 86_400_000).toISOString();
    await shop.sql(`begin; ${emit({ type: 'order.made', data: { n: 1 } })}; ${emit('{"data" : [1.50,  "é"], "type":"order.paid", "ordering_key":"o-1", "schema_version":"2"}')}; commit;
      begin; ${emit({ type: 'order.never', data: 0 })}; rollback;
      begin; savepoint s; ${emit({ type: 'order.never', data: 0 })}; rollback to s; ${emit({ type: 'order.sent', data: 3, deliver_at: later })}; commit;
      ${emit({ type: 'order.other', data: 4, tenant: 'umbrella' })};
      select pg_logical_emit_message(true, 'somebody else', 'anything')`);
    await shop.caughtUp();
    const events = await shop.events();
    assert.deepEqual(events.map(({ type }) => type), ['order.made', 'order.paid', 'order.sent']);
    assert.equal(events[1].ordering_key, 'o-1');
    assert.equal(events[1].schema_version, '2');
    assert.equal(events[2].deliver_at, later);
    assert.ok((await shop.api.request('GET', `/v1/tenants/acme/events/${events[1].id}`)).text.includes('"data":[1.50,  "é"]'), 'the bytes of data are kept');
    assert.deepEqual((await shop.events('umbrella')).map(({ type }) => type), ['order.other']);
    assert.deepEqual(await shop.rows(), { accepted: 4, duplicate: 0, rejected: 0 });
  });

  test('what cannot be an event is counted and kept with the reason, and does not hold up the rest', {}, async (shop) => {
    const bad = ['{"type":"a b","data":1}', 'no JSON', '{"type":"a"}', '{"type":"a","data":1,"tenant":"nobody"}', '{"type":"posthorn.x","data":1}'];
    const large = `select pg_logical_emit_message(true, 'posthorn', json_build_object('type', 'a', 'data', repeat('x', 1 << 20))::text)`;
    await shop.sql(`${bad.map((text) => emit(text)).join('; ')}; ${large}; ${emit({ type: 'outside', data: 1 }, false)}; ${emit({ type: 'good', data: 1 })}`);
    await shop.caughtUp();
    assert.deepEqual((await shop.events()).map(({ type }) => type), ['good']);
    const rejected = await shop.rejected();
    const reasonOf = (text) => rejected.find(({ content, content_text }) => content_text === text || JSON.stringify(content) === text)?.reason ?? '';
    assert.match(reasonOf('no JSON'), /not a JSON object/);
    assert.match(reasonOf('{"type":"a"}'), /data: is required/);
    assert.match(reasonOf('{"type":"outside","data":1}'), /not part of a transaction/);
    assert.deepEqual(rejected.filter(({ type }) => type).map(({ type, tenant, reason }) => [type, tenant, /^\w+: ./.test(reason)]),
      [['a b', undefined, true], ['a', 'nobody', true], ['posthorn.x', undefined, true], ['a', undefined, true]]);
    assert.equal(rejected.length, bad.length + 2);
    assert.deepEqual(await shop.rows(), { accepted: 1, duplicate: 0, rejected: bad.length + 2 });
    assert.equal((await stat(join(shop.server.data, 'shop.rejected.jsonl'))).mode & 0o777, 0o600);
    assert.match(shop.server.log, /kept apart.*shop\.rejected\.jsonl/);
    assert.equal((await shop.status()).state, 'running');
  });

  test('changes of tables become events by rules', {
    sql: `${ORDERS}; create table lines (id int primary key, account text, note text); alter table lines replica identity full; create table other (id int)`,
    settings: {
      rule: ['public.orders insert type=order.made ordering-key={id}', 'public.orders update type=order.changed ordering-key=o-{id} schema-version=3',
        'public.orders delete type=order.gone', 'public.lines insert,update,delete type=line.{note} tenant={account} data=id,note before=true'],
    },
  }, async (shop) => {
    await shop.api.createTenant({ id: 'umbrella' });
    await shop.sql(`insert into orders values (1, 12.50, true, repeat('x', 3000), '{"a":[1,2.50]}', '{a,b}', '2026-01-02 03:04:05.5+02'), (2, 'NaN', null, null, null, null, null);
      update orders set total = 13 where id = 1; delete from orders where id = 2;
      insert into lines values (7, 'umbrella', 'new'); update lines set note = 'old'; update lines set account = 'nobody'; delete from lines;
      insert into other values (1)`);
    await shop.caughtUp();
    const events = (await shop.events()).map(({ type, ordering_key, schema_version, data }) => [type, ordering_key, schema_version, data]);
    const made = { id: 1, total: 12.5, paid: true, note: 'x'.repeat(3000), doc: { a: [1, 2.5] }, tags: '{a,b}', at: '2026-01-02 01:04:05.5+00' };
    const { note, ...changed } = { ...made, total: 13 };
    assert.deepEqual(events, [
      ['order.made', '1', '1', made],
      ['order.made', '2', '1', { id: 2, total: 'NaN', paid: null, note: null, doc: null, tags: null, at: null }],
      ['order.changed', 'o-1', '3', changed], // without the note, which is stored apart and was not touched
      ['order.gone', null, '1', { id: 2 }],
    ]);
    assert.deepEqual((await shop.events('umbrella')).map(({ type, data }) => [type, data]), [
      ['line.new', { before: null, after: { id: 7, note: 'new' } }],
      ['line.old', { before: { id: 7, note: 'new' }, after: { id: 7, note: 'old' } }],
    ]);
    assert.deepEqual((await shop.rejected()).map(({ what, tenant, reason }) => [what, tenant, reason]),
      [['public.lines insert,update,delete', 'nobody', 'tenant: there is no such tenant'], ['public.lines insert,update,delete', 'nobody', 'tenant: there is no such tenant']]);
  });

  test('a restart goes on where it was: nothing twice, nothing missing, also what was committed meanwhile', {}, async (shop) => {
    const say = (n) => shop.sql(emit({ type: 'a', data: n }));
    for (const end of ['stop', 'kill']) {
      await say(end);
      await shop.server[end]();
      await say(`after ${end}`);
      await shop.server.start();
      shop.reconnect();
    }
    await shop.caughtUp();
    assert.deepEqual((await shop.events()).map(({ data }) => data), ['stop', 'after stop', 'kill', 'after kill']);
  });

  test('the database user needs REPLICATION alone', { sql: ORDERS, settings: { rule: 'public.orders insert type=a' } }, async (shop) => {
    await shop.sql('drop role if exists reader; create role reader login replication; revoke all on orders from public');
    await shop.restart({ url: pg.urlOf(shop.database).replace('posthorn@', 'reader@') });
    await shop.sql('insert into orders (id) values (1)');
    await shop.caughtUp();
    assert.equal((await shop.events()).length, 1);
  });

  test('neither the log nor /readyz holds data or a password', { sql: ORDERS, settings: { rule: 'public.orders insert type={note}' } }, async (shop) => {
    await shop.restart({ url: pg.urlOf(shop.database).replace('posthorn@', 'posthorn:hunter2@') });
    await shop.sql(`${emit({ type: 'bad type', data: 'hunter3' })}; ${emit('hunter3')}; insert into orders (id, note) values (1, 'hunter3!')`);
    await shop.caughtUp();
    await shop.restart({ url: 'postgres://posthorn:hunter2@127.0.0.1:1/x' });
    await shop.stopped(/cannot be reached/);
    assert.equal((await shop.rejected()).length, 3);
    assert.doesNotMatch(shop.server.log + (await shop.api.request('GET', '/readyz')).text, /hunter[23]/);
  });

  test('100,000 rows of one transaction pass through in bounded memory', {
    sql: 'create table rows (id int primary key, text text)', settings: { rule: 'public.rows insert type=row ordering-key={id}', batch: 1000 },
  }, async (shop) => {
    const peak = async () => Number((await pg.execute('cat', [`/proc/${shop.server.child.pid}/status`])).match(/VmHWM:\s+(\d+)/)[1]) / 1024;
    const insert = (from, to) => shop.sql(`insert into rows select n, repeat('x', 1000) from generate_series(${from}, ${to}) n`);
    for (let i = 0; i < 20_000; i += 2000) await insert(i, i + 1999); // what the server keeps of any events
    await shop.caughtUp();
    const before = await peak();
    await insert(20_000, 119_999);
    await shop.caughtUp(LONG_LIMIT_MS);
    assert.deepEqual(await shop.rows(), { accepted: 120_000, duplicate: 0, rejected: 0 });
    // As events they are some 120 MB.
    const grown = (await peak()) - before;
    assert.ok(grown < 40, `100,000 rows took ${grown} MiB`);
  });

  // ---- what stops it ----

  test('without a slot it waits until there is one', { settings: { 'create-slot': 'false' } }, async (shop) => {
    const line = await shop.stopped(/slot is not there/);
    assert.match(line, /pg_create_logical_replication_slot\('shop\d+', 'pgoutput'\)/);
    await shop.sql(emit({ type: 'before', data: 1 }));
    await makeSlot(shop);
    await shop.sql(emit({ type: 'behind', data: 1 }));
    await shop.caughtUp();
    assert.deepEqual((await shop.events()).map(({ type }) => type), ['behind']);
  });

  it('a slot that cannot be made is told of in the words of the database', { timeout: TEST_LIMIT_MS }, async () => {
    const one = await Postgres.start({ settings: { max_replication_slots: 1 } });
    let shop;
    try {
      await one.sql("select pg_create_physical_replication_slot('filler')");
      shop = await Shop.start(one);
      assert.match(await shop.stopped(/slot cannot be made/), /all replication slots are in use.*max_replication_slots/);
      await one.sql("select pg_drop_replication_slot('filler')");
      await waitFor(async () => (await shop.status()).state === 'running', { what: 'it to run' });
    } finally {
      await shop?.remove();
      await one.remove();
    }
  });

  test('without a publication it waits until there is one', {}, async (shop) => {
    await shop.server.stop();
    await shop.sql('drop publication posthorn');
    await shop.server.start();
    shop.reconnect();
    assert.match(await shop.stopped(/publication is not there/), /CREATE PUBLICATION/);
    await shop.sql(`create publication posthorn; ${emit({ type: 'a', data: 1 })}`);
    await shop.caughtUp();
    assert.equal((await shop.events()).length, 1);
  });

  const dropSlot = (shop) => waitFor(() => shop.sql(`select pg_drop_replication_slot('${shop.settings.slot}')`).then(() => true, () => false));
  const makeSlot = (shop) => shop.sql(`select pg_create_logical_replication_slot('${shop.settings.slot}', 'pgoutput')`);
  const positionIn = (line) => line.match(/accept-gap = ([0-9A-F]+\/[0-9A-F]+)/)[1];

  /** It stands still with a reason, loses nothing by waiting, and goes on when the gap is accepted by its name. */
  async function acceptsGap(shop, reason) {
    const line = await shop.stopped(reason);
    const position = positionIn(line);
    await shop.restart({ 'accept-gap': '0/1' }); // another gap's
    await shop.stopped(reason);
    await shop.restart({ 'accept-gap': position });
    await waitFor(async () => (await shop.status()).state === 'running', { what: 'it to go on' });
    await waitFor(() => /gap of a source was accepted/.test(shop.server.log), { what: () => `the log to tell of the gap\n${shop.server.log}` });
    await shop.sql(emit({ type: 'behind', data: 1 }));
    await shop.caughtUp();
    assert.deepEqual((await shop.events()).map(({ type }) => type), ['before', 'behind']);
  }

  test('a dropped slot is a loud stop', {}, async (shop) => {
    await shop.sql(emit({ type: 'before', data: 1 }));
    await shop.caughtUp();
    await shop.server.stop();
    await dropSlot(shop);
    await shop.sql(emit({ type: 'lost', data: 1 }));
    await shop.server.start();
    shop.reconnect();
    await acceptsGap(shop, /slot is gone/);
  });

  test('a slot that was dropped and made anew is a loud stop', {}, async (shop) => {
    await shop.sql(emit({ type: 'before', data: 1 }));
    await shop.caughtUp();
    await shop.server.stop();
    await dropSlot(shop);
    await shop.sql(emit({ type: 'lost', data: 1 }));
    await makeSlot(shop);
    await shop.server.start();
    shop.reconnect();
    await acceptsGap(shop, /moved on by somebody else/);
  });

  it("a store that was put back from a backup is a loud stop", { timeout: TEST_LIMIT_MS, skip: ONLY_A_FILE }, async () => {
    const shop = await Shop.start(pg);
    const backup = join(shop.folder, 'backup.db');
    try {
      await shop.sql(emit({ type: 'before', data: 1 }));
      await shop.caughtUp();
      assert.equal((await run(['backup', backup, '--data', shop.server.data])).code, 0);
      await shop.sql(emit({ type: 'lost', data: 1 }));
      await shop.caughtUp();
      await shop.server.stop();
      const { code, stderr } = await run(['restore', backup, '--data', shop.server.data, '--force']);
      assert.equal(code, 0, stderr);
      await shop.server.start();
      shop.reconnect();
      await acceptsGap(shop, /moved on by somebody else/);
    } finally {
      await shop.remove();
    }
  });

  it('a slot that has lost its log is a loud stop', { timeout: TEST_LIMIT_MS }, async () => {
    const small = await Postgres.start({ settings: { max_slot_wal_keep_size: '1MB' } });
    let shop;
    try {
      shop = await Shop.start(small);
      await shop.sql(emit({ type: 'before', data: 1 }));
      await shop.caughtUp();
      await shop.server.stop();
      await shop.sql(emit({ type: 'lost', data: 1 }));
      for (let i = 0; i < 4; i++) await shop.sql(`create table filler${i} (n int); select pg_switch_wal(); checkpoint`);
      assert.equal(await shop.sql('select wal_status from pg_replication_slots'), 'lost');
      await shop.server.start();
      shop.reconnect();
      await acceptsGap(shop, /slot has lost its log/);
    } finally {
      await shop?.remove();
      await small.remove();
    }
  });

  const withOwn = (name, body) =>
    it(name, { timeout: TEST_LIMIT_MS }, async () => {
      const own = await Postgres.start();
      let shop;
      try {
        shop = await Shop.start(own);
        await shop.sql(emit({ type: 'before', data: 1 }));
        await shop.caughtUp();
        await body(own, shop);
      } catch (error) {
        console.error(`---- the server said ----\n${shop?.server.log}\n---- end ----`);
        throw error;
      } finally {
        await shop?.remove();
        await own.remove();
      }
    });

  withOwn('a standby that takes over with all that was taken, and with the slot, is gone on with', async (own, shop) => {
    for (const type of ['first', 'second']) {
      await own.stop();
      await own.execute('touch', [join(own.data, 'standby.signal')]);
      await own.start();
      await own.sql('select pg_promote()');
      await shop.sql(emit({ type, data: 1 }));
      await shop.caughtUp();
    }
    assert.deepEqual((await shop.events()).map(({ type }) => type), ['before', 'first', 'second']);
    // A promoted server writes its first checkpoint when it comes to it.
    await waitFor(async () => (await own.sql('select timeline_id from pg_control_checkpoint()')) === '3', { every: 100, what: 'the third timeline' });
  });

  withOwn('a database that was put back, without what had been taken, is a loud stop', async (own, shop) => {
    const copy = join(own.folder, 'copy');
    await own.stop();
    await own.execute('cp', ['-a', own.data, copy]);
    await own.start();
    await shop.sql(`${emit({ type: 'taken', data: 1 })}; create table filler as select repeat('x', 1000) from generate_series(1, 10000)`);
    await shop.caughtUp();
    await own.stop();
    await own.execute('rm', ['-r', own.data]);
    await own.execute('mv', [copy, own.data]);
    await own.start();
    const position = positionIn(await shop.stopped(/another history/));
    await shop.restart({ 'accept-gap': position });
    await shop.sql(emit({ type: 'behind', data: 1 }));
    // Even where it stands at the same place of the same timeline as what had been taken.
    await waitFor(async () => (await shop.events()).some(({ type }) => type === 'behind'), { what: () => `what comes behind the gap\n${shop.server.log}` });
  });

  withOwn('another database is a loud stop', async (own, shop) => {
    await pg.sql('create database another', 'postgres');
    await pg.sql('create publication posthorn', 'another');
    await shop.restart({ url: pg.urlOf('another') });
    await shop.stopped(/another database/);
  });

  test('a slot that a server of another store reads is told of, and taken over when that has ended', {}, async (shop) => {
    await shop.sql(emit({ type: 'before', data: 1 }));
    await shop.caughtUp();
    const second = new Server({ flags: shop.server.flags });
    try {
      await second.start();
      await waitFor(() => /slot is in use by somebody else.*advice=/.test(second.log), { what: () => `the second to say so\n${second.log}` });
      assert.equal((await shop.status()).state, 'running');
      await shop.server.kill();
      await waitFor(() => /source runs/.test(second.log), { what: () => `the second to take over\n${second.log}` });
    } finally {
      await second.remove();
    }
  });

  // ---- schemas that change ----

  test('a column that is added is taken', { sql: ORDERS, settings: { rule: 'public.orders insert type=a' } }, async (shop) => {
    await shop.sql('insert into orders (id) values (1); alter table orders add vat int; insert into orders (id, vat) values (2, 20)');
    await shop.caughtUp();
    assert.deepEqual((await shop.events()).map(({ data }) => data.vat), [undefined, 20]);
  });

  test('a column that is gone stops it; a rule without it goes on, and nothing is missing', {
    sql: ORDERS, settings: { rule: 'public.orders insert type=a data=id,paid' },
  }, async (shop) => {
    await shop.sql('insert into orders (id) values (1); alter table orders drop paid; insert into orders (id) values (2)');
    assert.match(await shop.stopped(/rule does not fit/), /column paid in data.*does not have/);
    assert.equal((await shop.events()).length, 1, 'what came before was taken');
    await waitFor(async () => (await shop.status()).lag_seconds > 3, { what: 'the lag to grow, for the alert' });
    assert.equal(shop.server.log.split('source runs').length, 2, `it does not run in between\n${shop.server.log}`);
    await shop.restart({ rule: 'public.orders insert type=a data=id schema-version=2' });
    await shop.caughtUp();
    assert.deepEqual((await shop.events()).map(({ data, schema_version }) => [data, schema_version]), [[{ id: 1, paid: null }, '1'], [{ id: 2 }, '2']]);
  });

  test('data that change their shape stop it until the rule has another schema version', { sql: ORDERS, settings: { rule: 'public.orders insert type=a' } }, async (shop) => {
    await shop.sql('insert into orders (id, total) values (1, 5)');
    await shop.caughtUp();
    await shop.server.stop(); // the shape outlives a restart
    await shop.sql('alter table orders alter total type text, drop doc; insert into orders (id, total) values (2, 5)');
    await shop.server.start();
    shop.reconnect();
    assert.match(await shop.stopped(/rule does not fit/), /another schema-version than 1/);
    await shop.restart({ rule: 'public.orders insert type=a schema-version=2' });
    await shop.caughtUp();
    assert.deepEqual((await shop.events()).map(({ data, schema_version }) => [data.total, 'doc' in data, schema_version]), [[5, true, '1'], ['5.00', false, '2']]
      .map(([total, doc, version]) => [total === '5.00' ? '5' : total, doc, version]));
  });

  test('a table that is renamed stops it until the rule says so, and nothing is missing', { sql: ORDERS, settings: { rule: 'public.orders insert type=a' } }, async (shop) => {
    await shop.sql('insert into orders (id) values (1)');
    await shop.caughtUp();
    await shop.server.stop();
    await shop.sql('insert into orders (id) values (2); alter table orders rename to sales; insert into sales (id) values (3)');
    await shop.server.start();
    shop.reconnect();
    assert.match(await shop.stopped(/publication does not publish/), /no table public\.orders/);
    await shop.restart({ rule: 'public.sales insert type=a' });
    await shop.caughtUp();
    assert.deepEqual((await shop.events()).map(({ data }) => data.id), [1, 2, 3]);
    // While it runs.
    await shop.sql('alter table sales rename to orders; insert into orders (id) values (4)');
    await shop.stopped(/publication does not publish/);
    await shop.restart({ rule: 'public.orders insert type=a' });
    await shop.caughtUp();
    assert.deepEqual((await shop.events()).map(({ data }) => data.id), [1, 2, 3, 4]);
  });

  test('values before a change are told only of tables that have them', { sql: ORDERS, settings: { rule: 'public.orders update type=a before=true' } }, async (shop) => {
    await shop.sql('insert into orders (id) values (1); update orders set total = 1');
    assert.match(await shop.stopped(/rule does not fit/), /REPLICA IDENTITY FULL/);
  });

  test('a partitioned table comes under its own name, or it is said how', {
    sql: `create table parts (id int, part int, note text, primary key (id, part)) partition by list (part);
      create table parts_1 partition of parts for values in (1); create table parts_2 partition of parts for values in (2)`,
    publication: 'for table parts',
    settings: { rule: ['public.parts insert type=part.made', 'public.parts update type=part.changed', 'public.parts delete type=part.gone'] },
  }, async (shop) => {
    assert.match(await shop.stopped(/publication does not publish/), /public\.parts is published as its partitions.*publish_via_partition_root = true/);
    await shop.sql('alter publication posthorn set (publish_via_partition_root = true)');
    await waitFor(async () => (await shop.status()).state === 'running', { what: 'it to run' }); // it has made its slot then
    await shop.sql(`insert into parts values (1, 1, 'a'), (2, 2, 'b'); update parts set note = 'c' where id = 1; update parts set part = 2 where id = 1`);
    await shop.caughtUp();
    // A row that moves to another partition leaves one and comes into the other.
    assert.deepEqual((await shop.events()).map(({ type, data }) => [type, data.id, data.part, data.note]), [
      ['part.made', 1, 1, 'a'], ['part.made', 2, 2, 'b'], ['part.changed', 1, 1, 'c'], ['part.gone', 1, 1, undefined], ['part.made', 1, 2, 'c']]);
  });

  test('TRUNCATE of a table whose deletes are events is told of', { sql: ORDERS, settings: { rule: 'public.orders insert,delete type=a' } }, async (shop) => {
    await shop.sql('insert into orders (id) values (1); truncate orders');
    await shop.caughtUp();
    assert.match((await shop.rejected())[0].reason, /TRUNCATE/);
  });

  // ---- settings ----

  it('settings that are of no use together are refused', { timeout: TEST_LIMIT_MS }, async () => {
    const shop = new Shop(pg, 'shop', {});
    shop.folder = await temporaryFolder();
    try {
      for (const [settings, reason] of [
        [{ url: 'mysql://a@b/c' }, /url must be of a PostgreSQL/],
        [{ slot: 'Shop' }, /slot must be/],
        [{ publication: 'a"b' }, /publication must be/],
        [{ messages: 'false' }, /there must be a rule/],
        [{ rule: 'orders insert type=a' }, /must be a table with its schema/],
        [{ rule: ['public.a insert type=a', 'public.a insert,update type=b'] }, /two rules take the same changes/],
        [{ 'accept-gap': 'yes' }, /accept-gap must be a position/],
        [{ slots: 'a' }, /did you mean slot\?/],
        [{ kind: 'outbox', rule: 'public.a insert type=a' }, /rule, create-slot and accept-gap are of cdc: say kind = cdc/],
      ]) {
        await shop.configure(settings);
        const { code, stderr } = await run(['serve', '--data', join(shop.folder, 'data'), '--config', join(shop.folder, 'posthorn.conf')]);
        assert.equal(code, 2, stderr);
        assert.match(stderr, reason);
        for (const name of Object.keys(settings)) delete shop.settings[name];
        Object.assign(shop.settings, { kind: 'cdc', url: pg.urlOf('shop') });
      }
    } finally {
      await rm(shop.folder, { recursive: true, force: true });
    }
  });
});
