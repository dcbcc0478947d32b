// posthorn outbox relay as a process of its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { BINARY, cleanEnvironment } from '../../e2e/lib/server.mjs';

const LOG_LIMIT = 64 * 1024;
const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

export class Relay {
  /** server: must keep its port over its restarts. */
  constructor(server, url, { tenant = 'acme', name = 'shop', flags = [] } = {}) {
    Object.assign(this, { server, url, tenant, name, flags });
    this.log = '';
  }

  async start() {
    const poll = this.flags.includes('--poll-ms') ? [] : ['--poll-ms', '20'];
    const args = ['outbox', 'relay', '--url', this.server.url, '--name', this.name, '--tenant', this.tenant, ...poll, ...this.flags];
    const child = spawn(BINARY, args, {
      env: cleanEnvironment({ POSTHORN_KEY: this.server.adminKey, POSTHORN_SOURCE_URL: this.url }), stdio: ['ignore', 'ignore', 'pipe'],
    });
    children.add(child);
    this.child = child;
    this.exited = once(child, 'close').then(([code]) => (children.delete(child), code));
    child.stderr.setEncoding('utf8').on('data', (text) => (this.log = (this.log + text).slice(-LOG_LIMIT)));
  }

  async kill(signal = 'SIGKILL') {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    return this.exited;
  }

  stop() {
    return this.kill('SIGTERM');
  }
}
