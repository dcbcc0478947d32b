import assert from 'node:assert/strict';

import { GOOD } from './producer.mjs';

/** What a subscriber got, and how it compares with what was committed. */
export class Ledger {
  constructor() {
    this.seen = new Map(); // tx → {event, webhook, order, version}
    this.orders = new Map(); // order → versions in the order of their first arrival
    this.requests = 0;
    this.wrong = [];
  }

  /** For startReceiver: takes a request and says how to answer it. */
  take(request) {
    const { id: event, data } = request.json;
    const known = this.seen.get(data.tx);
    this.requests++;
    if (known) {
      // The same delivery may come again; the same change in another event is one that was invented.
      if (known.event !== event || known.webhook !== request.id) this.wrong.push(`${JSON.stringify(data)} came as ${event} and as ${known.event}`);
      return 204;
    }
    this.seen.set(data.tx, { event, webhook: request.id, ...data });
    if (!this.orders.has(data.order)) this.orders.set(data.order, []);
    this.orders.get(data.order).push(data.version);
    return 204;
  }

  /** How many of the committed changes have not come yet. */
  missing(committed) {
    return committed.filter(({ tx, type }) => type === GOOD && !this.seen.has(tx)).length;
  }

  /** None lost, none invented, none twice under another id, and of each order in the order of the commits. */
  compare(committed) {
    const good = new Map(committed.filter(({ type }) => type === GOOD).map((change) => [change.tx, change]));
    const invented = [...this.seen].filter(([tx]) => !good.has(tx)).map(([, one]) => one);
    const lost = [...good.values()].filter(({ tx }) => !this.seen.has(tx));
    assert.deepEqual(this.wrong.slice(0, 5), []);
    assert.deepEqual(invented.slice(0, 5), [], `${invented.length} invented`);
    assert.deepEqual(lost.slice(0, 5), [], `${lost.length} lost`);
    for (const { order, version, tx } of good.values()) {
      const got = this.seen.get(tx);
      assert.deepEqual([got.order, got.version], [order, version], tx);
    }
    for (const [order, versions] of this.orders) {
      const sorted = [...versions].sort((a, b) => a - b);
      assert.deepEqual(versions, sorted, `order ${order} came out of the order of its commits`);
    }
  }
}
