// A throw-away MariaDB on a socket in a temporary folder: const db = await MariaDb.start(); db.url; await db.remove().

import { join } from 'node:path';

import mysql from 'mysql2/promise';

import { account, Database } from './database.mjs';

export class MariaDb extends Database {
  /** settings: of the server. The user is "posthorn", who may do anything and needs no password; the database is "shop". */
  constructor({ settings = {} } = {}) {
    super();
    this.stopSignal = 'SIGTERM';
    this.settings = { 'innodb-buffer-pool-size': '32M', 'innodb-log-file-size': '16M', 'max-connections': 60, ...settings };
  }

  static async start(options) {
    const server = new MariaDb(options);
    try {
      await server.makeFolder('maria');
      await server.execute('mariadb-install-db', ['--no-defaults', `--datadir=${server.data}`, '--skip-test-db', '--auth-root-authentication-method=normal', ...(account.uid === undefined ? [] : ['--user=nobody'])]);
      await server.start();
      await server.sql("create database shop; create user posthorn@localhost; grant all on *.* to posthorn@localhost with grant option", 'mysql', 'root');
    } catch (error) {
      await server.remove();
      throw error;
    }
    return server;
  }

  get data() {
    return join(this.folder, 'data');
  }

  get socket() {
    return join(this.folder, 'db.sock');
  }

  get url() {
    return `mysql://posthorn@localhost/shop?socket=${encodeURIComponent(this.socket)}`;
  }

  /** A client of the mysql2 package, as a producer in node has it. */
  async connect() {
    const client = await mysql.createConnection({ socketPath: this.socket, user: 'posthorn', database: 'shop' });
    client.connection.on('error', () => {}); // the server was killed: the next query says so, too
    return client;
  }

  async start() {
    const settings = Object.entries(this.settings).map(([name, value]) => `--${name}=${value}`);
    const args = ['--no-defaults', `--datadir=${this.data}`, `--socket=${this.socket}`, `--pid-file=${join(this.folder, 'pid')}`, '--skip-networking', ...settings];
    await this.run('/usr/sbin/mariadbd', args, () => this.sql('select 1', 'mysql', 'root').then(() => true, () => false));
  }

  async kill() {
    await this.end('SIGKILL');
  }

  /** Runs SQL and returns what it prints: tabs between columns, no headings. */
  sql(text, database = 'shop', user = 'posthorn') {
    return this.execute('mariadb', ['--no-defaults', `--socket=${this.socket}`, '-u', user, '-D', database, '-N', '-B', '-e', text]).then((out) => out.trim());
  }
}
