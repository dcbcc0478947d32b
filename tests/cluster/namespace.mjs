// A network namespace with two lines to this machine, one of which can be cut: as a node in another machine has them.

import { execFileSync } from 'node:child_process';

const ip = (...args) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
const LINES = ['a', 'b'];

export class Namespace {
  constructor() {
    this.name = `posthorn-${process.pid}`;
    // The range for tests of networks (RFC 2544); two of these may be made at one time.
    this.networks = LINES.map((_, i) => `198.18.${(process.pid % 120) * 2 + i}`);
  }

  /** Why there can be none here, or null. */
  static refusal() {
    const namespace = new Namespace();
    try {
      namespace.make();
      ip('netns', 'exec', namespace.name, 'true');
      return null;
    } catch (error) {
      return `network namespaces cannot be made here: ${String(error.stderr || error.message).trim()}`;
    } finally {
      namespace.remove();
    }
  }

  make() {
    ip('netns', 'add', this.name);
    ip('-n', this.name, 'link', 'set', 'lo', 'up');
    LINES.forEach((line, i) => {
      ip('link', 'add', this.#device(i), 'type', 'veth', 'peer', 'name', `line-${line}`, 'netns', this.name);
      ip('addr', 'add', `${this.outer(i)}/30`, 'dev', this.#device(i));
      ip('link', 'set', this.#device(i), 'up');
      ip('-n', this.name, 'addr', 'add', `${this.inner(i)}/30`, 'dev', `line-${line}`);
      ip('-n', this.name, 'link', 'set', `line-${line}`, 'up');
    });
  }

  #device(i) {
    return `ph${process.pid}${LINES[i]}`;
  }

  /** This machine's address on a line. */
  outer(i) {
    return `${this.networks[i]}.1`;
  }

  /** The namespace's address on a line. */
  inner(i) {
    return `${this.networks[i]}.2`;
  }

  /** For Server's `within`. */
  get within() {
    return ['ip', 'netns', 'exec', this.name];
  }

  cut(i) {
    ip('link', 'set', this.#device(i), 'down');
  }

  mend(i) {
    ip('link', 'set', this.#device(i), 'up');
  }

  /** With it its lines go. */
  remove() {
    try {
      ip('netns', 'del', this.name);
    } catch {
      // it was not made
    }
  }
}
