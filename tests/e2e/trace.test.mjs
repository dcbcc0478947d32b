// W3C Trace Context: taken at publish, kept with the event, passed on with every attempt.

import assert from 'node:assert/strict';
import http from 'node:http';

import { Api } from './lib/api.mjs';
import { LOOPBACK_FLAGS } from './lib/server.mjs';
import { lifecycleTest, suite } from './lib/suite.mjs';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';
const PARENT = `00-${TRACE}-${SPAN}-01`;

const publishIn = (tenant, headers, fields = {}) =>
  tenant.expect(202, 'POST', '/events', { body: { type: 'invoice.paid', data: { amount: 1 }, ...fields }, headers });

/** The ids of a request's own span, which is of the trace and of nobody else. */
function spanOf(headers, flags = '01') {
  const [, span] = headers.traceparent.match(new RegExp(`^00-${TRACE}-([0-9a-f]{16})-${flags}$`)) ?? [];
  assert.ok(span, `a step of the trace: ${headers.traceparent}`);
  assert.notEqual(span, SPAN);
  assert.notEqual(span, '0'.repeat(16));
  return span;
}

suite('trace context', ({ test }) => {
  test('every attempt is a step of its own in the producer\'s trace, and shown as it was sent', async ({ tenant, receiver }) => {
    const shop = await receiver([500, 500, 204]);
    const { secret } = await tenant.subscribe(shop.url(), { headers: { 'X-Own': 'mine' } });
    const event = await publishIn(tenant, { traceparent: PARENT, tracestate: 'rojo=1, congo=t61rcWkgMzE' });
    const delivery = await tenant.waitDelivery(event);
    await tenant.expect(202, 'POST', `/deliveries/${delivery.id}/replay`);
    await shop.received(4);
    await tenant.waitDelivery(delivery.id);
    const spans = shop.requests.map(({ headers }) => spanOf(headers));
    assert.equal(new Set(spans).size, 4);
    for (const { headers } of shop.requests) {
      assert.equal(headers.tracestate, 'rojo=1,congo=t61rcWkgMzE');
      assert.equal(headers['x-own'], 'mine');
    }
    const attempts = await tenant.attempts(delivery.id);
    assert.deepEqual(
      attempts.map(({ request_headers: h }) => [h.traceparent, h.tracestate, h['x-own']]),
      shop.requests.map(({ headers: h }) => [h.traceparent, h.tracestate, h['x-own']]),
    );
    assert.ok(!JSON.stringify(await tenant.event(event.id)).includes(TRACE));
    shop.requests[0].verify(secret);
  });

  test('in every format, and for every event of a batch', async ({ tenant, receiver }) => {
    for (const format of ['envelope', 'raw', 'cloudevents']) {
      const shop = await receiver([204]);
      const { id } = await tenant.subscribe(shop.url(), { format });
      await tenant.expect(202, 'POST', '/events/batch', { body: [{ type: 'a', data: 1 }, { type: 'b', data: 2 }], headers: { traceparent: PARENT } });
      await shop.received(2);
      assert.equal(new Set(shop.requests.map(({ headers }) => spanOf(headers))).size, 2, format);
      await tenant.expect(204, 'DELETE', `/subscriptions/${id}`);
    }
  });

  test('what is not sampled is passed on as such; without a trace nothing is sent', async ({ tenant, receiver }) => {
    const shop = await receiver([204]);
    await tenant.subscribe(shop.url());
    await tenant.waitDelivery(await publishIn(tenant, { traceparent: `00-${TRACE}-${SPAN}-00` }));
    spanOf(shop.requests[0].headers, '00');
    await tenant.waitDelivery(await publishIn(tenant, { tracestate: 'rojo=1' }));
    assert.equal(shop.requests[1].headers.traceparent, undefined);
    assert.equal(shop.requests[1].headers.tracestate, undefined);
  });

  test('a malformed context is ignored, never refused', async ({ tenant, receiver }) => {
    const shop = await receiver([204]);
    await tenant.subscribe(shop.url());
    const bad = ['', 'nonsense', `ff-${TRACE}-${SPAN}-01`, `00-${'0'.repeat(32)}-${SPAN}-01`, `00-${TRACE.toUpperCase()}-${SPAN}-01`, `${PARENT}-more`, 'x'.repeat(4000)];
    for (const traceparent of bad) await tenant.waitDelivery(await publishIn(tenant, { traceparent, tracestate: 'rojo=1' }));
    assert.deepEqual(shop.requests.map(({ headers }) => [headers.traceparent, headers.tracestate]), bad.map(() => [undefined, undefined]));
    // A bad tracestate costs the tracestate alone; several are one list.
    await tenant.waitDelivery(await publishIn(tenant, { traceparent: PARENT, tracestate: 'no list' }));
    spanOf(shop.requests.at(-1).headers);
    assert.equal(shop.requests.at(-1).headers.tracestate, undefined);
    await tenant.waitDelivery(await publishIn(tenant, { traceparent: PARENT, tracestate: ['a=1', 'b=2,c=3'] }));
    assert.equal(shop.requests.at(-1).headers.tracestate, 'a=1,b=2,c=3');
  });

  test('two traceparents are none', async ({ server, tenant, receiver }) => {
    const shop = await receiver([204]);
    await tenant.subscribe(shop.url());
    const body = JSON.stringify({ type: 'a', data: 1 });
    const { status, text } = await new Promise((resolve, reject) => {
      const request = http.request(`${server.url}${tenant.path}/events`, { method: 'POST' }, (response) => {
        let answer = '';
        response.on('data', (chunk) => (answer += chunk)).on('end', () => resolve({ status: response.statusCode, text: answer }));
      }).on('error', reject);
      const headers = { authorization: `Bearer ${server.adminKey}`, 'content-type': 'application/json', traceparent: [PARENT, PARENT] };
      for (const [name, value] of Object.entries(headers)) request.setHeader(name, value);
      request.end(body);
    });
    assert.equal(status, 202, text);
    await tenant.waitDelivery(JSON.parse(text));
    assert.equal(shop.requests[0].headers.traceparent, undefined);
  });
});

lifecycleTest('a trace outlives a crash, and the memory of bodies', async ({ start, receiver }) => {
  const server = await start({ flags: [...LOOPBACK_FLAGS, '--body-cache-bytes', '0'] });
  const tenant = await new Api(server).createTenant();
  const shop = await receiver([500, 204]);
  await tenant.subscribe(shop.url(), { policy: { retry: { schedule_seconds: [5], jitter: 0 } } });
  const event = await publishIn(tenant, { traceparent: PARENT, tracestate: 'a=1' });
  await tenant.waitDelivery(event, 'RETRY');
  await server.kill();
  await server.start();
  await shop.received(2);
  assert.equal(new Set(shop.requests.map(({ headers }) => spanOf(headers))).size, 2);
  assert.equal(shop.requests[1].headers.tracestate, 'a=1');
});
