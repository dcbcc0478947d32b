import assert from 'node:assert/strict';

import { LONG_LIMIT_MS, waitFor } from '../e2e/lib/wait.mjs';

const KEYS = 2; // of each node
const PAUSE_MS = 150; // so that ordered deliveries keep up

/**
 * Publishes at every node all the time, as careful producers do: one event of a key after the other, each again with its
 * Idempotency-Key until it is acknowledged. Knows what must have come in the end, and in which order.
 */
export class Publishing {
  constructor(receiver) {
    this.receiver = receiver;
    this.views = []; // the tenant, as each node answers for it
    this.subscriptions = [];
    this.events = new Map(); // id of an acknowledged event → {key, i}
    this.published = 0;
    this.stopped = false;
  }

  run() {
    return Promise.all(this.views.flatMap((view, n) => Array.from({ length: KEYS }, (_, k) => this.#producer(view, `n${n}k${k}`))));
  }

  async #producer(view, key) {
    for (let i = 0; !this.stopped; i++) {
      await this.#publish(view, key, i);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  /** One event, out of turn. */
  once(view) {
    return this.#publish(view, `once-${this.published}`, 0);
  }

  async #publish(view, key, i) {
    const options = { headers: { 'idempotency-key': `${key}-${i}` }, body: { type: 'invoice.paid', data: { key, i }, ordering_key: key } };
    for (;;) {
      const answer = await view.request('POST', '/events', options).catch(() => null);
      if (answer?.status === 202) {
        this.events.set(answer.json.id, { key, i });
        this.published++;
        return;
      }
      assert.ok(!answer || answer.status === 503, answer?.text);
      if (this.stopped) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Waits until this many more events were acknowledged. */
  async acknowledged(count) {
    const wanted = this.published + count;
    await waitFor(() => this.published >= wanted, { limit: LONG_LIMIT_MS, what: () => `${wanted} events, last ${this.published}` });
  }

  async stop(published) {
    this.stopped = true;
    await published;
  }

  /** Takes back what the nodes do not know any more, and returns its ids. */
  async forget() {
    const gone = [];
    for (const id of this.events.keys()) {
      const { status } = await this.views[0].request('GET', `/events/${id}`);
      assert.ok(status === 200 || status === 404, `${status}`);
      if (status === 404) gone.push(id);
    }
    gone.forEach((id) => this.events.delete(id));
    return gone;
  }

  /** Every event has come to every subscription. */
  async arrived() {
    const paths = this.subscriptions.map((one) => new URL(one.url).pathname);
    const missing = () => {
      const seen = new Set(this.receiver.requests.map((request) => `${request.json.id} ${request.path}`));
      return [...this.events.keys()].flatMap((id) => paths.map((path) => `${id} ${path}`)).filter((one) => !seen.has(one));
    };
    await waitFor(() => missing().length === 0, { every: 200, what: () => `${missing().length} deliveries: ${missing().slice(0, 3)}` });
  }

  /** What came for the first time came in its key's order, for each subscription. */
  assertOrder() {
    const lanes = new Map();
    for (const { path, json } of this.receiver.requests) {
      const lane = `${path} ${json.data.key}`;
      lanes.set(lane, (lanes.get(lane) ?? new Set()).add(json.data.i));
    }
    for (const [lane, set] of lanes) {
      const came = [...set];
      assert.deepEqual(came, [...came].sort((a, b) => a - b), `the order of ${lane}`);
    }
  }
}
