// What becomes of rows, whoever takes them out of the outbox: the server itself, or a relay over HTTP.

import assert from 'node:assert/strict';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';

import { Api } from '../e2e/lib/api.mjs';
import { MariaDb } from '../e2e/lib/mariadb.mjs';
import { Postgres } from '../e2e/lib/postgres.mjs';
import { closedPort } from '../e2e/lib/receiver.mjs';
import { LOOPBACK_FLAGS, Server, run, temporaryFolder } from '../e2e/lib/server.mjs';
import { waitFor } from '../e2e/lib/wait.mjs';
import { Relay } from './lib/relay.mjs';
import { SqliteShop, ddl } from './lib/shop.mjs';

const POLL_MS = 10_000;
const BEFORE_POLL_MS = 9000; // polls alone would not be as quick so many times in a row
const WAKINGS = 60;

let postgres;
let folder;
before(async () => {
  postgres = await Postgres.start();
  folder = await temporaryFolder();
});
after(() => postgres?.remove());

/** A PostgreSQL database of a test's own, with an outbox: {url, sql}. */
let databases = 0;
async function makeShop(...flags) {
  const name = `shop${++databases}`;
  await postgres.sql(`create database ${name}`, 'postgres');
  const shop = { name, url: postgres.urlOf(name), sql: (text) => postgres.sql(text, name) };
  await shop.sql(await ddl('postgres', ...flags));
  return shop;
}

async function configure(text) {
  const path = join(folder, `${++databases}.conf`);
  await writeFile(path, text);
  return ['--config', path];
}

/** Runs a body with a server and what drains the shop into it. */
const drains = {
  async server(shop, settings, body) {
    const lines = Object.entries({ url: shop.url, tenant: 'acme', 'poll-ms': 20, ...settings }).map(([name, value]) => `${name} = ${value}`);
    const server = await Server.start({ flags: [...LOOPBACK_FLAGS, ...(await configure(`[source shop]\n${lines.join('\n')}\n`))] });
    try {
      await body(new Api(server), server);
    } finally {
      await server.remove();
    }
  },
  async relay(shop, settings, body) {
    const server = await Server.start({ flags: LOOPBACK_FLAGS });
    const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const relay = new Relay(server, shop.url, { flags });
    try {
      await body(new Api(server), server, relay);
    } finally {
      await relay.kill();
      await server.remove();
    }
  },
};

/** Whether a relay holds the locks that have producers notify. */
const asleep = async (shop) => (await shop.sql(`select count(*) from pg_locks where locktype = 'advisory' and objid::bigint & 255 >= 128 and mode = 'ExclusiveLock' and database = (select oid from pg_database where datname = current_database())`)) === '16';

const metric = async (api, line) => {
  const { text } = await api.request('GET', '/metrics');
  return Number(text.split('\n').find((one) => one.startsWith(`${line} `))?.split(' ')[1]);
};

const drained = (shop) => waitFor(async () => (await shop.sql('select count(*) from posthorn_outbox')) === '0', { what: 'the outbox to be empty' });

/** A row each that cannot be an event, and the field that its reason begins with. */
const REFUSED = [
  [`posthorn_publish('no type', '1')`, 'type: '],
  [`posthorn_publish('posthorn.mine', '1')`, 'type: '],
  [`posthorn_publish('a', '1', tenant => 'nobody')`, 'tenant: there is no such tenant'],
  [`posthorn_publish('a', '1', tenant => '../x')`, 'tenant: there is no such tenant'],
  [`posthorn_publish('a', '1', ordering_key => repeat('k', 256))`, 'ordering_key: '],
  [`posthorn_publish('a', '1', schema_version => '')`, 'schema_version: '],
  [`posthorn_publish('a', '1', deliver_at => now() + interval '31 days')`, 'deliver_at: '],
  [`posthorn_publish('a', '1', deliver_at => 'infinity')`, 'deliver_at: '],
  [`posthorn_publish('a', ('"' || repeat('x', 3000) || '"')::json)`, 'data'],
  [`posthorn_publish('a', (repeat('[', 70) || repeat(']', 70))::json)`, 'data: is not JSON'],
];

