// Producers' databases: a shop whose orders change, each change with an event in the same transaction. What the database holds
// in the end is the truth that deliveries are compared with; nobody has to know whether a COMMIT that got no answer happened.
//
// A shop has: prepare(), connect() → a client with change({order, tx, type, rollback}) and close(), committed(), rejected(),
// pending(), url, database (kill, start; null when there is no process to kill).

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { MariaDb } from '../../e2e/lib/mariadb.mjs';
import { Postgres } from '../../e2e/lib/postgres.mjs';
import { run, temporaryFolder } from '../../e2e/lib/server.mjs';

export const ORDERS = 20;
const SQL_LIMIT_MS = 30_000;

const TABLES = `
  create table orders (id int primary key, version int not null);
  create table changes (order_id int not null, version int not null, tx varchar(40) not null, type varchar(40) not null);`;
const FIRST = `insert into orders values ${Array.from({ length: ORDERS }, (_, i) => `(${i}, 0)`).join(', ')};`;

export async function ddl(dialect, ...flags) {
  const { code, stdout, stderr } = await run(['outbox', 'ddl', '--dialect', dialect, ...flags]);
  if (code !== 0) throw new Error(stderr);
  return stdout;
}

const rows = (text, separator) => text.split('\n').filter(Boolean).map((line) => line.split(separator));
const asChange = ([order, version, tx, type]) => ({ order: Number(order), version: Number(version), tx, type });

/** What the shops on a server have in common: sql(text), which prints with `separator` between columns. */
class ServerShop {
  constructor(database, separator) {
    Object.assign(this, { database, separator });
  }

  get url() {
    return this.database.url;
  }

  sql(text) {
    return this.database.sql(text);
  }

  async committed() {
    return rows(await this.sql('select order_id, version, tx, type from changes'), this.separator).map(asChange);
  }

  /** Rows that were refused: {key, reason}. */
  async rejected() {
    return rows(await this.sql('select ordering_key, type, reason from posthorn_outbox_rejected'), this.separator);
  }

  async pending() {
    return Number(await this.sql('select count(*) from posthorn_outbox'));
  }

  remove() {
    return this.database.remove();
  }
}

/**
 * emit(client, {type, data, ordering_key}): how an event is emitted within the transaction; by default through the outbox's
 * helper. prepare(sql): what that needs.
 */
export class PostgresShop extends ServerShop {
  static async start({ emit = publishPostgres, prepare = async (shop) => shop.sql(await ddl('postgres')), settings } = {}) {
    const shop = new PostgresShop(await Postgres.start({ settings }), '|');
    shop.emit = emit;
    await shop.sql(TABLES + FIRST);
    await prepare(shop);
    return shop;
  }

  async connect() {
    const client = await this.database.connect();
    return {
      change: async ({ order, tx, type, rollback }) => {
        await client.query('begin');
        const { rows: [{ version }] } = await client.query('update orders set version = version + 1 where id = $1 returning version', [order]);
        await client.query('insert into changes values ($1, $2, $3, $4)', [order, version, tx, type]);
        await this.emit(client, { type, data: { order, version, tx }, ordering_key: String(order) });
        await client.query(rollback ? 'rollback' : 'commit');
      },
      close: () => client.end(),
    };
  }
}

function publishPostgres(client, { type, data, ordering_key }) {
  return client.query('select posthorn_publish($1, $2, ordering_key => $3)', [type, JSON.stringify(data), ordering_key]);
}

export class MariaDbShop extends ServerShop {
  static async start({ settings } = {}) {
    const shop = new MariaDbShop(await MariaDb.start({ settings }), '\t');
    await shop.sql(TABLES + FIRST);
    await shop.sql(await ddl('mysql'));
    return shop;
  }

  async connect() {
    const client = await this.database.connect();
    return {
      change: async ({ order, tx, type, rollback }) => {
        await client.query('start transaction');
        await client.query('update orders set version = version + 1 where id = ?', [order]);
        const [[{ version }]] = await client.query('select version from orders where id = ?', [order]);
        await client.query('insert into changes values (?, ?, ?, ?)', [order, version, tx, type]);
        await client.query('call posthorn_publish(?, ?, null, ?, null, null)', [type, JSON.stringify({ order, version, tx }), String(order)]);
        await client.query(rollback ? 'rollback' : 'commit');
      },
      close: () => client.end(),
    };
  }
}

/** Producers are sqlite3 processes, fed through standard input; to be killed like any other. */
export class SqliteShop {
  static async start() {
    const shop = new SqliteShop();
    shop.database = null;
    shop.folder = await temporaryFolder();
    shop.file = join(shop.folder, 'shop.db');
    await shop.sql(`pragma journal_mode = wal; ${TABLES} ${FIRST}`);
    await shop.sql(await ddl('sqlite'));
    return shop;
  }

  get url() {
    return `sqlite:${this.file}`;
  }

  async sql(text) {
    const client = await this.open();
    try {
      return await client.ask(text);
    } finally {
      await client.close();
    }
  }

  async open() {
    const child = spawn('sqlite3', ['-batch', '-separator', '|', this.file], { stdio: ['pipe', 'pipe', 'pipe'] });
    const ended = once(child, 'close');
    let output = '';
    let problem = '';
    let asked = null;
    let number = 0;
    const settle = () => {
      const mark = asked && output.indexOf(asked.mark);
      if (!asked || mark < 0) return;
      const { resolve, reject } = asked;
      const answer = output.slice(0, mark).trim();
      asked = null;
      output = '';
      if (problem) reject(new Error(problem));
      else resolve(answer);
      problem = '';
    };
    child.stdin.on('error', () => {});
    child.stderr.setEncoding('utf8').on('data', (text) => (problem += text));
    child.stdout.setEncoding('utf8').on('data', (text) => ((output += text), settle()));
    ended.then(() => asked?.reject(new Error('sqlite3 ended')));
    const ask = (text) =>
      new Promise((resolve, reject) => {
        asked = { mark: `done ${++number}\n`, resolve, reject };
        child.stdin.write(`${text};\nselect 'done ${number}';\n`);
      });
    await ask(`.timeout ${SQL_LIMIT_MS}\npragma synchronous = full`);
    const close = async () => {
      child.stdin.end();
      await ended;
    };
    return { ask, close, kill: () => child.kill('SIGKILL') };
  }

  async connect() {
    const client = await this.open();
    return {
      change: ({ order, tx, type, rollback }) =>
        client.ask(`begin immediate;
          update orders set version = version + 1 where id = ${order};
          insert into changes select id, version, '${tx}', '${type}' from orders where id = ${order};
          insert into posthorn_publish (type, data, ordering_key)
            select '${type}', json_object('order', id, 'version', version, 'tx', '${tx}'), id from orders where id = ${order};
          ${rollback ? 'rollback' : 'commit'}`),
      close: client.close,
      kill: client.kill,
    };
  }

  async committed() {
    return rows(await this.sql('select order_id, version, tx, type from changes'), '|').map(asChange);
  }

  async rejected() {
    return rows(await this.sql('select ordering_key, type, reason from posthorn_outbox_rejected'), '|');
  }

  async pending() {
    return Number(await this.sql('select count(*) from posthorn_outbox'));
  }

  async remove() {
    await rm(this.folder, { recursive: true, force: true });
  }
}
