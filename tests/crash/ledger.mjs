/** What the outside knows: the subscriptions there are, and the events that were acknowledged with 202. */
export class Ledger {
  constructor() {
    this.subscriptions = [];
    this.acknowledged = new Map(); // event id → {tenant, type, number}
    this.fanOuts = [];
    this.numbers = 0;
  }

  subscribed(tenant, id, types) {
    this.subscriptions.push({ tenant, id, types });
  }

  acknowledge(id, event) {
    this.acknowledged.set(id, event);
    if (event.tenant === 'wide') this.fanOuts.push(id);
  }

  matching(tenant, type) {
    const matches = (pattern) => pattern === type || (pattern.endsWith('.*') && type.startsWith(pattern.slice(0, -1)));
    return this.subscriptions
      .filter((one) => one.tenant === tenant && (one.types.length === 0 || one.types.some(matches)))
      .map((one) => one.id);
  }
}