for (const [name, drain] of Object.entries(drains)) {
  describe(`drained by the ${name}`, () => {
    test('rows that cannot be events are put aside with the reason, and hold up nothing', async () => {
      const shop = await makeShop();
      await drain(shop, {}, async (api, server, relay) => {
        const acme = await api.createTenant({ id: 'acme', limits: { max_payload_bytes: 2048 } });
        await shop.sql(`begin; ${REFUSED.map(([call], i) => `select ${call}; select posthorn_publish('good', '${i}', ordering_key => 'k');`).join(' ')} commit`);
        await relay?.start();
        await drained(shop);
        const events = (await acme.all('/events')).reverse();
        assert.deepEqual(events.map(({ type, data }) => [type, data]), REFUSED.map((_, i) => ['good', i]));
        const reasons = (await shop.sql('select reason from posthorn_outbox_rejected order by seq')).split('\n');
        assert.equal(reasons.length, REFUSED.length);
        REFUSED.forEach(([call, begin], i) => assert.ok(reasons[i].startsWith(begin), `${call}: ${reasons[i]}`));
        if (!relay) {
          assert.equal(await metric(api, 'posthorn_source_rows_total{source="shop",outcome="rejected"}'), REFUSED.length);
          const accepted = () => metric(api, 'posthorn_source_rows_total{source="shop",outcome="accepted"}');
          await waitFor(async () => (await accepted()) === REFUSED.length, { what: 'the accepted rows to be counted' });
        }
        // Mended, as docs/producers.md says.
        const mended = `from posthorn_outbox_rejected where reason like 'tenant: %' and type = 'a'`;
        await shop.sql(`insert into posthorn_outbox (type, data, tenant) select type, data, 'acme' ${mended}; delete ${mended}`);
        await waitFor(async () => (await acme.all('/events')).length === REFUSED.length + 2, { what: 'the mended rows' });
      });
    });

    test('an event is what the row says, its data byte for byte', async () => {
      const shop = await makeShop();
      const data = '{"b": 1.50, "a":[1e2,"\\u00e9\\n"],  "b":null}';
      await drain(shop, {}, async (api, server, relay) => {
        const other = await api.createTenant({ id: 'other' });
        await shop.sql(`select posthorn_publish('order.paid', '${data}', tenant => 'other', ordering_key => 'k "1"', schema_version => '7', deliver_at => now() + interval '1 day')`);
        await relay?.start();
        await drained(shop);
        const { text } = await other.request('GET', '/events');
        const [event] = JSON.parse(text).data;
        assert.ok(text.includes(`"data":${data}`), text);
        assert.deepEqual([event.type, event.ordering_key, event.schema_version], ['order.paid', 'k "1"', '7']);
        assert.ok(Math.abs(Date.parse(event.deliver_at) - Date.now() - 86_400_000) < 600_000, event.deliver_at);
      });
    });

    test('a row that comes again folds into its event; one that says something else under its id is put aside', async () => {
      const shop = await makeShop();
      const insert = (data) => shop.sql(`insert into posthorn_outbox (id, type, data) values ('7c7f2f8e-0000-4000-8000-000000000001', 'a', '${data}')`);
      await drain(shop, {}, async (api, server, relay) => {
        const acme = await api.createTenant({ id: 'acme' });
        await relay?.start();
        for (const data of ['{"n":1}', '{"n":1}', '{"n":2}']) {
          await insert(data);
          await drained(shop);
        }
        assert.deepEqual((await acme.all('/events')).map(({ data }) => data), [{ n: 1 }]);
        const [rejected] = (await shop.sql('select data, reason from posthorn_outbox_rejected')).split('\n');
        assert.match(rejected, /^\{"n":2\}\|.*used before/);
      });
    });

    test("a tenant whose quota is used up waits, and holds up no other's rows", async () => {
      const shop = await makeShop();
      await drain(shop, {}, async (api, server, relay) => {
        await api.createTenant({ id: 'slow', limits: { events_per_second: 1 } });
        const fast = await api.createTenant({ id: 'fast' });
        await shop.sql(`select count(posthorn_publish('a', to_json(n), tenant => 'slow')) from generate_series(1, 2500) n`);
        await shop.sql(`select count(posthorn_publish('a', to_json(n), tenant => 'fast')) from generate_series(1, 700) n`);
        await relay?.start();
        await waitFor(async () => (await shop.sql(`select count(*) from posthorn_outbox where tenant = 'fast'`)) === '0', { what: "the fast tenant's rows to be taken" });
        const left = Number(await shop.sql(`select count(*) from posthorn_outbox where tenant = 'slow'`));
        assert.ok(left > 1300 && left <= 1500, `${left} of the slow tenant's rows wait`);
        assert.equal((await fast.all('/events')).length, 700);
        assert.equal(await shop.sql('select count(*) from posthorn_outbox_rejected'), '0');
      });
    });

    test('NOTIFY wakes it long before the next look, at whatever moment of its falling asleep', async () => {
      const shop = await makeShop();
      const client = await postgres.connect(shop.name);
      await drain(shop, { 'poll-ms': POLL_MS }, async (api, server, relay) => {
        await api.createTenant({ id: 'acme' });
        await relay?.start();
        await waitFor(() => asleep(shop), { what: 'it to sleep' });
        for (let i = 0; i < WAKINGS; i++) {
          await client.query(`select posthorn_publish('a', '${i}')`);
          const emptied = async () => (await client.query('select from posthorn_outbox')).rowCount === 0;
          await waitFor(emptied, { limit: BEFORE_POLL_MS, every: 1, what: `event ${i} to be taken` });
          await delay(30 + Math.random() * 50); // it sleeps some 50 ms after it has found nothing
        }
        await waitFor(() => asleep(shop), { what: 'it to sleep again' });
      }).finally(() => client.end());
    });

    test('a table of another name in another schema', async () => {
      const shop = await makeShop();
      await shop.sql('create schema sales');
      await shop.sql(await ddl('postgres', '--table', 'sales.events', '--notify=false'));
      await drain(shop, { table: 'sales.events' }, async (api, server, relay) => {
        const acme = await api.createTenant({ id: 'acme' });
        await relay?.start();
        await shop.sql(`select sales.events_publish('a', '1'); select sales.events_publish('no type', '1')`);
        await waitFor(async () => (await acme.all('/events')).length === 1, { what: 'the event' });
        await waitFor(async () => (await shop.sql('select count(*) from sales.events_rejected')) === '1', { what: 'the rejected row' });
      });
    });
  });
}

