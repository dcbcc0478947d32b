// Spans of publishing, fan-out and attempts, sent to a collector; never in the way of a delivery.

import assert from 'node:assert/strict';

import { Api } from './lib/api.mjs';
import { startCollector } from './lib/collector.mjs';
import { scrape } from './lib/prometheus.mjs';
import { LOOPBACK_FLAGS, run } from './lib/server.mjs';
import { subscribeMany } from './lib/subscribe.mjs';
import { lifecycleTest, test } from './lib/suite.mjs';
import { LONG_LIMIT_MS, waitFor } from './lib/wait.mjs';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';

/** A test with a collector that the server knows. */
const collectorTest = (name, body, flags = []) => lifecycleTest(name, async ({ start, receiver }) => {
  const collector = await startCollector();
  try {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--otlp-url', collector.url, ...flags] });
    const tenant = await new Api(server).createTenant();
    await body({ collector, server, tenant, receiver });
  } finally {
    await collector.close();
  }
});

const spansOf = (collector, trace, n) => waitFor(
  () => {
    const found = collector.spans.filter(({ traceId }) => traceId === trace);
    return found.length >= n ? found : null;
  },
  { what: () => `${n} spans of ${trace}: ${JSON.stringify(collector.spans)}` },
);

collectorTest('a publish, its fan-out and its attempts are one trace, with the producer\'s span above them', async ({ collector, tenant, receiver }) => {
  const shop = await receiver([500, 204]);
  const subscription = await tenant.subscribe(shop.url());
  const before = Date.now();
  const event = await tenant.expect(202, 'POST', '/events', { body: { type: 'a', data: { secret: 'payload' } }, headers: { traceparent: `00-${TRACE}-${SPAN}-01` } });
  const delivery = await tenant.waitDelivery(event);
  const spans = await spansOf(collector, TRACE, 4);
  assert.equal(spans.length, 4);
  const [publish] = spans.filter(({ name }) => name === 'publish');
  const [fanout] = spans.filter(({ name }) => name === 'fanout');
  const attempts = spans.filter(({ name }) => name === 'attempt').sort((a, b) => a.attributes['posthorn.attempt'] - b.attributes['posthorn.attempt']);
  assert.equal(publish.parentSpanId, SPAN);
  assert.deepEqual([publish.kind, fanout.kind, ...attempts.map(({ kind }) => kind)], [2, 1, 3, 3]);
  for (const span of [fanout, ...attempts]) assert.equal(span.parentSpanId, publish.spanId);
  assert.deepEqual(publish.attributes, { 'posthorn.tenant.id': tenant.id, 'posthorn.event.id': event.id, 'posthorn.events': 1 });
  assert.equal(fanout.attributes['posthorn.deliveries'], 1);
  assert.deepEqual(attempts.map(({ attributes }) => attributes), [500, 204].map((status, i) => ({
    'posthorn.tenant.id': tenant.id,
    'posthorn.delivery.id': delivery.id,
    'posthorn.subscription.id': subscription.id,
    'posthorn.attempt': i + 1,
    'http.request.method': 'POST',
    'http.response.status_code': status,
  })));
  assert.deepEqual(attempts.map(({ status }) => status?.code), [2, undefined]);
  // What the subscriber was told is the span of the attempt.
  assert.deepEqual(shop.requests.map(({ headers }) => headers.traceparent), attempts.map(({ spanId }) => `00-${TRACE}-${spanId}-01`));
  for (const { startTimeUnixNano, endTimeUnixNano, resource } of spans) {
    assert.ok(BigInt(startTimeUnixNano) <= BigInt(endTimeUnixNano));
    assert.ok(Math.abs(Number(BigInt(startTimeUnixNano) / 1_000_000n) - before) < 60_000);
    assert.equal(resource['service.name'], 'posthorn');
  }
  const [request] = collector.requests;
  assert.deepEqual([request.method, request.path, request.headers['content-type']], ['POST', '/v1/traces', 'application/json']);
  assert.equal(request.headers.authorization, 'Bearer of-the-collector');
  assert.ok(!JSON.stringify(collector.spans).includes('payload'));
}, ['--otlp-header', 'Authorization: Bearer of-the-collector']);

