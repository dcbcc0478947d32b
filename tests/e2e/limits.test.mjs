// Clients that are slow, many or large: each meets a limit, and nobody else notices.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { describe } from 'node:test';

import { Api } from './lib/api.mjs';
import { makeCertificate } from './lib/certificate.mjs';
import { LOOPBACK_FLAGS, temporaryFolder } from './lib/server.mjs';
import { ONLY_A_FILE } from './lib/shared_store.mjs';
import { stallStore } from './lib/stall.mjs';
import { assertProblem } from './lib/shape.mjs';
import { lifecycleTest, suite } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const SLOW = ['--head-timeout-ms', '600', '--body-timeout-ms', '600'];
const DRIP_MS = 50;

/** A raw connection that keeps what came, and knows when it was closed. */
async function connect(server) {
  const socket = net.connect(new URL(server.url).port, '127.0.0.1');
  const client = { socket, text: '', closed: false };
  socket.setEncoding('latin1').on('data', (text) => (client.text += text));
  socket.on('error', () => {}).on('close', () => (client.closed = true));
  await once(socket, 'connect');
  client.status = () => Number(client.text.match(/^HTTP\/1\.1 (\d+)/)?.[1]);
  client.answers = () => client.text.match(/HTTP\/1\.1 \d+/g)?.length ?? 0;
  return client;
}

/** Sends a byte now and then, so that the connection is never idle, until it is closed; how many bytes went out. */
async function drip(client, byte = 'a') {
  let sent = 0;
  const timer = setInterval(() => client.socket.writable && client.socket.write(byte) && sent++, DRIP_MS);
  try {
    await waitFor(() => client.closed, { what: 'the slow connection to be cut off' });
  } finally {
    clearInterval(timer);
    client.socket.destroy();
  }
  return sent;
}

const head = (server, path, length) =>
  `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${server.adminKey}\r\n` +
  `Content-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`;

