// deploy/: the alert rules and the dashboard, held against Prometheus and what the server really tells.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { fileURLToPath } from 'node:url';

import { Prometheus, promtool, scrape } from './lib/prometheus.mjs';
import { closedPort } from './lib/receiver.mjs';
import { LOOPBACK_FLAGS } from './lib/server.mjs';
import { stallStore } from './lib/stall.mjs';
import { lifecycleTest, suite, test } from './lib/suite.mjs';
import { Api } from './lib/api.mjs';
import { waitFor } from './lib/wait.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const RULES = here('../../deploy/prometheus/alerts.yml');
const DASHBOARD = here('../../deploy/grafana/posthorn.json');
const FLAGS = [...LOOPBACK_FLAGS, '--metrics-per-subscription', '100'];

/** The rules with seconds in place of minutes: what is waited for, not what is asked. */
const shortened = (rules) => rules.replace(/^(\s*for:) \d+m$/gm, '$1 1s').replace(/\[\d+m\]/g, '[10s]');

/** Every query of a dashboard, with what Grafana would put in place of its variables. */
function queriesOf(dashboard) {
  const exprs = dashboard.panels.flatMap((panel) => (panel.targets ?? []).map(({ expr }) => expr));
  const annotations = dashboard.annotations.list.map(({ expr }) => expr);
  return [...exprs, ...annotations].map((expr) =>
    expr.replaceAll('$__rate_interval', '10s').replaceAll('$job', 'posthorn').replaceAll('$instance', '.*'));
}

test('promtool finds no fault with the rules, and their own tests pass', async () => {
  for (const args of [['check', 'rules', RULES], ['test', 'rules', here('prometheus/alerts.test.yml')]]) {
    const { code, output } = await promtool(args);
    assert.equal(code, 0, output);
  }
  const tested = await readFile(here('prometheus/alerts.test.yml'), 'utf8');
  const documented = await readFile(here('../../docs/operations.md'), 'utf8');
  for (const [, name] of (await readFile(RULES, 'utf8')).matchAll(/alert: (\w+)/g)) {
    assert.ok(tested.includes(`alertname: ${name}\n`), `${name} has a test`);
    assert.ok(documented.includes(`\`${name}\``), `docs/operations.md tells of ${name}`);
  }
});

suite('alerts and dashboard', ({ test }) => {
  test('every query of the dashboard and every rule is of metrics that there are, and Prometheus takes it', async ({ server, tenant, receiver }) => {
    const shop = await receiver([500, 204]);
    await tenant.subscribe(shop.url());
    await tenant.waitDelivery(await tenant.publish());
    const told = new Set([...(await scrape(server)).text.matchAll(/^# TYPE (\w+) /gm)].map(([, name]) => name));
    const dashboard = JSON.parse(await readFile(DASHBOARD, 'utf8'));
    const variables = dashboard.templating.list.map(({ query }) => query.query ?? '');
    const rules = await readFile(RULES, 'utf8');
    const asked = [...queriesOf(dashboard), ...variables, rules].join('\n').matchAll(/posthorn_\w+/g);
    const names = new Set([...asked].map(([name]) => name.replace(/_(bucket|sum|count)$/, '')));
    assert.ok(names.size > 15, 'the dashboard shows most of what there is');
    for (const name of names) assert.ok(told.has(name), `${name} is in /metrics`);
    const ids = dashboard.panels.map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length, 'panels have ids of their own');

    const prometheus = await Prometheus.start(new URL(server.url).host, rules);
    try {
      await waitFor(async () => (await prometheus.query('count_over_time(posthorn_build_info{job="posthorn"}[10s]) >= 4')).length, { what: 'four scrapes' });
      for (const expr of queriesOf(dashboard)) {
        // Rates need two scrapes within their range: on a machine that is held up, the next ones.
        await waitFor(async () => (await prometheus.query(expr)).length || expr.startsWith('ALERTS'), { every: 200, what: `${expr} to find something` });
      }
    } finally {
      await prometheus.remove();
    }
  });
}, { flags: FLAGS });

/** Publishes again and again, so many at a time, until it is told to stop. */
function flood(tenant, type, at_a_time) {
  let going = true;
  const one = async () => {
    while (going) {
      const { status } = await tenant.request('POST', '/events', { body: { type, data: {} } });
      assert.ok([202, 503].includes(status), `publishing answered ${status}`);
      if (status === 503) await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };
  const all = Promise.all(Array.from({ length: at_a_time }, one));
  return async () => {
    going = false;
    await all;
  };
}

lifecycleTest('Prometheus fires the alerts of a dead subscriber, a dead-letter spike, a full queue and a dead server', async ({ start, receiver }) => {
  const server = await start({ flags: [...FLAGS, '--queue-max', '100'] });
  const api = new Api(server, { agent: new http.Agent({ keepAlive: true, maxSockets: 256 }) });
  const tenant = await api.createTenant();
  const prometheus = await Prometheus.start(new URL(server.url).host, shortened(await readFile(RULES, 'utf8')));
  const fires = (...names) => waitFor(async () => {
    const now = await prometheus.firing();
    return names.every((name) => now.includes(name));
  }, { every: 200, what: `${names} to fire` });
  try {
    const good = await receiver([204]);
    await tenant.subscribe(good.url(), { event_types: ['good'] });
    for (let i = 0; i < 5; i++) await tenant.publish('good');
    await waitFor(async () => (await prometheus.query('posthorn_deliveries_total{outcome="delivered"} == 5')).length, { what: 'good deliveries to be seen' });
    // A machine that is slow, or was for a moment, may be told of as such.
    const untrue = ['PosthornDown', 'PosthornPublishQueueFull', 'PosthornPublishRefused', 'PosthornDeadSubscriber', 'PosthornDlqSpike'];
    await waitFor(async () => !(await prometheus.firing()).some((name) => untrue.includes(name)), { what: 'a healthy server to raise nothing' });

    await tenant.subscribe(`http://127.0.0.1:${await closedPort()}/`, { event_types: ['to.dead'] });
    for (let i = 0; i < 12; i++) await tenant.publish('to.dead');
    await fires('PosthornDeadSubscriber');

    const refusing = await receiver([404]);
    await tenant.subscribe(refusing.url(), { event_types: ['to.refusing'] });
    const stopRefused = flood(tenant, 'to.refusing', 2);
    await fires('PosthornDlqSpike').finally(stopRefused);

    const release = await stallStore(server);
    const stopFlood = flood(tenant, 'to.nobody', 200); // more than the queue holds
    await fires('PosthornPublishQueueFull', 'PosthornPublishRefused').finally(release).finally(stopFlood);

    await server.stop();
    await fires('PosthornDown');
  } finally {
    await prometheus.remove();
    api.agent.destroy();
  }
});
