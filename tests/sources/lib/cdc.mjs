// A server with a [source shop] of kind cdc, on a database of its own in a PostgreSQL that tests share.

import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Api } from '../../e2e/lib/api.mjs';
import { LOOPBACK_FLAGS, Server, temporaryFolder } from '../../e2e/lib/server.mjs';
import { LIMIT_MS, waitFor } from '../../e2e/lib/wait.mjs';

let databases = 0;

export const literal = (text) => `'${text.replaceAll("'", "''")}'`;

/** SQL that writes an event into the log. content: the message's text, or what becomes its JSON. */
export const emit = (content, transactional = true) =>
  `select pg_logical_emit_message(${transactional}, 'posthorn', ${literal(typeof content === 'string' ? content : JSON.stringify(content))})`;

export class Shop {
  /** sql: run in the new database before the server starts. settings: of the section; rule: a text or a list. */
  static async start(pg, { sql = '', settings = {}, publication = 'for all tables' } = {}) {
    const name = `shop${++databases}`;
    const shop = new Shop(pg, name, { slot: name, 'create-slot': 'true', tenant: 'acme', ...settings });
    try {
      await pg.sql(`create database ${name}`, 'postgres');
      await shop.sql(`${sql}; create publication posthorn ${publication}`);
      shop.folder = await temporaryFolder();
      await shop.configure();
      shop.server = new Server({ flags: [...LOOPBACK_FLAGS, '--config', join(shop.folder, 'posthorn.conf')] });
      await shop.server.start();
      shop.api = new Api(shop.server);
      shop.tenant = await shop.api.createTenant({ id: 'acme' });
      await waitFor(async () => (await shop.status()).state !== 'starting', { what: 'the source to start' });
    } catch (error) {
      await shop.remove();
      throw error;
    }
    return shop;
  }

  constructor(pg, database, settings) {
    Object.assign(this, { pg, database, settings: { kind: 'cdc', url: pg.urlOf(database), ...settings } });
  }

  /** Changes settings of the section; null takes one away. They hold from the next start of the server on. */
  async configure(changes = {}) {
    Object.assign(this.settings, changes);
    const lines = Object.entries(this.settings).flatMap(([name, value]) =>
      (Array.isArray(value) ? value : [value]).filter((one) => one !== null).map((one) => `${name} = ${one}`));
    await writeFile(join(this.folder, 'posthorn.conf'), `[source shop]\n${lines.join('\n')}\n`);
  }

  /** The server once more, with other settings. */
  async restart(changes) {
    await this.server.stop();
    await this.configure(changes);
    await this.server.start();
    this.reconnect();
  }

  /** After the server has another port. */
  reconnect() {
    this.api.agent.destroy();
    this.api = new Api(this.server);
    this.tenant.api = this.api;
  }

  sql(text) {
    return this.pg.sql(text, this.database);
  }

  async status() {
    return (await this.api.get('/readyz')).sources[0];
  }

  /** Waits until all that is committed has been accepted. */
  async caughtUp(limit = LIMIT_MS) {
    const lsn = await this.sql('select pg_current_wal_lsn()');
    await waitFor(
      async () => (await this.sql(`select confirmed_flush_lsn >= '${lsn}' from pg_replication_slots where slot_name = '${this.settings.slot}'`)) === 't',
      { limit, what: () => `the slot to be confirmed up to ${lsn}\n${this.server.log}` });
  }

  /** Waits until the source stands still for a reason, and returns what the log says of it. */
  async stopped(reason) {
    const standsStill = (status) => status.state === 'failing' && reason.test(status.reason ?? '');
    await waitFor(async () => standsStill(await this.status()), { what: () => `/readyz to say ${reason}\n${this.server.log}` });
    // The log comes another way than answers do, and may be behind them.
    return waitFor(() => this.server.log.split('\n').slice(0, -1).findLast((line) => reason.test(line)), { what: () => `the log to say ${reason}\n${this.server.log}` });
  }

  /** The events of a tenant, oldest first. */
  async events(tenant = 'acme') {
    return (await Object.assign(Object.create(this.tenant), { path: `/v1/tenants/${tenant}` }).all('/events')).reverse();
  }

  /** What became of rows: {accepted, duplicate, rejected}. */
  async rows() {
    const { text } = await this.api.request('GET', '/metrics');
    return Object.fromEntries([...text.matchAll(/^posthorn_source_rows_total\{source="shop",outcome="(\w+)"\} (\d+)$/gm)].map(([, name, n]) => [name, Number(n)]));
  }

  async rejected() {
    const text = await readFile(join(this.server.data, 'shop.rejected.jsonl'), 'utf8');
    return text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  }

  async remove() {
    this.api?.agent.destroy();
    await this.server?.remove();
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
    if (!this.pg.running) return;
    // The database itself goes with the others in the end. It notices some time after the server's end.
    await waitFor(() => this.pg.sql(`select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '${this.database}'`, 'postgres').then(() => true, () => false));
  }
}
