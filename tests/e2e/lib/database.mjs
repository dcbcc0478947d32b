// What the throw-away database servers of the tests have in common: a process in a temporary folder, on a socket there, never
// run as root.

import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { waitFor } from './wait.mjs';

const START_LIMIT_MS = 60_000; // after a kill it first recovers
const STOP_LIMIT_MS = 60_000;
const LOG_LIMIT = 64 * 1024;
const execute = promisify(execFile);

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** Who runs a server: nobody, when the tests are root, for these servers refuse to run as root. */
export const account = (() => {
  if (process.getuid() !== 0) return {};
  const [, , uid, gid] = execFileSync('getent', ['passwd', 'nobody'], { encoding: 'utf8' }).split(':');
  return { uid: Number(uid), gid: Number(gid) };
})();

export class Database {
  constructor() {
    this.child = null;
    this.log = '';
  }

  async makeFolder(kind) {
    this.folder = await mkdtemp(join(tmpdir(), `posthorn-${kind}-`));
    await chmod(this.folder, 0o755); // clients of another user come to the socket in it
    if (account.uid !== undefined) chownSync(this.folder, account.uid, account.gid);
  }

  /** Runs a program to its end as the server's user. */
  async execute(program, args) {
    const { stdout } = await execute(program, args, { ...account, cwd: this.folder, env: { PATH: process.env.PATH, HOME: this.folder, LC_ALL: 'C.UTF-8' } });
    return stdout;
  }

  /** Starts the server's process and waits until answers() says so. */
  async run(program, args, answers) {
    const child = spawn(program, args, {
      ...account, cwd: this.folder, stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH, HOME: this.folder, LC_ALL: 'C.UTF-8' },
    });
    children.add(child);
    this.child = child;
    this.exited = once(child, 'close').then(() => children.delete(child));
    const record = (text) => (this.log = (this.log + text).slice(-LOG_LIMIT));
    child.stdout.setEncoding('utf8').on('data', record);
    child.stderr.setEncoding('utf8').on('data', record);
    await waitFor(
      () => {
        if (!this.running) throw new Error(`${program} ended before it was ready:\n${this.log}`);
        return answers();
      },
      { limit: START_LIMIT_MS, every: 20, what: () => `${program} to answer:\n${this.log}` },
    );
  }

  get running() {
    return this.child !== null && this.child.exitCode === null && this.child.signalCode === null;
  }

  async end(signal) {
    if (this.running) this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_LIMIT_MS);
    await this.exited;
    clearTimeout(timer);
  }

  /** An orderly end; connections are cut. */
  stop() {
    return this.end(this.stopSignal);
  }

  async restart() {
    await this.stop();
    await this.start();
  }

  async remove() {
    if (this.child) await this.kill();
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
  }
}
