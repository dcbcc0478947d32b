// A node that is cut off from the database, while subscribers are as near as ever.

import assert from 'node:assert/strict';
import { describe } from 'node:test';

import { Tenant } from '../e2e/lib/api.mjs';
import { Cluster, LEASE_MS } from '../e2e/lib/cluster.mjs';
import { startReceiver } from '../e2e/lib/receiver.mjs';
import { run } from '../e2e/lib/server.mjs';
import { test } from '../e2e/lib/suite.mjs';
import { gate, waitFor } from '../e2e/lib/wait.mjs';
import { Namespace } from './namespace.mjs';
import { Publishing } from './publishing.mjs';

const SUBSCRIPTIONS = 12;
const CAP = 2;
const DATABASE = 0, SUBSCRIBERS = 1; // the namespace's lines
const POLICY = { max_in_flight: CAP, timeout_ms: 3000, retry: { schedule_seconds: [0, 0, 1, 1, 1, 1], jitter: 0 } };
const refusal = Namespace.refusal();

/** Knows how many requests of a path are with it at one time, and holds those that come from an address until it is told to answer. */
async function startCounting(host) {
  const at = new Map();
  const receiver = await startReceiver(async (request, response) => {
    request.from = request.socket.remoteAddress;
    const here = (at.get(request.path) ?? 0) + 1;
    at.set(request.path, here);
    receiver.most = Math.max(receiver.most, here);
    response.on('close', () => at.set(request.path, at.get(request.path) - 1));
    if (request.from === receiver.holds) {
      receiver.held.push(request);
      await receiver.answer.opened;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    return 204;
  }, { host });
  Object.assign(receiver, { most: 0, held: [], holds: null, answer: gate() });
  return receiver;
}

async function cutTest(body) {
  const namespace = new Namespace();
  let cluster, receiver, publishing;
  try {
    namespace.make();
    receiver = await startCounting(namespace.outer(SUBSCRIBERS));
    publishing = new Publishing(receiver);
    const flags = ['--allow-address', `${namespace.networks[SUBSCRIBERS]}.0/30`];
    cluster = await Cluster.start(2, { leaseMs: LEASE_MS, flags, settings: { listen_addresses: namespace.outer(DATABASE) } });
    await cluster.postgres.trust(`${namespace.networks[DATABASE]}.0/30`);
    const url = `postgres://posthorn@${namespace.outer(DATABASE)}/shop`;
    const apart = await cluster.join([...flags, '--insecure-listen', '--listen', `${namespace.inner(SUBSCRIBERS)}:0`], { url, within: namespace.within });
    await cluster.settled();
    await cluster.nodes[0].api.expect(201, 'POST', '/v1/tenants', { body: { id: 'shop' } });
    const [first] = (publishing.views = cluster.nodes.map((node) => new Tenant(node.api, 'shop')));
    const { port } = receiver.server.address();
    for (let i = 0; i < SUBSCRIPTIONS; i++) {
      const fields = { ordering: 'key', policy: POLICY };
      publishing.subscriptions.push(await first.subscribe(`http://${namespace.outer(SUBSCRIBERS)}:${port}/${i}`, fields));
    }
    await cluster.agreed();
    await body({ cluster, nodes: cluster.nodes, apart, namespace, publishing, receiver });
    const { code, stdout, stderr } = await run(['check', '--data', cluster.nodes[0].data, '--store', cluster.url]);
    assert.equal(code, 0, stdout + stderr);
  } catch (error) {
    process.stderr.write(cluster?.log ?? '');
    throw error;
  } finally {
    if (publishing) publishing.stopped = true;
    await cluster?.remove();
    await receiver?.close();
    namespace.remove();
  }
}

describe('a node is cut off from the database', { skip: refusal ?? false }, () => {
  test('it stops sending, others take its lanes, and nothing is lost', () => cutTest(async ({ cluster, nodes, apart, namespace, publishing, receiver }) => {
    const sent = () => receiver.requests.filter((request) => request.from === namespace.inner(SUBSCRIBERS));
    const published = publishing.run();
    await publishing.acknowledged(60);
    assert.ok(sent().length > 0, 'it has sent its share');
    receiver.holds = namespace.inner(SUBSCRIBERS);
    await waitFor(() => receiver.held.length >= SUBSCRIPTIONS / 4, { what: () => `requests under way, last ${receiver.held.length}` });
    namespace.cut(DATABASE);
    receiver.holds = null;
    receiver.answer.open();
    await cluster.settled(nodes.slice(0, 2));
    const before = sent().length;
    await publishing.acknowledged(30);
    assert.equal(sent().length, before, 'it sends nothing once others have its lanes');
    namespace.mend(DATABASE);
    assert.deepEqual(await apart.exited, { code: 75, signal: null });
    assert.equal(sent().length, before, 'nor when it is back');
    await apart.start();
    await publishing.stop(published);
    await publishing.arrived();
    publishing.assertOrder();
    assert.ok(receiver.most <= CAP, `${receiver.most} at one time`);
    await cluster.settled();
    // What it was answered meanwhile it could not write down.
    const times = (id) => receiver.requests.filter((request) => request.id === id).length;
    await waitFor(() => receiver.held.every((request) => times(request.id) >= 2), { every: 100, what: 'what it could not settle to be sent again' });
  }));
});
