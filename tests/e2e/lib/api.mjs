// A tiny client of the HTTP API: what a producer and an operator would write.

import assert from 'node:assert/strict';
import http from 'node:http';
import https from 'node:https';

import { waitFor } from './wait.mjs';

const REQUEST_LIMIT_MS = 60_000;
const TERMINAL = ['DELIVERED', 'DLQ'];
let tenants = 0;

/**
 * A policy that retries soon and without chance: attempts 1, 2, 3, 4 and then the dead-letter queue. A receiver has the time that a busy
 * machine gives it: an attempt that timed out is sent again, and tests count what comes.
 */
export const QUICK = { timeout_ms: 30_000, retry: { schedule_seconds: [0, 0, 1], jitter: 0 } };
/** Where a node dies: what it has sent is sent again once the attempt's lease has run out, which outlives the timeout. */
export const MORTAL = { ...QUICK, timeout_ms: 5000 };

/** Certificates of tests are signed by themselves; those that judge them do so on sockets of their own. */
function agentFor(url) {
  const options = { keepAlive: true, maxSockets: 64 };
  return url.startsWith('https:') ? new https.Agent({ ...options, rejectUnauthorized: false }) : new http.Agent(options);
}

export class Api {
  /** openapi: the document that every answer is held against. */
  constructor(server, { key, agent = agentFor(server.url), openapi = null } = {}) {
    Object.assign(this, { server, key, agent, openapi });
  }

  /**
   * body: a string or Buffer goes out as it is, anything else as JSON. key: null sends no authorization.
   * Answers {status, headers, text, json}; json is undefined when the answer is none.
   */
  async request(method, path, { body, headers = {}, key = this.key ?? this.server.adminKey } = {}) {
    const raw = body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    const options = {
      method,
      agent: this.agent,
      headers: {
        ...(raw === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(raw) }),
        ...(key === null ? {} : { authorization: `Bearer ${key}` }),
        ...headers,
      },
    };
    for (const name of Object.keys(options.headers)) {
      if (options.headers[name] === undefined) delete options.headers[name];
    }
    const response = await exchange(this.server.url + path, options, raw);
    this.openapi?.check(method, path, body, response);
    return response;
  }

  /** The request, with the status asserted; answers the parsed body. */
  async expect(status, method, path, options) {
    const response = await this.request(method, path, options);
    assert.equal(response.status, status, `${method} ${path} answered ${response.status}: ${response.text.slice(0, 2000)}`);
    return response.json;
  }

  get(path) {
    return this.expect(200, 'GET', path);
  }

  /** A tenant of its own keeps a test apart from all others. */
  async createTenant(fields = {}) {
    const id = fields.id ?? `t${process.pid}-${++tenants}`;
    await this.expect(201, 'POST', '/v1/tenants', { body: { id, name: id, ...fields } });
    return new Tenant(this, id);
  }
}

async function exchange(url, options, body) {
  try {
    return await exchangeOnce(url, options, body);
  } catch (error) {
    // A kept connection that the server closed while it was idle: nothing was answered on it.
    if (!['ECONNRESET', 'EPIPE'].includes(error.code) || !error.reusedSocket) throw error;
    return exchangeOnce(url, { ...options, agent: false }, body);
  }
}

function exchangeOnce(url, options, body) {
  return new Promise((resolve, reject) => {
    const request = (url.startsWith('https:') ? https : http).request(url, options);
    request.setTimeout(REQUEST_LIMIT_MS, () => request.destroy(new Error(`no answer from ${options.method} ${url}`)));
    request.on('error', (error) => reject(Object.assign(error, { reusedSocket: request.reusedSocket })));
    request.on('response', (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const isJson = /[/+]json\b/.test(response.headers['content-type'] ?? '');
        try {
          resolve({ status: response.statusCode, headers: response.headers, text, json: isJson && text ? JSON.parse(text) : undefined });
        } catch (error) {
          reject(new Error(`${options.method} ${url} answered broken JSON: ${text.slice(0, 500)}`, { cause: error }));
        }
      });
    });
    request.end(body);
  });
}

export class Tenant {
  constructor(api, id) {
    Object.assign(this, { api, id, path: `/v1/tenants/${id}` });
  }

  request(method, path, options) {
    return this.api.request(method, this.path + path, options);
  }

  expect(status, method, path, options) {
    return this.api.expect(status, method, this.path + path, options);
  }

  get(path) {
    return this.expect(200, 'GET', path);
  }

  subscribe(url, fields = {}) {
    return this.expect(201, 'POST', '/subscriptions', { body: { url, policy: QUICK, ...fields } });
  }

  subscription(id) {
    return this.get(`/subscriptions/${id}`);
  }

  change(subscriptionId, fields) {
    return this.expect(200, 'PATCH', `/subscriptions/${subscriptionId}`, { body: fields });
  }

  publish(type = 'invoice.paid', data = { amount: 1 }, fields = {}) {
    return this.expect(202, 'POST', '/events', { body: { type, data, ...fields } });
  }

  /** Publishes a body exactly as written. */
  publishText(text, headers = {}) {
    return this.expect(202, 'POST', '/events', { body: text, headers });
  }

  event(id) {
    return this.get(`/events/${id}`);
  }

  /** Every object of a list, over all its pages. */
  async all(path, query = {}) {
    const found = [];
    let cursor = null;
    do {
      const page = new URLSearchParams({ limit: '250', ...query, ...(cursor ? { cursor } : {}) });
      const answer = await this.get(`${path}?${page}`);
      found.push(...answer.data);
      cursor = answer.next_cursor;
    } while (cursor);
    return found;
  }

  deliveries(query = {}) {
    return this.all('/deliveries', query);
  }

  delivery(id) {
    return this.get(`/deliveries/${id}`);
  }

  attempts(deliveryId) {
    return this.all(`/deliveries/${deliveryId}/attempts`);
  }

  /**
   * Waits until a delivery is in `state` and returns it whole. `which` is its id, or the event it came from
   * (and the subscription, when there are several).
   */
  async waitDelivery(which, state = 'DELIVERED', options = {}) {
    const query = typeof which === 'string' ? null : { event_id: which.id ?? which.event_id };
    if (which.subscription_id) query.subscription_id = which.subscription_id;
    let last;
    return waitFor(
      async () => {
        last = query ? (await this.get(`/deliveries?${new URLSearchParams(query)}`)).data[0] : await this.delivery(which);
        if (last?.state === state) return this.delivery(last.id);
        if (TERMINAL.includes(last?.state) && TERMINAL.includes(state) && !options.mayPassTerminal) {
          throw new Error(`the delivery should be ${state} but ended ${JSON.stringify(last)}`);
        }
        return null;
      },
      { what: () => `a delivery in ${state}, last seen ${JSON.stringify(last)}`, ...options },
    );
  }
}
