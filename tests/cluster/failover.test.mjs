// The primary dies for good and its standby takes its place: nothing that was acknowledged is lost when commits waited for the
// standby. When they did not, what had not come to it is.

import assert from 'node:assert/strict';
import { describe } from 'node:test';

import { MORTAL, Tenant } from '../e2e/lib/api.mjs';
import { Cluster, LEASE_MS } from '../e2e/lib/cluster.mjs';
import { startReceiver } from '../e2e/lib/receiver.mjs';
import { run } from '../e2e/lib/server.mjs';
import { test } from '../e2e/lib/suite.mjs';
import { waitFor } from '../e2e/lib/wait.mjs';
import { Publishing } from './publishing.mjs';

const SUBSCRIPTIONS = 6;
const AHEAD = 5000; // transactions that the standby never hears of

function failoverTest(name, standby, body, { leaseMs } = {}) {
  test(name, async () => {
    const cluster = await Cluster.start(3, { standby, leaseMs });
    const receiver = await startReceiver();
    const publishing = new Publishing(receiver);
    try {
      await cluster.nodes[0].api.expect(201, 'POST', '/v1/tenants', { body: { id: 'shop' } });
      const [first] = (publishing.views = cluster.nodes.map((node) => new Tenant(node.api, 'shop')));
      for (let i = 0; i < SUBSCRIPTIONS; i++) publishing.subscriptions.push(await first.subscribe(receiver.url(`/${i}`), { ordering: 'key', policy: MORTAL }));
      await cluster.agreed();
      await body({ cluster, nodes: cluster.nodes, publishing, receiver });
      const { code, stdout, stderr } = await run(['check', '--data', cluster.nodes[0].data, '--store', cluster.url]);
      assert.equal(code, 0, stdout + stderr);
    } catch (error) {
      process.stderr.write(cluster.log);
      throw error;
    } finally {
      publishing.stopped = true;
      await cluster.remove();
      await receiver.close();
    }
  });
}

/** As a supervisor does: what ends with 75 is started anew. The returned function ends it. */
function supervise(nodes) {
  let over = false;
  const ends = nodes.map(() => 0);
  nodes.forEach(async (node, i) => {
    for (;;) {
      const { code } = await node.exited;
      if (over) return;
      assert.equal(code, 75, node.stderr);
      ends[i]++;
      await node.start();
    }
  });
  return { ends, over: () => (over = true) };
}

/** Whether an event that is published now comes to so many subscriptions. */
async function reachesAll(view, count) {
  const { status, json } = await view.request('POST', '/events', { body: { type: 'invoice.paid', data: { key: 'try', i: 0 } } });
  return status === 202 && (await view.event(json.id)).fanout.deliveries === count;
}

describe('the database fails over', () => {
  failoverTest('to a synchronous standby: nothing is lost, and keys keep their order', 'synchronous', async ({ cluster, nodes, publishing }) => {
    const published = publishing.run();
    await publishing.acknowledged(60);
    await cluster.failOver();
    await publishing.acknowledged(60);
    await publishing.stop(published);
    await publishing.arrived();
    publishing.assertOrder();
    assert.ok(nodes.every((node) => node.running), 'all nodes have come back by themselves');
    await cluster.settled();
  });

  failoverTest('and what is changed then is in force on all nodes', 'synchronous', async ({ cluster, nodes, publishing, receiver }) => {
    // Nodes know of transactions that came to nothing, whose numbers are given out a second time.
    await cluster.postgres.holdReplication();
    const newest = () => cluster.postgres.sql('select pg_snapshot_xmax(pg_current_snapshot())');
    const before = Number(await newest());
    await cluster.postgres.sql(`begin; create temp table burnt (i int); do $$ begin for i in 1..${AHEAD} loop
      begin insert into burnt values (i); raise division_by_zero; exception when division_by_zero then end; end loop; end $$; rollback`);
    assert.ok(Number(await newest()) >= before + AHEAD);
    await new Promise((resolve) => setTimeout(resolve, 2000)); // several looks at what was changed
    await cluster.failOver();
    const subscribe = async () => {
      const answer = await publishing.views[0].request('POST', '/subscriptions', { body: { url: receiver.url(`/${publishing.subscriptions.length}`) } });
      return answer.status === 201 && answer.json;
    };
    for (let i = 0; i < SUBSCRIPTIONS; i++) {
      publishing.subscriptions.push(await waitFor(subscribe, { every: 100, what: 'a subscription to be made' }));
    }
    assert.ok(Number(await newest()) < before + AHEAD);
    // In force on all soon: what a node accepts before it has looked goes by what it knew.
    for (const view of publishing.views) {
      await waitFor(() => reachesAll(view, publishing.subscriptions.length), { every: 100, what: 'a node to know of all subscriptions' });
      await publishing.once(view);
    }
    await publishing.arrived();
    assert.ok(nodes.every((node) => node.running));
  });

  failoverTest('to an asynchronous standby: what had not come to it is lost, and the nodes begin anew', 'asynchronous', async ({ cluster, nodes, publishing, receiver }) => {
    const supervised = supervise(nodes);
    const published = publishing.run();
    await publishing.acknowledged(30);
    await cluster.postgres.holdReplication();
    await publishing.acknowledged(60);
    await cluster.failOver();
    await publishing.acknowledged(60);
    await publishing.stop(published);
    await waitFor(() => nodes.every((node) => node.running && node.url), { every: 50 });
    const gone = await publishing.forget();
    assert.ok(gone.length > 0, 'acknowledged events can be lost');
    assert.ok(supervised.ends.every((n) => n >= 1), `each node had written what is gone: ${supervised.ends}`);
    console.log(`# ${gone.length} of ${gone.length + publishing.events.size} acknowledged events are gone, ` +
      `${gone.filter((id) => !receiver.requests.some((request) => request.json.id === id)).length} of them were never sent`);
    await publishing.arrived();
    supervised.over();
  }, { leaseMs: LEASE_MS });
});