collectorTest('without a traceparent a trace begins here; what is not sampled leaves no spans', async ({ collector, server, tenant, receiver }) => {
  const shop = await receiver([204]);
  await tenant.subscribe(shop.url());
  await tenant.waitDelivery(await tenant.expect(202, 'POST', '/events', { body: { type: 'a', data: 1 }, headers: { traceparent: `00-${TRACE}-${SPAN}-00` } }));
  assert.match(shop.requests[0].headers.traceparent, new RegExp(`^00-${TRACE}-.*-00$`));
  await tenant.waitDelivery(await tenant.publish());
  const [, trace] = shop.requests[1].headers.traceparent.match(/^00-([0-9a-f]{32})-[0-9a-f]{16}-01$/);
  const spans = await spansOf(collector, trace, 3);
  assert.equal(spans.find(({ name }) => name === 'publish').parentSpanId, undefined);
  assert.deepEqual(collector.spans.filter(({ traceId }) => traceId === TRACE), []);
  assert.equal((await scrape(server)).samples.get('posthorn_spans_dropped_total'), 0);
});

collectorTest('chance leaves out what otlp-sample-percent says', async ({ tenant, receiver }) => {
  const shop = await receiver([204]);
  await tenant.subscribe(shop.url());
  await tenant.waitDelivery(await tenant.publish());
  assert.equal(shop.requests[0].headers.traceparent, undefined);
}, ['--otlp-sample-percent', '0']);

collectorTest('a collector that never answers holds nothing up: deliveries go on, spans are dropped and counted', async ({ collector, server, tenant, receiver }) => {
  collector.answer = null;
  const shop = await receiver(() => 204, { keep: false });
  await tenant.subscribe(shop.url(), { policy: { max_in_flight: 100 } });
  const batch = Array.from({ length: 1000 }, () => ({ type: 'a', data: 1 }));
  for (let i = 0; i < 10; i++) await tenant.expect(202, 'POST', '/events/batch', { body: batch });
  await waitFor(async () => (await scrape(server)).samples.get('posthorn_deliveries_total{outcome="delivered"}') === 10_000, { limit: LONG_LIMIT_MS, every: 200, what: '10,000 deliveries' });
  const { samples } = await scrape(server);
  assert.ok(samples.get('posthorn_spans_dropped_total') > 0, 'more spans than the queue holds');
  assert.equal(samples.get('posthorn_spans_exported_total'), 0);
  await waitFor(() => server.stderr.includes('the collector does not take spans'), { what: 'the log to say so' });
  collector.answer = 200;
  await waitFor(async () => (await scrape(server)).samples.get('posthorn_spans_exported_total') > 8000, { limit: LONG_LIMIT_MS, what: 'what was queued to be taken' });
  await waitFor(() => server.stderr.includes('the collector takes spans again'), { what: 'the log to say that, too' });
});

collectorTest('a large fan-out has a span of its own', async ({ collector, server, tenant, receiver }) => {
  const shop = await receiver(() => 204, { keep: false });
  await subscribeMany(server, tenant.id, 1001, { url: shop.url() });
  const { id } = await tenant.publish();
  const job = await waitFor(() => collector.spans.find(({ attributes }) => attributes['posthorn.deliveries'] === 1001), { what: 'the span' });
  const publish = collector.spans.find(({ name }) => name === 'publish');
  assert.deepEqual([job.name, job.traceId, job.parentSpanId, job.attributes['posthorn.event.id']], ['fanout', publish.traceId, publish.spanId, id]);
  await spansOf(collector, publish.traceId, 1003); // and one before the job, of the request
});

collectorTest('what a stop finds in the queue is still sent', async ({ collector, server, tenant, receiver }) => {
  const shop = await receiver([204]);
  await tenant.subscribe(shop.url());
  await tenant.waitDelivery(await tenant.publish());
  await server.stop();
  assert.deepEqual(collector.spans.map(({ name }) => name).sort(), ['attempt', 'fanout', 'publish']);
});

test('settings that make no sense are refused', async () => {
  for (const flags of [['--otlp-url', 'ftp://127.0.0.1'], ['--otlp-url', 'http://user:key@127.0.0.1:4318'], ['--otlp-header', 'A: b'], ['--otlp-url', 'http://127.0.0.1:4318', '--otlp-header', 'no colon']]) {
    const { code, stderr } = await run(['serve', ...flags]);
    assert.equal(code, 2, stderr);
    assert.match(stderr, /otlp-/);
  }
});
