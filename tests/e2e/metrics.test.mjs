// /metrics: every metric of the contract, valid for Prometheus, and true.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';

import { promtool, scrape } from './lib/prometheus.mjs';
import { hang } from './lib/receiver.mjs';
import { ONLY_A_FILE } from './lib/shared_store.mjs';
import { lifecycleTest, suite } from './lib/suite.mjs';
import { Api } from './lib/api.mjs';
import { waitFor } from './lib/wait.mjs';

/** Of the contract: name, type, and the labels of its samples with values that are always there. */
const CONTRACT = [
  ['posthorn_events_published_total', 'counter'],
  ['posthorn_fanout_lag_seconds', 'gauge'],
  ['posthorn_fanout_jobs_pending', 'gauge'],
  ['posthorn_delivery_queue_lag_seconds', 'gauge'],
  ['posthorn_deliveries_pending', 'gauge'],
  ['posthorn_deliveries_total', 'counter', 'outcome', ['delivered', 'dlq']],
  ['posthorn_attempts_total', 'counter', 'class', ['success', 'transient', 'backpressure', 'gone', 'permanent', 'blocked']],
  ['posthorn_attempt_duration_seconds', 'histogram'],
  ['posthorn_time_to_first_attempt_seconds', 'histogram'],
  ['posthorn_attempts_per_delivery', 'histogram'],
  ['posthorn_dlq_size', 'gauge'],
  ['posthorn_dlq_total', 'counter', 'reason', ['attempts_exhausted', 'window_expired', 'permanent_response', 'gone', 'blocked_address', 'subscription_deleted', 'replay_cancelled']],
  ['posthorn_in_flight', 'gauge', 'tier', ['premium', 'standard', 'bulk']],
  ['posthorn_lanes_throttled', 'gauge', 'cause', ['rate_limit', 'concurrency', 'breaker', 'ordering', 'paused']],
  ['posthorn_breaker_open', 'gauge'],
  ['posthorn_store_commit_seconds', 'histogram'],
  ['posthorn_store_batch_size', 'histogram'],
  ['posthorn_leases_expired_total', 'counter'],
  ['posthorn_http_requests_total', 'counter'],
];

/** One delivery that succeeds at once, one that succeeds at its second attempt, one that is refused for good. */
async function someTraffic(tenant, receiver) {
  const urls = await Promise.all([[204], [500, 204], [404]].map(async (script) => (await receiver(script)).url()));
  const subscriptions = [];
  for (const url of urls) subscriptions.push(await tenant.subscribe(url));
  const event = await tenant.publish();
  const [good, late, refused] = subscriptions;
  await tenant.waitDelivery({ event_id: event.id, subscription_id: good.id });
  await tenant.waitDelivery({ event_id: event.id, subscription_id: late.id });
  await tenant.waitDelivery({ event_id: event.id, subscription_id: refused.id }, 'DLQ');
  return subscriptions;
}

const FLAGS = ['--allow-http', '--allow-address', '127.0.0.0/8', '--allow-port', '1-65535', '--metrics-per-subscription', '2'];

const OPERATIONS = new URL('../../docs/operations.md', import.meta.url);

