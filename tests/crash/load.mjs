import assert from 'node:assert/strict';
import http from 'node:http';

import { Api } from '../e2e/lib/api.mjs';

const CONNECTIONS = 8;
const EVENTS_MAX = 400; // a round, so that deliveries keep up with it
const KEYED = 0.3;
const BATCHED = 0.1;
const BATCH = 5;
const REPEATS_MAX = 20;

/** Publishes over several connections until the server is killed, and writes down what was acknowledged. */
export class Load {
  constructor(server, tenants, ledger, random) {
    Object.assign(this, { server, tenants, ledger, random });
    this.keyed = []; // {key, event, id?}: with an Idempotency-Key, so it may be sent again
    this.unanswered = 0;
    this.sent = 0;
    this.killed = false;
  }

  async run({ fansOut, kill_after_ms }) {
    const agents = Array.from({ length: CONNECTIONS }, () => new http.Agent({ keepAlive: true, maxSockets: 1 }));
    const connections = agents.map((agent) => this.#connection(new Api(this.server, { agent })));
    await new Promise((resolve) => setTimeout(resolve, kill_after_ms));
    // A fan-out is published right before the kill.
    if (fansOut) {
      const api = new Api(this.server);
      const event = this.#event('wide', 'wide.all');
      const publishing = this.#publish(api, event);
      if (this.random.chance(0.7)) await publishing;
      await new Promise((resolve) => setTimeout(resolve, this.random.below(120)));
      await this.#kill();
      await publishing;
      api.agent.destroy();
    } else {
      await this.#kill();
    }
    await Promise.all(connections);
    for (const agent of agents) agent.destroy();
  }

  async #kill() {
    this.killed = true;
    await this.server.kill();
  }

  async #connection(api) {
    while (!this.killed && this.sent < EVENTS_MAX) {
      const type = this.random.chance(0.5) ? 'load.a' : 'load.b.c';
      if (this.random.chance(BATCHED)) {
        await this.#publishBatch(api, Array.from({ length: BATCH }, () => this.#event('load', type)));
      } else {
        await this.#publish(api, this.#event('load', type));
      }
    }
  }

  #event(tenant, type) {
    const number = ++this.ledger.numbers;
    this.sent++;
    return { tenant, type, number, body: JSON.stringify({ type, data: { number, filler: 'x'.repeat(this.random.below(500)) } }) };
  }

  async #publish(api, event) {
    const key = this.random.chance(KEYED) ? `key-${event.number}` : null;
    const entry = { key, event };
    if (key) this.keyed.push(entry);
    const answer = await this.#send(api, event, key);
    if (answer) entry.id = answer.id;
  }

  async #send(api, event, key) {
    const headers = key ? { 'idempotency-key': key } : {};
    const response = await this.#request(api, `/v1/tenants/${event.tenant}/events`, event.body, headers);
    if (response) this.ledger.acknowledge(response.json.id, event);
    return response?.json;
  }

  async #publishBatch(api, events) {
    const response = await this.#request(api, '/v1/tenants/load/events/batch', `[${events.map((event) => event.body)}]`, {});
    response?.json.data.forEach(({ id }, i) => this.ledger.acknowledge(id, events[i]));
  }

  /** The answer when it is a 202; nothing when the server was overloaded or died meanwhile. */
  async #request(api, path, body, headers) {
    try {
      const response = await api.request('POST', path, { body, headers });
      if (response.status === 503) return undefined;
      assert.equal(response.status, 202, response.text);
      return response;
    } catch (error) {
      if (!this.killed || error instanceof assert.AssertionError) throw error;
      this.unanswered++;
      return undefined;
    }
  }

  /**
   * After the restart: what was published with a key is published again, as a careful producer would. What had been
   * acknowledged answers the same id as a duplicate, what had not is acknowledged now.
   */
  async repeatWithKeys() {
    this.killed = false;
    const api = new Api(this.server);
    const repeated = [...this.keyed.filter(({ id }) => !id), ...this.keyed.filter(({ id }) => id).slice(-REPEATS_MAX)];
    await Promise.all(
      repeated.map(async ({ key, event, id }) => {
        const answer = await this.#send(api, event, key);
        assert.ok(answer, `${key} was not taken after the restart`);
        if (!id) return;
        assert.equal(answer.id, id, `${key} had been acknowledged as ${id}`);
        assert.equal(answer.duplicate, true, `${key} had been acknowledged`);
      }),
    );
    api.agent.destroy();
  }
}
