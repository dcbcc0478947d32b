import assert from 'node:assert/strict';

/** Every FAILING-th event fails on its first attempt, so that retries are in the air when the server dies. */
const FAILING = 41;

/** What the subscribers saw, and whether it makes sense. */
export class Inbox {
  constructor() {
    this.requests = 0;
    this.duplicates = 0; // came again though it had been answered 2xx
    this.seen = new Map(); // webhook-id → {event, path, answered}
    this.pairs = new Map(); // event and path → webhook-id
    this.events = new Map(); // number in the payload → event id
    this.counts = new Map(); // event id → how many subscribers saw it
    this.wrong = [];
  }

  get distinct() {
    return this.seen.size;
  }

  /** Takes a request and says how to answer it. */
  take(request) {
    this.requests++;
    const { id: event, data } = request.json;
    const known = this.seen.get(request.id);
    if (known) {
      if (known.event !== event || known.path !== request.path) this.wrong.push(`${request.id} names ${event} and ${known.event}`);
    } else {
      const pair = `${event} ${request.path}`;
      if (this.pairs.has(pair)) this.wrong.push(`${pair} came as ${request.id} and ${this.pairs.get(pair)}`);
      this.pairs.set(pair, request.id);
      this.seen.set(request.id, { event, path: request.path, answered: false });
      this.counts.set(event, this.count(event) + 1);
      const same = this.events.get(data.number);
      if (same !== undefined && same !== event) this.wrong.push(`number ${data.number} is in ${event} and ${same}`);
      this.events.set(data.number, event);
    }
    if (request.headers['posthorn-event-id'] !== event) this.wrong.push(`${request.id} has the event id of another`);
    if (data.number % FAILING === 0 && request.attempt === 1) return 500;
    if (known?.answered) this.duplicates++;
    this.seen.get(request.id).answered = true;
    return 204;
  }

  count(event) {
    return this.counts.get(event) ?? 0;
  }

  eventOf(webhookId) {
    const { event, answered } = this.seen.get(webhookId) ?? {};
    return answered ? event : undefined;
  }

  assertSane() {
    assert.deepEqual(this.wrong.slice(0, 10), []);
  }
}