test('data that is no JSON is put aside, where the database let it in', async () => {
  const shop = await SqliteShop.start();
  try {
    await drains.server(shop, {}, async (api) => {
      const acme = await api.createTenant({ id: 'acme' });
      await shop.sql(`pragma ignore_check_constraints = on; insert into posthorn_publish (type, data, deliver_at) values ('a', '{', null), ('a', '1, "type": "b"', null), ('a', '1', 'soon'), ('good', x'31', null), ('late', '2', datetime('now', '+1 hour'))`);
      await waitFor(async () => (await shop.pending()) === 0, { what: 'the outbox to be empty' });
      assert.deepEqual((await acme.all('/events')).map(({ type, data }) => [type, data]), [['late', 2], ['good', 1]]);
      const reasons = (await shop.rejected()).map(([, , reason]) => reason);
      assert.equal(reasons.length, 3);
      for (const [i, begin] of ['data: is not JSON', 'data: is not JSON', 'deliver_at: '].entries()) assert.ok(reasons[i].startsWith(begin), reasons[i]);
    });
  } finally {
    await shop.remove();
  }
});

test('a database that is away is told in /readyz and /metrics, does not make the server unready, and is found again', async () => {
  const database = await Postgres.start();
  try {
    await database.sql(await ddl('postgres'));
    await drains.server({ url: database.url }, {}, async (api, server) => {
      const acme = await api.createTenant({ id: 'acme' });
      const source = async () => (await api.get('/readyz')).sources[0];
      await waitFor(async () => (await source()).state === 'running', { what: 'the source to run' });
      assert.deepEqual(await source(), { name: 'shop', kind: 'outbox', state: 'running', reason: null, lag_seconds: 0 });
      await database.kill();
      await waitFor(async () => (await source()).state === 'failing', { what: 'the source to fail' });
      await waitFor(async () => (await metric(api, 'posthorn_source_lag_seconds{source="shop"}')) > 0, { what: 'a lag' });
      assert.match((await source()).reason, /database/);
      assert.ok(!JSON.stringify(await source()).includes(database.folder), 'no address is shown without a key');
      await acme.expect(202, 'POST', '/events', { body: { type: 'a', data: 1 } });
      await database.start();
      await database.sql(`select posthorn_publish('a', '2')`);
      await waitFor(async () => (await acme.all('/events')).length === 2, { what: 'the event' });
      await waitFor(async () => (await source()).state === 'running', { what: 'the source to run again' });
      const faults = server.log.split('\n').filter((line) => / error .*source=shop/.test(line));
      assert.ok(faults.length >= 1 && faults.length <= 3, faults.join('\n'));
      assert.match(faults.at(-1), /advice=/);
    });
  } finally {
    await database.remove();
  }
});

test('a missing table is told with what to do, and found once it is made', async () => {
  const database = await Postgres.start();
  try {
    await drains.server({ url: database.url }, {}, async (api, server) => {
      await waitFor(() => /posthorn_outbox.* does not exist.*outbox ddl/.test(server.log), { what: 'the log to tell' });
      await database.sql(await ddl('postgres'));
      await waitFor(async () => (await api.get('/readyz')).sources[0].state === 'running', { what: 'the source to run' });
    });
  } finally {
    await database.remove();
  }
});

