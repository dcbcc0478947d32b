// A throw-away PostgreSQL on a socket in a temporary folder: const pg = await Postgres.start(); pg.url; await pg.remove().

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';

import pg from 'pg';

import { Database } from './database.mjs';
import { waitFor } from './wait.mjs';

const ROOT = '/usr/lib/postgresql';
const PROGRAMS = process.env.POSTGRES_BIN ??
  (existsSync(ROOT) ? join(ROOT, readdirSync(ROOT).sort((a, b) => b - a)[0], 'bin') : '/usr/bin');

/** The letter that /proc has for a process's state; 'X' when there is none of this number. */
function stateOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '')[0];
  } catch {
    return 'X';
  }
}

/** Also one that nobody has asked after yet: it holds nothing any more. */
const hasEnded = (pid) => 'ZX'.includes(stateOf(pid));

export class Postgres extends Database {
  /**
   * settings: of postgresql.conf. Commits are durable, as a producer's are; wal_level is logical, so that changes can be read.
   * Everybody on the socket is trusted; the user is "posthorn", a superuser, and the database "shop".
   */
  constructor({ settings = {} } = {}) {
    super();
    this.stopSignal = 'SIGINT'; // the fast shutdown
    this.settings = {
      listen_addresses: '', unix_socket_permissions: '0777', wal_level: 'logical', max_connections: 60, shared_buffers: '32MB',
      max_wal_senders: 8, max_replication_slots: 8, autovacuum_naptime: 5, log_min_messages: 'warning', ...settings,
    };
  }

  static async start(options) {
    const server = new Postgres(options);
    try {
      await server.makeFolder('pg');
      await server.execute(join(PROGRAMS, 'initdb'), ['-D', server.data, '-U', 'posthorn', '-A', 'trust', '-E', 'UTF8', '--no-locale', '-N']);
      await server.start();
      await server.execute('psql', [...server.client, '-d', 'postgres', '-qc', 'create database shop']);
    } catch (error) {
      await server.remove();
      throw error;
    }
    return server;
  }

  /** Takes everybody from a network, where `listen_addresses` has one. */
  async trust(network) {
    await appendFile(join(this.data, 'pg_hba.conf'), `host all all ${network} trust\n`);
    await this.sql('select pg_reload_conf()');
  }

  /** One that follows this one, and can take its place. */
  async standby() {
    const server = new Postgres({ settings: this.settings });
    try {
      await server.makeFolder('pg');
      await server.execute(join(PROGRAMS, 'pg_basebackup'), [...this.client, '-D', server.data, '-R', '-X', 'stream', '-c', 'fast', '--no-sync']);
      await server.start();
    } catch (error) {
      await server.remove();
      throw error;
    }
    return server;
  }

  /** Commits wait from here on until a standby has them. */
  async waitForStandby() {
    await this.sql("alter system set synchronous_standby_names = '*'");
    await this.sql('select pg_reload_conf()');
    await waitFor(async () => (await this.sql('select sync_state from pg_stat_replication')) === 'sync', { every: 50, what: 'the standby to be waited for' });
  }

  /** Makes a primary of a standby. */
  promote() {
    return this.execute(join(PROGRAMS, 'pg_ctl'), ['-D', this.data, '-w', '-t', '60', '-s', 'promote']);
  }

  /** No standby is sent anything more: as over a line that stands still. Only kill() ends it. */
  async holdReplication() {
    const sender = await waitFor(async () => Number(await this.sql('select pid from pg_stat_replication')), { every: 50, what: 'the standby to follow' });
    process.kill(sender, 'SIGSTOP');
  }

  get data() {
    return join(this.folder, 'data');
  }

  /** For psql and pgbench. */
  get client() {
    return ['-h', this.folder, '-p', '5432', '-U', 'posthorn'];
  }

  /** Of the database "shop", for posthorn and for libpq. */
  get url() {
    return this.urlOf('shop');
  }

  urlOf(database) {
    return Postgres.urlOf(database, this);
  }

  /** Of whichever of these servers is the primary. */
  static urlOf(database, ...servers) {
    return `postgres://posthorn@/${database}?host=${servers.map((server) => encodeURIComponent(server.folder)).join(',')}`;
  }

  /** A client of the pg package, as a producer in node has it. */
  async connect(database = 'shop') {
    const client = new pg.Client({ host: this.folder, port: 5432, user: 'posthorn', database });
    client.on('error', () => {}); // the server was killed: the next query says so, too
    await client.connect();
    return client;
  }

  async start() {
    const settings = Object.entries(this.settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const args = ['-D', this.data, '-k', this.folder, '-p', '5432', ...settings];
    await this.run(join(PROGRAMS, 'postgres'), args, () => this.execute('pg_isready', ['-q', ...this.client]).then(() => true, () => false));
  }

  /** kill -9 of the postmaster; the others of its processes notice and end before this returns. */
  async kill() {
    const postmaster = this.child?.pid;
    // Standing still it starts no process that would be missed here and hold the folder against the next start.
    if (this.running && this.child.kill('SIGSTOP')) await waitFor(() => 'TtZX'.includes(stateOf(postmaster)), { every: 1, what: 'the server to stand still' });
    const session = this.#processes(postmaster);
    if (this.running) this.child.kill('SIGKILL');
    for (const pid of session) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // it ended by itself
      }
    }
    await this.exited;
    await waitFor(() => session.every(hasEnded), { what: 'the processes of the server to end' });
  }

  #processes(postmaster) {
    const children = `/proc/${postmaster}/task/${postmaster}/children`;
    return postmaster && existsSync(children) ? readFileSync(children, 'utf8').split(' ').filter(Boolean).map(Number) : [];
  }

  /** Runs SQL with psql and returns what it prints, unaligned and without headings. */
  sql(text, database = 'shop') {
    return this.execute('psql', [...this.client, '-d', database, '-v', 'ON_ERROR_STOP=1', '-qAtc', text]).then((out) => out.trim());
  }
}