describe('slow clients', () => {
  lifecycleTest('a head that drips in is cut off, the first and a later one', async ({ start }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, ...SLOW] });
    const first = await connect(server);
    first.socket.write('GET /healthz HTTP/1.1\r\nX-Slow: ');
    assert.ok((await drip(first)) > 0, 'bytes went out meanwhile');
    assert.equal(first.text, '');

    const line = await connect(server);
    await drip(line, 'G'); // not even a request line
    assert.equal(line.answers(), 0);

    // The first head of a connection may be late where the machine is: then another one.
    const later = await waitFor(async () => {
      const client = await connect(server);
      client.socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
      await waitFor(() => client.closed || client.status() === 200, { what: 'the first answer, or the end' });
      return client.status() === 200 && client;
    }, { what: 'a first answer' });
    later.socket.write('GET /healthz HTTP/1.1\r\nX-Slow: ');
    await drip(later);
    assert.equal(later.answers(), 1);
    assert.ok(server.running);
  });

  lifecycleTest('a body that drips in is cut off, and has no effect', async ({ start }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, ...SLOW] });
    const tenant = await new Api(server).createTenant();
    for (const key of [server.adminKey, 'wrong']) {
      const slow = await connect(server);
      slow.socket.write(head({ adminKey: key }, `${tenant.path}/events`, 5000));
      slow.socket.write('{"type":"invoice.paid","data":"');
      assert.ok((await drip(slow)) > 0);
      assert.notEqual(slow.status(), 202);
    }
    assert.equal((await tenant.all('/events')).length, 0);
    // Who takes his time, but not too much, is served. (This machine may be what takes too much: then once more.)
    await waitFor(async () => {
      const patient = await connect(server);
      const body = '{"type":"invoice.paid","data":1}';
      const whole = head(server, `${tenant.path}/events`, body.length) + body;
      for (let at = 0; at < whole.length; at += 80) {
        patient.socket.write(whole.slice(at, at + 80));
        await new Promise((resolve) => setImmediate(resolve));
      }
      await waitFor(() => patient.closed || patient.status(), { what: 'an answer, or the end' });
      patient.socket.destroy();
      return patient.status() === 202;
    }, { what: 'a patient publish to be taken' });
    tenant.api.agent.destroy();
  });

  lifecycleTest('many slow connections keep nobody else waiting', async ({ start }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--head-timeout-ms', '3000'] });
    const slow = await Promise.all(Array.from({ length: 300 }, () => connect(server)));
    for (const client of slow) client.socket.write('POST /v1/tenants HTTP/1.1\r\nX-Slow: ');
    const tenant = await new Api(server).createTenant();
    for (let i = 0; i < 20; i++) await tenant.publish();
    await waitFor(() => slow.every((client) => client.closed), { what: 'all slow connections to be cut off' });
    tenant.api.agent.destroy();
  });

  lifecycleTest('a TLS handshake that does not end is cut off', async ({ start }) => {
    const folder = await temporaryFolder();
    try {
      const { certificate, key } = await makeCertificate(folder, 'limits');
      const server = await start({ flags: [...LOOPBACK_FLAGS, ...SLOW, '--tls-certificate', certificate, '--tls-key', key] });
      const silent = await connect(server);
      await waitFor(() => silent.closed, { what: 'a silent client to be cut off' });
      const slow = await connect(server);
      slow.socket.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01])); // the beginning of a ClientHello
      await drip(slow, '\x00');
      const tenant = await new Api(server).createTenant();
      await tenant.publish();
      tenant.api.agent.destroy();
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('many connections', () => {
  lifecycleTest('one address may open so many, and more once one has ended', async ({ start }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--connections-per-client-max', '4'] });
    const ask = async () => {
      const client = await connect(server);
      client.socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
      await waitFor(() => client.closed || client.status() === 200, { what: 'an answer, or the end' });
      return client;
    };
    const open = [];
    // What the harness itself had open ends meanwhile.
    await waitFor(async () => {
      const client = await ask();
      if (!client.closed) open.push(client);
      return open.length === 4;
    }, { what: 'four connections' });
    const fifth = await ask();
    assert.ok(fifth.closed && fifth.answers() === 0, 'the fifth is closed at once');
    open.pop().socket.destroy();
    await waitFor(async () => {
      const client = await ask();
      if (!client.closed) open.push(client);
      return !client.closed;
    }, { what: 'a place that became free' });
    for (const client of open) client.socket.destroy();
  });

  lifecycleTest('in all, more wait until one ends', async ({ start }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--connections-max', '16', '--api-threads', '1'] });
    const clients = await Promise.all(Array.from({ length: 40 }, () => connect(server)));
    const answered = () => clients.filter((client) => client.status() === 200);
    for (const client of clients) client.socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
    await waitFor(() => answered().length >= 10, { what: 'the first answers' });
    assert.ok(answered().length <= 16);
    await waitFor(() => {
      for (const client of answered()) client.socket.destroy();
      return answered().length === 40;
    }, { what: 'all to be served in turn' });
  });

  // libmicrohttpd takes so many events at a time, and would wait for the next before it looks at them.
  lifecycleTest('128 that ask in the same moment are all answered', async ({ start }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--api-threads', '1'] });
    const clients = await Promise.all(Array.from({ length: 128 }, () => connect(server)));
    const ask = (client) => new Promise((sent) => client.socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n', sent));
    const answered = (times) => waitFor(() => clients.every((client) => client.answers() === times), { what: `answer ${times} to all` });
    await Promise.all(clients.map(ask));
    await answered(1);
    server.child.kill('SIGSTOP');
    await Promise.all(clients.map(ask));
    server.child.kill('SIGCONT');
    await answered(2);
    for (const client of clients) client.socket.destroy();
  });
});

describe('a store that stands still', { skip: ONLY_A_FILE }, () => {
  lifecycleTest('what the queue has no room for is refused with Retry-After, and is not there afterwards', async ({ start }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--queue-max', '100'] });
    const api = new Api(server, { agent: new http.Agent({ keepAlive: true, maxSockets: 512 }) });
    const tenant = await api.createTenant();
    const release = await stallStore(server);
    const answers = [];
    let going = true;
    // More than a transaction under way and the queue behind it hold.
    const publishers = Array.from({ length: 300 }, async () => {
      while (going) {
        const answer = await tenant.request('POST', '/events', { body: { type: 'invoice.paid', data: 1 } });
        answers.push(answer);
        if (answer.status !== 202) await new Promise((resolve) => setTimeout(resolve, 100));
      }
    });
    try {
      await waitFor(() => answers.some(({ status, json }) => status === 503 && /overloaded/.test(json.detail)), { what: 'a publisher to be refused' });
      await waitFor(async () => {
        const ready = await api.request('GET', '/readyz', { key: null });
        return ready.status === 503 && ready.headers['retry-after'] === '1';
      }, { what: 'it to be no longer ready' });
    } finally {
      going = false;
      await release();
      await Promise.all(publishers);
    }
    for (const { status, headers } of answers) if (status !== 202) assert.match(`${status} ${headers['retry-after']}`, /^503 \d+$/);
    const accepted = answers.filter(({ status }) => status === 202).map(({ json }) => json.id);
    const kept = (await tenant.all('/events')).map(({ id }) => id);
    assert.deepEqual(kept.sort(), accepted.sort());
    await waitFor(async () => (await api.request('GET', '/readyz', { key: null })).status === 200, { what: 'it to be ready again' });
    api.agent.destroy();
  });
});

suite('what a tenant may', ({ test }) => {
  test('events_per_second: 429 with Retry-After, and nothing is kept or used up', async ({ api, tenant }) => {
    const { id: first } = await tenant.publish();
    await api.expect(200, 'PATCH', tenant.path, { body: { limits: { events_per_second: 1 } } });
    const batch = (n) => tenant.request('POST', '/events/batch', { body: Array.from({ length: n }, () => ({ type: 'a.b', data: 1 })) });
    assert.equal((await batch(1000)).status, 202, 'the burst is at least a thousand');
    // A thousand more would take a quarter of an hour, however slow this machine is.
    const refused = await batch(1000);
    assertProblem(refused, 429);
    assert.ok(Number(refused.headers['retry-after']) > 100, refused.headers['retry-after']);
    const event = { type: 'with.key', data: 1 };
    const headers = { 'idempotency-key': 'k' };
    const tried = async () => {
      const answer = await tenant.request('POST', '/events', { body: event, headers });
      if (answer.status === 429) assert.match(answer.headers['retry-after'], /^[1-9]\d*$/);
      else assert.equal(answer.status, 202, answer.text);
      return answer;
    };
    let last; // a moment may have passed since
    await waitFor(async () => (last = await tried()).status === 429 || ((headers['idempotency-key'] += 'k'), false), { every: 0, what: 'a publish to be refused' });
    const kept = (await tenant.all('/events')).length;
    await api.createTenant().then((other) => other.publish()); // nobody else is held up
    await api.expect(200, 'PATCH', tenant.path, { body: { limits: { events_per_second: null } } });
    await waitFor(async () => (last = await tried()).status === 202, { what: 'the new rate to be in force' });
    assert.equal(last.json.duplicate, false);
    const events = await tenant.all('/events');
    assert.equal(events.length, kept + 1);
    assert.ok(events.some(({ id }) => id === first));
  });

  test('max_subscriptions: 409, and no more than that are there, however many ask at once', async ({ api, tenant }) => {
    await api.expect(200, 'PATCH', tenant.path, { body: { limits: { max_subscriptions: 3 } } });
    const create = () => tenant.request('POST', '/subscriptions', { body: { url: 'http://127.0.0.1:9/' } });
    const answers = await Promise.all(Array.from({ length: 8 }, create));
    assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 201, 201, 409, 409, 409, 409, 409]);
    for (const answer of answers) if (answer.status === 409) assertProblem(answer, 409);
    const there = await tenant.all('/subscriptions');
    assert.deepEqual(there.map(({ id }) => id).sort(), answers.flatMap(({ json, status }) => (status === 201 ? [json.id] : [])).sort());
    await tenant.expect(204, 'DELETE', `/subscriptions/${there[0].id}`);
    assert.equal((await create()).status, 201, 'one that is deleted makes room');
    assert.equal((await create()).status, 409);
    const other = await api.createTenant();
    await other.expect(201, 'POST', '/subscriptions', { body: { url: 'http://127.0.0.1:9/' } });
    await api.expect(200, 'PATCH', tenant.path, { body: { limits: { max_subscriptions: 4 } } });
    assert.equal((await create()).status, 201);
  });
});