suite('metrics', ({ test }) => {
  test('what happened is counted, once, under the names and labels of the contract', async ({ server, tenant, receiver }) => {
    const before = (await scrape(server)).samples;
    const [good, late] = await someTraffic(tenant, receiver);
    const grown = (now, name) => now.get(name) - (before.get(name) ?? 0);
    const expected = {
      posthorn_events_published_total: 1,
      'posthorn_deliveries_total{outcome="delivered"}': 2,
      'posthorn_deliveries_total{outcome="dlq"}': 1,
      'posthorn_attempts_total{class="success"}': 2,
      'posthorn_attempts_total{class="transient"}': 1,
      'posthorn_attempts_total{class="permanent"}': 1,
      'posthorn_dlq_total{reason="permanent_response"}': 1,
      posthorn_dlq_size: 1,
      posthorn_deliveries_pending: 0,
      posthorn_attempt_duration_seconds_count: 4,
      posthorn_time_to_first_attempt_seconds_count: 3,
      posthorn_attempts_per_delivery_count: 3,
      posthorn_attempts_per_delivery_sum: 4,
      'posthorn_in_flight{tier="standard"}': 0,
      'posthorn_http_requests_total{route="/v1/tenants/{t}/events",code="202"}': 1,
    };
    let now;
    await waitFor(async () => {
      now = (await scrape(server)).samples;
      return Object.entries(expected).every(([name, by]) => grown(now, name) === by);
    }, { what: () => JSON.stringify(Object.keys(expected).map((name) => [name, grown(now, name)])) });
    assert.ok(now.get('posthorn_store_commit_seconds_count') > before.get('posthorn_store_commit_seconds_count'));
    // The third subscription is one too many for a series of its own.
    const series = [...now.keys()].filter((name) => name.startsWith('posthorn_subscription_attempts_total'));
    assert.equal(series.length, 6);
    for (const { id } of [good, late]) {
      const named = `posthorn_subscription_attempts_total{tenant="${tenant.id}",subscription="${id}",outcome="success"}`;
      const inOther = !now.has(named);
      assert.equal(now.get(inOther ? 'posthorn_subscription_attempts_total{tenant="",subscription="other",outcome="success"}' : named), 1);
    }
    assert.equal(series.reduce((sum, name) => sum + now.get(name), 0), 4);
  });

  test('names, types and labels are those of the contract, and promtool finds no fault', async ({ server, tenant, receiver }) => {
    await someTraffic(tenant, receiver);
    const { text, type, samples } = await scrape(server);
    assert.match(type, /^text\/plain; version=0\.0\.4/);
    assert.deepEqual(await promtool(['check', 'metrics'], text), { code: 0, output: '' });
    for (const [name, kind, label, values = []] of CONTRACT) {
      assert.ok(text.includes(`\n# TYPE ${name} ${kind}\n`), `${name} is a ${kind}`);
      assert.match(text, new RegExp(`^# HELP ${name} \\S`, 'm'));
      for (const value of values) assert.ok(samples.has(`${name}{${label}="${value}"}`), `${name}{${label}="${value}"}`);
      if (kind !== 'histogram' && !label && name !== 'posthorn_http_requests_total') assert.ok(samples.has(name), name);
    }
    const told = await readFile(OPERATIONS, 'utf8');
    for (const [, name] of text.matchAll(/^# TYPE (\S+)/gm)) assert.match(told, new RegExp(`\`${name}[{\`]`), `${name} is told of in docs/operations.md`);
    assert.match(text, /^posthorn_build_info\{version="[^"]+"\} 1$/m);
  });
}, { flags: FLAGS });

lifecycleTest('a delivery that a crash used the last attempt of is counted as dead, and is pending no more', async ({ start, receiver }) => {
  const server = await start();
  const tenant = await new Api(server).createTenant();
  const blackHole = await receiver([hang()]);
  await tenant.subscribe(blackHole.url(), { policy: { timeout_ms: 60000, max_attempts: 1 } });
  await tenant.publish();
  await blackHole.received(1);
  assert.equal((await scrape(server)).samples.get('posthorn_deliveries_pending'), 1);
  await server.kill();
  await server.start();
  const { samples } = await scrape(server);
  assert.equal(samples.get('posthorn_deliveries_pending'), 0);
  assert.equal(samples.get('posthorn_dlq_size'), 1);
  assert.equal(samples.get('posthorn_dlq_total{reason="attempts_exhausted"}'), 1);
  assert.equal(samples.get('posthorn_deliveries_total{outcome="dlq"}'), 1);
  assert.equal(samples.get('posthorn_leases_expired_total'), 1);
}, { skip: ONLY_A_FILE }); // a start on it waits for no lease
