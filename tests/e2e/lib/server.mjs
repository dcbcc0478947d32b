// Runs the real program on a data folder of its own, and ends only the process it started.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { closedPort } from './receiver.mjs';
import { SharedStore } from './shared_store.mjs';
import { waitFor } from './wait.mjs';

export const BINARY =
  process.env.POSTHORN_BIN ?? fileURLToPath(new URL('../../../build/posthorn', import.meta.url));

/** What lets tests send to receivers on loopback. */
export const LOOPBACK_FLAGS = ['--allow-http', '--allow-address', '127.0.0.0/8', '--allow-port', '1-65535'];

const READY_LIMIT_MS = 60_000;
const EXIT_LIMIT_MS = 60_000;
const CHECK_LIMIT_MS = 240_000;
const LOG_LIMIT = 4 * 1024 * 1024; // tests read it whole: more than waiting for something adds at the level debug
const SHOWN_LIMIT = 20_000; // of a test that failed

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

const NEEDED = /^(PATH|HOME|TMPDIR|LD_\w+|[A-Z]+SAN_OPTIONS)$/;

/** What programs need of the tests' environment. A shell's own settings, locale, colours or proxies change nothing: they are on one machine and not on another. */
export function cleanEnvironment(extra) {
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => NEEDED.test(name)));
  return { ...environment, LC_ALL: 'C.UTF-8', ...extra };
}

export async function temporaryFolder() {
  return mkdtemp(join(tmpdir(), 'posthorn-e2e-'));
}

/** Runs the program to its end: for starts that are refused, and for commands. input: what it reads on standard input. */
export async function run(args, { env = {}, input, limit = READY_LIMIT_MS } = {}) {
  const child = spawn(BINARY, args, { env: cleanEnvironment(env), stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] });
  child.stdin?.on('error', () => {}).end(input); // it may end without having read all
  children.add(child);
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (text) => (output[name] += text));
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), limit);
  const [code, signal] = await once(child, 'close');
  clearTimeout(timer);
  children.delete(child);
  return { code, signal, ...output };
}

export class Server {
  /**
   * adminKey: POSTHORN_ADMIN_KEY; null lets the server make its own.
   * data: an existing folder, else a temporary one that remove() takes away.
   * damaged, when a test sets it: the store is not looked at in the end.
   * fixedPort: every start listens on the first one's port, which nobody else is given between two of them.
   * within: a command that runs the one behind it, such as ['env', 'A=1'].
   */
  constructor({ adminKey = 'e2e-admin-key-0123456789abcdef', data, flags = LOOPBACK_FLAGS, env = {}, fixedPort = false, within = [] } = {}) {
    Object.assign(this, { givenKey: adminKey, data, flags, env, fixedPort, within });
    this.ownsData = data === undefined;
    this.damaged = false;
    this.url = null;
    this.child = null;
    this.log = '';
    this.logged = 0;
  }

  static async start(options) {
    const server = new Server(options);
    try {
      await server.start();
    } catch (error) {
      await server.remove();
      throw error;
    }
    return server;
  }

  get running() {
    return this.child !== null && this.child.exitCode === null && this.child.signalCode === null;
  }

  get adminKey() {
    return this.givenKey ?? readFileSync(join(this.data, 'admin.key'), 'utf8').trim();
  }

  /** Starts the process without waiting until it is ready. */
  async spawn() {
    if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: run script/build first`);
    this.data ??= await temporaryFolder();
    if (this.fixedPort) this.port ??= await closedPort();
    this.store ??= this.flags.includes('--store') ? null : await SharedStore.of(this.data);
    // A server that was killed is waited for as long as this before its lanes are taken up.
    const store = this.store ? ['--store', this.store.url, '--node-lease-ms', '2000'] : [];
    const args = ['serve', '--data', this.data, '--listen', `127.0.0.1:${this.port ?? 0}`, ...store, ...this.flags];
    const env = { ...(this.givenKey === null ? {} : { POSTHORN_ADMIN_KEY: this.givenKey }), ...this.env };
    const [command, ...rest] = [...this.within, BINARY, ...args];
    const child = spawn(command, rest, { env: cleanEnvironment(env), stdio: ['ignore', 'pipe', 'pipe'] });
    children.add(child);
    this.child = child;
    this.exited = once(child, 'close').then(([code, signal]) => {
      children.delete(child);
      return { code, signal };
    });
    this.stdout = '';
    this.stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text) => this.#record('stdout', text));
    child.stderr.setEncoding('utf8').on('data', (text) => this.#record('stderr', text));
  }

  #record(name, text) {
    this[name] = (this[name] + text).slice(-LOG_LIMIT);
    this.log = (this.log + text).slice(-LOG_LIMIT);
    this.logged += text.length;
  }

  /** What it said since `logged` was so much: the end of it, when it was a lot. */
  saidSince(logged) {
    const length = Math.min(this.logged - logged, SHOWN_LIMIT);
    return length > 0 ? this.log.slice(-length) : '';
  }

  async start() {
    await this.spawn();
    await this.ready();
  }

  /** Waits for the line that says ready and carries the address, and for /readyz. */
  async ready() {
    const line = await waitFor(
      () => {
        if (!this.running) throw new Error(`the server ended before it was ready:\n${this.stderr}`);
        return this.stderr.match(/^.*\bready\b.*https?:\/\/[\w.[\]:-]+.*$/m)?.[0];
      },
      { limit: READY_LIMIT_MS, every: 5, what: () => `a "ready" line with an address on stderr:\n${this.stderr}` },
    );
    this.url = line.match(/https?:\/\/[\w.[\]:-]+/)[0];
    await waitFor(async () => (await this.#status('/readyz')) === 200, {
      limit: READY_LIMIT_MS, every: 5, what: '/readyz to answer 200',
    });
  }

  #status(path) {
    return new Promise((resolve) => {
      (this.url.startsWith('https:') ? https : http)
        .get(this.url + path, { agent: false, rejectUnauthorized: false }, (response) => resolve(response.resume().statusCode))
        .on('error', () => resolve(0));
    });
  }

  /** Asks the server to stop and returns how it ended. */
  async stop(signal = 'SIGTERM') {
    if (this.running) this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), EXIT_LIMIT_MS);
    const ended = await this.exited;
    clearTimeout(timer);
    return ended;
  }

  /** kill -9: the server gets no chance to say goodbye. */
  async kill() {
    return this.stop('SIGKILL');
  }

  async restart() {
    await this.stop();
    await this.start();
  }

  /** Holds that everything in the store is as it should be: also of one that was killed, or runs. */
  async assertSound() {
    if (!this.store && !existsSync(join(this.data, 'posthorn.db'))) return;
    const where = this.store ? ['--store', this.store.url] : [];
    const { code, stdout, stderr } = await run(['check', '--data', this.data, ...where], { limit: CHECK_LIMIT_MS });
    if (code !== 0) throw new Error(`the store is not sound:\n${stdout}${stderr}`);
  }

  /** Ends the process if it still runs, looks whether it leaves a sound store if it was ever ready, and removes the data folder. */
  async remove() {
    if (this.child) await this.kill();
    try {
      if (this.url && !this.damaged) await this.assertSound();
    } finally {
      if (this.ownsData) await this.store?.remove();
      if (this.ownsData && this.data) await rm(this.data, { recursive: true, force: true });
    }
  }
}