test('a MariaDB that is lax: nothing is cut off, replaced or misread in silence', async () => {
  const database = await MariaDb.start({ settings: { 'sql-mode': '', 'character-set-server': 'latin1', autocommit: 0 } });
  const client = await database.connect();
  try {
    await database.sql(await ddl('mysql'));
    const publish = (...values) => client.query('call posthorn_publish(?, ?, ?, ?, ?, ?)', values);
    await drains.server({ url: database.url }, {}, async (api) => {
      const acme = await api.createTenant({ id: 'acme' });
      await client.query('set autocommit = 1');
      await publish('a', '{"text":"日本 😀"}', null, '😀', null, null);
      await publish('a', '1', null, 'k'.repeat(300), null, null);
      await publish('a', '1', null, null, null, 'tomorrow');
      await publish('a', '2', null, null, null, '2001-01-01 00:00:00');
      await client.query("call posthorn_publish('a', '3', null, null, null, now() + interval 1 day)");
      await waitFor(async () => (await database.sql('select count(*) from posthorn_outbox')) === '0', { what: 'the outbox to be empty' });
      assert.deepEqual((await acme.all('/events')).reverse().map(({ data, ordering_key, deliver_at }) => [data, ordering_key, deliver_at !== null]),
        [[{ text: '日本 😀' }, '😀', false], [2, null, false], [3, null, true]]);
      const reasons = (await database.sql('select reason from posthorn_outbox_rejected order by seq')).split('\n');
      assert.deepEqual(reasons.map((reason) => reason.split(':')[0]), ['ordering_key', 'deliver_at']);
    });
  } finally {
    await client.end();
    await database.remove();
  }
});

test('a password comes from a file, and is told nowhere', async () => {
  const database = await MariaDb.start();
  const password = 'pass w0rd/@:%';
  const file = join(folder, 'password');
  try {
    await database.sql(await ddl('mysql'));
    await database.sql(`create user relay@localhost identified by '${password}'; grant all on shop.* to relay@localhost`);
    await writeFile(file, `${password}\n`);
    await chmod(file, 0o600);
    const url = database.url.replace('posthorn@', 'relay@');
    await drains.server({ url }, { 'password-file': file }, async (api, server) => {
      const acme = await api.createTenant({ id: 'acme' });
      await database.sql(`call posthorn_publish('a', '1', null, null, null, null)`);
      await waitFor(async () => (await acme.all('/events')).length === 1, { what: 'the event' });
    });
    const wrong = url.replace('relay@', 'relay:s3cret%2Fwrong@');
    await drains.server({ url: wrong }, {}, async (api, server) => {
      await waitFor(async () => (await api.get('/readyz')).sources[0].state === 'failing', { what: 'the source to fail' });
      await waitFor(() => /Access denied/.test(server.log), { what: () => `the log to tell\n${server.log}` });
      assert.ok(!/s3cret|wrong/.test(server.log), server.log);
    });
  } finally {
    await database.remove();
  }
});