suite('large requests', ({ test }) => {
  test('a long path is 404, a long query 414, a large head 431', async ({ api }) => {
    const long = 'a'.repeat(5000);
    assert.equal((await api.request('GET', `/${long}`)).status, 404);
    assert.equal((await api.request('GET', `/v1/tenants?limit=${long}`)).status, 414);
    assert.equal((await api.request('GET', '/v1/tenants', { headers: { 'x-a': long } })).status, 200);
    const huge = await connect(api.server);
    huge.socket.write(`GET /v1/tenants HTTP/1.1\r\nX-A: ${'a'.repeat(40_000)}\r\n\r\n`);
    await waitFor(() => huge.answers() > 0, { what: 'a large head to be answered' });
    assert.equal(huge.status(), 431);
    huge.socket.destroy();
  });

  test('JSON nested deeper than 64 is refused, on every route', async ({ tenant, api }) => {
    const nested = (depth) => '['.repeat(depth) + ']'.repeat(depth);
    await tenant.publishText(`{"type":"a","data":${nested(60)}}`);
    const published = await tenant.request('POST', '/events', { body: `{"type":"a","data":${nested(70)}}` });
    assert.equal(published.status, 400);
    const changed = await api.request('POST', '/v1/tenants', { body: `{"id":"deep","name":${nested(70)}}` });
    assert.equal(changed.status, 400);
    assert.match(changed.json.detail, /64/);
    await api.expect(404, 'GET', '/v1/tenants/deep');
  });

  test('bodies and batches have their limits', async ({ tenant, api }) => {
    const event = { type: 'a', data: 1 };
    await tenant.expect(202, 'POST', '/events/batch', { body: Array(1000).fill(event) });
    await tenant.expect(422, 'POST', '/events/batch', { body: Array(1001).fill(event) });
    const megabyte = 'x'.repeat(1024 * 1024);
    await tenant.expect(413, 'POST', '/events', { body: { type: 'a', data: megabyte } });
    await api.expect(413, 'POST', '/v1/tenants', { body: { id: 'large', name: megabyte } });
  });
});
