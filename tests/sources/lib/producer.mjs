import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';

import { ORDERS } from './shop.mjs';

const RECONNECT_MS = 20;

/** Of the changes' events: the first is good, the second is no type. */
export const GOOD = 'order.changed';
export const BAD = 'no type';

/** Changes orders at random over several connections, commits or rolls back, and comes back when the database was away. */
export class Producer {
  /** bad: the share of events that cannot be accepted. */
  constructor(shop, random, { connections = 4, rollback = 0.2, bad = 0.02, pause_ms = 0 } = {}) {
    Object.assign(this, { shop, random, connections, rollback, bad, pause_ms });
    this.done = 0; // transactions that were answered
    this.cut = 0; // whose end is not known
    this.clients = new Set();
  }

  start() {
    this.stopped = false;
    this.workers = Array.from({ length: this.connections }, () => this.#work());
  }

  async stop() {
    this.stopped = true;
    await Promise.all(this.workers);
  }

  /** kill -9 of a producer, where it is a process of its own. */
  kill() {
    for (const client of this.clients) client.kill?.();
  }

  async #work() {
    while (!this.stopped) {
      let client;
      try {
        client = await this.shop.connect();
        this.clients.add(client);
        while (!this.stopped) {
          await client.change({
            order: this.random.below(ORDERS),
            tx: randomUUID(),
            type: this.random.chance(this.bad) ? BAD : GOOD,
            rollback: this.random.chance(this.rollback),
          });
          this.done++;
          if (this.pause_ms) await delay(this.pause_ms);
        }
      } catch {
        this.cut++;
        await delay(RECONNECT_MS);
      }
      this.clients.delete(client);
      await client?.close().catch(() => {});
    }
  }
}