test('an SQLite file whose lock a writer keeps is told of, and its rows come once', async () => {
  const shop = await SqliteShop.start();
  const writer = await shop.open();
  try {
    await writer.ask(`insert into posthorn_publish (type, data, tenant) values ('a', '1', 'acme')`);
    await writer.ask('begin immediate');
    await drains.server(shop, {}, async (api, server) => {
      const acme = await api.createTenant({ id: 'acme' });
      await waitFor(() => /held the file's lock for 10 s/.test(server.log), { what: () => `the log to tell\n${server.log}` });
      await writer.ask('commit');
      await waitFor(async () => (await shop.pending()) === 0, { what: 'the outbox to be empty' });
      assert.equal((await acme.all('/events')).length, 1);
    });
  } finally {
    await writer.close();
    await shop.remove();
  }
});

test('of an SQLite file one relay works, another stands by and takes over', async () => {
  const shop = await SqliteShop.start();
  const server = await Server.start();
  const relays = [new Relay(server, shop.url), new Relay(server, shop.url)];
  try {
    const acme = await new Api(server).createTenant({ id: 'acme' });
    for (const [i, said] of ['source runs', 'source stands by'].entries()) {
      await relays[i].start();
      await waitFor(() => relays[i].log.includes(said), { what: () => `"${said}"\n${relays[i].log}` });
    }
    await relays[0].kill();
    await shop.sql(`insert into posthorn_publish (type, data) values ('a', '1')`);
    await waitFor(async () => (await acme.all('/events')).length === 1, { what: () => `the event\n${relays[1].log}` });
    assert.equal(relays[1].log.split('stands by').length, 2, 'it is said once');
    assert.doesNotMatch(relays[1].log, / error /);
  } finally {
    for (const relay of relays) await relay.kill();
    await server.remove();
    await shop.remove();
  }
});

describe('posthorn outbox relay --once', () => {
  const once = (server, shop, { env = {}, flags = [] } = {}) =>
    run(['outbox', 'relay', '--once', '--tenant', 'acme', ...flags], {
      env: { POSTHORN_URL: server.url, POSTHORN_KEY: server.adminKey, POSTHORN_SOURCE_URL: shop.url, ...env },
    });

  test('ends when the outbox is empty', async () => {
    const shop = await makeShop();
    const server = await Server.start();
    try {
      const acme = await new Api(server).createTenant({ id: 'acme' });
      await shop.sql(`select count(posthorn_publish('a', to_json(n))) from generate_series(1, 1200) n`);
      assert.equal((await once(server, shop)).code, 0);
      assert.equal(await shop.sql('select count(*) from posthorn_outbox'), '0');
      assert.equal((await acme.all('/events')).length, 1200);
      assert.equal((await once(server, shop)).code, 0);
    } finally {
      await server.remove();
    }
  });

  test('says what does not work, ends with 3, and leaves the rows', async () => {
    const shop = await makeShop();
    const server = await Server.start();
    try {
      await new Api(server).createTenant({ id: 'acme' });
      await shop.sql(`select posthorn_publish('a', '1')`);
      const nobody = `http://127.0.0.1:${await closedPort()}`;
      const faults = [
        [{ env: { POSTHORN_KEY: 'wrong' } }, /does not let this key publish/],
        [{ env: { POSTHORN_URL: nobody } }, /server cannot be reached/],
        [{ env: { POSTHORN_SOURCE_URL: `postgres://posthorn@/none?host=${postgres.folder}` } }, /none.*does not exist/],
        [{ env: { POSTHORN_SOURCE_URL: `mysql://a:s3cret@127.0.0.1:${await closedPort()}/shop` } }, /cannot be reached/],
        [{ env: { POSTHORN_SOURCE_URL: 'sqlite:/nowhere/shop.db' } }, /unable to open/],
        [{ flags: ['--table', 'other'] }, /other.*does not exist/],
      ];
      for (const [options, said] of faults) {
        const { code, stderr } = await once(server, shop, options);
        assert.match(stderr, said);
        assert.equal(code, 3, stderr);
        assert.ok(!stderr.includes('s3cret'), stderr);
      }
      assert.equal(await shop.sql('select count(*) from posthorn_outbox'), '1');
    } finally {
      await server.remove();
    }
  });

  test('what is not posthorn rejects no row', async () => {
    const shop = await makeShop();
    const { startReceiver } = await import('../e2e/lib/receiver.mjs');
    await shop.sql(`select posthorn_publish('a', '1')`);
    for (const status of [200, 202, 301, 400, 404, 413, 422, 500]) {
      const other = await startReceiver([{ status, body: '{"type":"about:blank"}' }]);
      try {
        const { code, stderr } = await once({ url: other.url(''), adminKey: 'k' }, shop);
        assert.equal(code, 3, stderr);
        assert.match(stderr, /not posthorn/);
      } finally {
        await other.close();
      }
    }
    assert.equal(await shop.sql('select count(*) from posthorn_outbox'), '1');
  });

  test('wrong usage is told', async () => {
    const wrong = [
      [['outbox'], /relay/],
      [['outbox', 'ddl'], /--dialect/],
      [['outbox', 'ddl', '--dialect', 'oracle'], /postgres, mysql or sqlite/],
      [['outbox', 'ddl', '--dialect', 'sqlite', '--table', 'a b'], /--table a b/],
      [['outbox', 'relay'], /there is no key/],
      [['outbox', 'relay', '--key', 'k'], /there is no database/],
      [['outbox', 'relay', '--key', 'k', '--source-url', 'oracle://u:s3cret@h/d'], /url must begin with/],
      [['outbox', 'relay', '--key', 'k', '--source-url', 'sqlite:a', '--batch', '0'], /--batch 0: must be a number from 1 to 1000/],
      [['outbox', 'relay', '--key', 'k', '--source-url', 'sqlite:a', '--name', 'a b'], /--name a b/],
      [['outbox', 'drain'], /did you mean/],
    ];
    for (const [args, said] of wrong) {
      const { code, stderr } = await run(args);
      assert.equal(code, 2, args.join(' '));
      assert.match(stderr, said);
      assert.ok(!stderr.includes('s3cret'), stderr);
    }
  });
});
