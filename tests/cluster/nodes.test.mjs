// Three nodes on one PostgreSQL: what holds while they come and go.

import assert from 'node:assert/strict';
import { describe } from 'node:test';

import { MORTAL, QUICK, Tenant } from '../e2e/lib/api.mjs';
import { Cluster, LEASE_MS } from '../e2e/lib/cluster.mjs';
import { startReceiver } from '../e2e/lib/receiver.mjs';
import { test } from '../e2e/lib/suite.mjs';
import { gate, LONG_LIMIT_MS, waitFor } from '../e2e/lib/wait.mjs';

const SECOND = 1000;
const ONE_DIES = { leaseMs: LEASE_MS };
let tenants = 0;

/** A cluster of its own for each test, whose log is told when it fails. */
function clusterTest(name, count, body, options) {
  test(name, async () => {
    const cluster = await Cluster.start(count, options);
    const receivers = [];
    const receive = async (...args) => {
      receivers.push(await startReceiver(...args));
      return receivers.at(-1);
    };
    try {
      await body({ cluster, nodes: cluster.nodes, receive });
    } catch (error) {
      process.stderr.write(cluster.log);
      throw error;
    } finally {
      await cluster.remove();
      for (const receiver of receivers) await receiver.close();
    }
  });
}

/** The same tenant, as each of the nodes answers for it. */
async function tenantOn(cluster, nodes, fields = {}) {
  const id = `tenant-${++tenants}`;
  await nodes[0].api.expect(201, 'POST', '/v1/tenants', { body: { id, ...fields } });
  await cluster.agreed();
  return nodes.map((node) => new Tenant(node.api, id));
}

/** A lane for each of many subscriptions, made at the first node and known at all of them. */
async function subscribe(cluster, views, receiver, count, fields = {}) {
  const made = [];
  for (let i = 0; i < count; i++) made.push(await views[0].subscribe(receiver.url(`/${i}`), fields));
  await cluster.agreed();
  return made;
}

/** Each event has come to each subscription, whatever became of the nodes. */
async function arrived(receiver, events, subscriptions) {
  const wanted = events.length * subscriptions.length;
  await waitFor(() => seen(receiver).size >= wanted, { what: () => `${wanted} deliveries, last ${seen(receiver).size}` });
  assert.equal(seen(receiver).size, wanted);
}

const seen = (receiver) => new Set(receiver.requests.map((request) => request.headers['webhook-id']));

/** So many transactions wait for a lock. */
function waiting(cluster, count) {
  const locks = async () => Number(await cluster.postgres.sql('select count(*) from pg_locks where not granted'));
  return waitFor(async () => (await locks()) >= count, { every: 20, what: `${count} transactions to wait` });
}

async function publishOn(views, count, fields) {
  const events = [];
  for (let i = 0; i < count; i++) events.push(await views[i % views.length].publish('invoice.paid', { i }, fields));
  return events;
}

describe('nodes share one store', () => {
  clusterTest('what one node accepts, all of them send', 3, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 12);
    const events = await publishOn(views, 30);
    await arrived(receiver, events, subscriptions);
    assert.equal(receiver.requests.length, 360, 'nothing was sent twice');
    const workers = new Set();
    for (const delivery of await views[1].deliveries({ event_id: events[0].id })) {
      const whole = await views[1].waitDelivery(delivery.id);
      workers.add(whole.attempts[0].worker_id);
    }
    assert.ok(workers.size > 1, `the lanes are shared out: ${[...workers]}`);
    const ids = events.map((event) => event.id);
    assert.equal(new Set(ids).size, ids.length);
    assert.deepEqual([...ids].sort(), ids, 'what was accepted later, wherever, has the greater id');
  });

  clusterTest('a change on one node is in force on all soon', 2, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const views = await tenantOn(cluster, nodes);
    const [one] = await subscribe(cluster, views, receiver, 1);
    await views[0].change(one.id, { event_types: ['order.*'] });
    await waitFor(async () => {
      const event = await views[1].publish('order.made');
      return (await views[1].event(event.id)).fanout.deliveries === 1;
    });
    const event = await views[1].publish('invoice.paid');
    assert.equal((await views[1].event(event.id)).fanout.deliveries, 0);
    const key = await nodes[0].api.expect(201, 'POST', '/v1/keys', { body: { tenant_id: views[0].id, scopes: ['events:write'] } });
    const status = () => views[1].request('POST', '/events', { key: key.key, body: { type: 'order.made', data: 1 } }).then((answer) => answer.status);
    await waitFor(async () => (await status()) === 202);
    await nodes[0].api.expect(204, 'DELETE', `/v1/keys/${key.id}`);
    await waitFor(async () => (await status()) === 401);
  });

  clusterTest('a deletion is answered once the node that sends has stopped', 3, async ({ cluster, nodes, receive }) => {
    const opened = gate();
    const receiver = await receive(async () => (await opened.opened, 204));
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 8);
    await views[0].publish();
    await receiver.received(8);
    const deletions = subscriptions.map((one, i) => views[i % 3].expect(204, 'DELETE', `/subscriptions/${one.id}`));
    let answered = 0;
    deletions.forEach((deletion) => deletion.then(() => answered++));
    await new Promise((resolve) => setTimeout(resolve, SECOND));
    assert.equal(answered, 0, 'attempts are under way');
    opened.open();
    await Promise.all(deletions);
    const event = await views[1].publish();
    assert.equal((await views[1].event(event.id)).fanout.deliveries, 0);
  });

  clusterTest('every node tells of every lane', 3, async ({ cluster, nodes, receive }) => {
    const opened = gate();
    const receiver = await receive(async () => (await opened.opened, 204));
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 6);
    await views[0].publish();
    await receiver.received(6);
    for (const view of views) {
      // What its node does not tell within a second is not known: on a busy machine it is asked again.
      for (const one of subscriptions) await waitFor(async () => (await view.get(`/subscriptions/${one.id}/stats`)).in_flight === 1, { every: 50, what: 'an attempt to be told of' });
    }
    opened.open();
    for (const one of subscriptions) {
      await waitFor(async () => (await views[1].get(`/subscriptions/${one.id}/stats`)).success_rate === 1);
    }
  });

  clusterTest('a new idempotency key that comes to two nodes at one time is one event', 2, async ({ cluster, nodes }) => {
    const views = await tenantOn(cluster, nodes);
    /** Each node has looked for the key, and found none, when the first of them writes it. */
    const both = async (key, bodies) => {
      const holder = await cluster.postgres.connect();
      try {
        await holder.query('begin');
        await holder.query('lock table idempotency in share mode');
        const answers = views.map((view, i) => view.request('POST', '/events', { headers: { 'idempotency-key': key }, body: bodies[i] }));
        await waiting(cluster, 2);
        await holder.query('commit');
        return await Promise.all(answers);
      } finally {
        await holder.end();
      }
    };
    const body = { type: 'invoice.paid', data: 1 };
    const same = await both('once', [body, body]);
    assert.deepEqual(same.map((answer) => answer.status), [202, 202]);
    assert.equal(same[0].json.id, same[1].json.id);
    assert.deepEqual(same.map((answer) => answer.json.duplicate).sort(), [false, true]);
    const different = await both('twice', [body, { type: 'invoice.paid', data: 2 }]);
    assert.deepEqual(different.map((answer) => answer.status).sort(), [202, 409]);
  });

  clusterTest('a tenant’s events_per_second hold over all of them, and one of them may have them all', 3, async ({ cluster, nodes }) => {
    const QUOTA = 20;
    const views = await tenantOn(cluster, nodes, { limits: { events_per_second: QUOTA } });
    const asked = views.map(() => ({ taken: 0, refused: 0 }));
    let asking = views.length;
    const ask = async (view, i) => {
      for (; i < asking; await new Promise((resolve) => setTimeout(resolve, 20))) {
        const body = Array(asked[i].refused ? 5 : 100).fill({ type: 'invoice.paid', data: 1 });
        const { status } = await view.request('POST', '/events/batch', { body });
        assert.ok([202, 429, 503].includes(status), `${status}`);
        if (status === 202) asked[i].taken += body.length;
        else if (status === 429) asked[i].refused++;
      }
    };
    /** Over the next seconds: what was taken, as a part of the quota, when every node that is asked had to refuse some. */
    const part = async () => {
      const before = asked.map((one) => ({ ...one }));
      const began = performance.now();
      await new Promise((resolve) => setTimeout(resolve, 3 * SECOND));
      const seconds = (performance.now() - began) / SECOND;
      const sum = asked.reduce((all, one, i) => all + one.taken - before[i].taken, 0);
      const refused = asked.slice(0, asking).every((one, i) => one.refused > before[i].refused);
      return refused ? sum / (QUOTA * seconds) : NaN;
    };
    // Several at each, so that a slow machine asks for more than the quota, too.
    const publishing = views.flatMap((view, i) => Array.from({ length: 4 }, () => ask(view, i)));
    let last;
    await waitFor(async () => (last = await part()) <= 1.5, { limit: LONG_LIMIT_MS, what: () => `the quota to hold, last ${last}` });
    asking = 1;
    await waitFor(async () => (last = await part()) >= 0.75, { limit: LONG_LIMIT_MS, what: () => `one to have it all, last ${last}` });
    asking = 0;
    await Promise.all(publishing);
  });

  clusterTest('fan-outs are shared out, and reach everybody', 3, async ({ cluster, nodes, receive }) => {
    const receiver = await receive([204], { keep: true });
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 40);
    const events = await publishOn(views, 150, { deliver_at: undefined });
    await arrived(receiver, events, subscriptions);
  });
});

describe('nodes come and go', () => {
  clusterTest('two that start at one time make one operator’s webhook', 1, async ({ cluster, receive }) => {
    const receiver = await receive();
    const secret = `whsec_${Buffer.alloc(32, 'operator').toString('base64')}`;
    const flags = ['--operator-url', receiver.url('/operator'), '--operator-secret', secret];
    const holder = await cluster.postgres.connect();
    try {
      await holder.query('begin');
      await holder.query('lock table subscriptions in share mode');
      const started = [cluster.join(flags), cluster.join(flags)];
      await waiting(cluster, 2);
      await holder.query('commit');
      await Promise.all(started);
    } finally {
      await holder.end();
    }
    assert.equal(await cluster.postgres.sql('select count(*) from subscriptions where tenant = 0'), '1');
  });

  clusterTest('a killed node’s lanes move after its lease, and nothing is lost', 3, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 30, { policy: MORTAL });
    const events = await publishOn(views, 20);
    const dead = nodes[2];
    await dead.kill();
    events.push(...(await publishOn(views.slice(0, 2), 20)));
    await cluster.settled([nodes[0], nodes[1]]);
    await arrived(receiver, events, subscriptions);
  }, ONE_DIES);

  clusterTest('a planned stop gives its lanes away at once', 2, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 20);
    const events = await publishOn(views, 10);
    const stopped = nodes[1].stop();
    events.push(...(await publishOn(views.slice(0, 1), 10)));
    await cluster.settled([nodes[0]]);
    assert.deepEqual(await stopped, { code: 0, signal: null });
    assert.match(nodes[1].stderr, /partitions were given away/);
    await arrived(receiver, events, subscriptions);
    assert.equal(receiver.requests.length, 400, 'nothing was sent twice');
    assert.doesNotMatch(nodes[0].stderr, /lease run out/);
  });

  clusterTest('a node that joins gets its share, and nothing is sent twice', 2, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 30);
    let going = true;
    const events = [];
    const publishing = (async () => {
      while (going) events.push(...(await publishOn(views, 2)));
    })();
    const third = await cluster.join();
    await cluster.settled();
    going = false;
    await publishing;
    assert.ok((await cluster.owned(third)) >= 341);
    await arrived(receiver, events, subscriptions);
    assert.equal(receiver.requests.length, events.length * subscriptions.length, 'nothing was sent twice');
  });

  clusterTest('a node that was frozen for longer than its lease writes nothing more', 3, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 20, { policy: MORTAL });
    const events = await publishOn(views, 10);
    cluster.freeze(nodes[1]);
    events.push(...(await publishOn([views[0], views[2]], 10)));
    await cluster.settled([nodes[0], nodes[2]]);
    await arrived(receiver, events, subscriptions);
    // What it had sent and not settled is sent once more by who has its lanes now.
    await waitFor(async () => (await views[0].deliveries({ state: 'delivered' })).length === events.length * subscriptions.length, { every: 100, what: 'all to be settled' });
    const requests = receiver.requests.length;
    cluster.wake(nodes[1]);
    const { code } = await nodes[1].exited;
    assert.equal(code, 75);
    assert.match(nodes[1].stderr, /declared this one dead/);
    assert.equal(receiver.requests.length, requests, 'it sent nothing after it woke');
  }, ONE_DIES);

  clusterTest('caps and order hold over a move', 3, async ({ cluster, nodes, receive }) => {
    const at = new Map();
    let most = 0;
    const receiver = await receive(async (request) => {
      const lane = request.path;
      const here = (at.get(lane) ?? 0) + 1;
      at.set(lane, here);
      most = Math.max(most, here);
      await new Promise((resolve) => setTimeout(resolve, 30));
      at.set(lane, at.get(lane) - 1);
      return 204;
    });
    const views = await tenantOn(cluster, nodes);
    const policy = { max_in_flight: 2, timeout_ms: 10_000, retry: { schedule_seconds: [0, 0, 0, 1, 1], jitter: 0 } };
    const subscriptions = await subscribe(cluster, views, receiver, 6, { ordering: 'key', policy });
    const events = [];
    for (let i = 0; i < 60; i++) events.push(await views[0].publish('invoice.paid', { i }, { ordering_key: `k${i % 2}` }));
    await nodes[2].kill();
    await cluster.settled([nodes[0], nodes[1]]);
    await arrived(receiver, events, subscriptions);
    assert.ok(most <= 3, `${most} at one time`); // one that the dead node has sent may still be with the receiver
    for (const subscription of subscriptions) {
      for (const key of ['k0', 'k1']) {
        const bodies = receiver.requests
          .filter((request) => request.path === new URL(subscription.url).pathname)
          .map((request) => JSON.parse(request.body).data.i)
          .filter((i) => `k${i % 2}` === key);
        const firsts = bodies.filter((i, at) => bodies.indexOf(i) === at);
        assert.deepEqual(firsts, [...firsts].sort((a, b) => a - b), `order of ${key}`);
      }
    }
  }, ONE_DIES);
});

describe('the database goes away', () => {
  clusterTest('and comes back: what was acknowledged is delivered', 3, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 20);
    const events = await publishOn(views, 10);
    await cluster.postgres.kill();
    const refused = await views[0].request('POST', '/events', { body: { type: 'invoice.paid', data: 1 } });
    assert.equal(refused.status, 503);
    assert.ok(refused.headers['retry-after']);
    await cluster.postgres.start();
    const accepted = async (view) => {
      const answer = await view.request('POST', '/events', { body: { type: 'invoice.paid', data: 2 } });
      return answer.status === 202 ? answer.json : null;
    };
    for (const view of views) events.push(await waitFor(() => accepted(view), { every: 100, what: 'a node to publish again' }));
    await arrived(receiver, events, subscriptions);
  }, { leaseMs: 10 * SECOND });

  clusterTest('for longer than a lease, and all nodes live on', 3, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const views = await tenantOn(cluster, nodes);
    const subscriptions = await subscribe(cluster, views, receiver, 20);
    const events = await publishOn(views, 5);
    await arrived(receiver, events, subscriptions);
    await cluster.postgres.stop();
    const left = async (node) => Number((await node.api.request('GET', '/metrics', { key: null })).text.match(/^posthorn_node_lease_seconds_left (\S+)/m)[1]);
    for (const node of nodes) await waitFor(async () => (await left(node)) === 0, { every: 100, what: 'the lease to be over' });
    await cluster.postgres.start();
    for (const node of nodes) await waitFor(async () => (await left(node)) > 0, { every: 100, what: 'the lease to be renewed' });
    events.push(...(await publishOn(views, 5)));
    await arrived(receiver, events, subscriptions);
    await cluster.settled(nodes);
    assert.ok(nodes.every((node) => node.running));
  }, { leaseMs: 30 * SECOND }); // of which those that come back later have a third
});

describe('roles', () => {
  clusterTest('one node publishes, one expands, one sends', 3, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const views = await tenantOn(cluster, nodes.slice(0, 1));
    assert.equal((await nodes[1].api.request('GET', '/v1/tenants')).status, 404);
    assert.equal((await nodes[2].api.request('GET', '/readyz', { key: null })).status, 200);
    const subscriptions = await subscribe(cluster, views, receiver, 10);
    const events = await publishOn(views, 10);
    await arrived(receiver, events, subscriptions);
    assert.equal(await cluster.owned(nodes[2]), 1024);
    assert.equal(await cluster.owned(nodes[0]), 0);
  }, { flags: [['--roles', 'api'], ['--roles', 'fanout'], ['--roles', 'deliver']] });

  clusterTest('premium lanes on nodes of their own', 2, async ({ cluster, nodes, receive }) => {
    const receiver = await receive();
    const premium = await tenantOn(cluster, nodes, { tier: 'premium' });
    const standard = await tenantOn(cluster, nodes);
    assert.equal(await cluster.owned(nodes[0], 'premium'), 1024);
    assert.equal(await cluster.owned(nodes[1], 'premium'), 0);
    for (const views of [premium, standard]) {
      const [one] = await subscribe(cluster, views, receiver, 1);
      const event = await views[1].publish();
      const delivery = await views[0].waitDelivery({ event_id: event.id, subscription_id: one.id });
      assert.equal(delivery.attempts[0].worker_id, views === premium ? 'node-1' : 'node-2');
    }
  }, { flags: [['--tiers', 'premium'], ['--tiers', 'standard,bulk']] });
});

describe('a tenant’s tier changes', () => {
  const OF_TIERS = { flags: [['--tiers', 'standard,bulk'], ['--tiers', 'premium']] };
  const becomePremium = (node, view) => node.api.expect(200, 'PATCH', `/v1/tenants/${view.id}`, { body: { tier: 'premium' } });

  clusterTest('and caps and order hold while its lanes move to another node', 2, async ({ cluster, nodes, receive }) => {
    const opened = gate();
    let here = 0;
    let most = 0;
    const receiver = await receive(async () => {
      most = Math.max(most, ++here);
      await opened.opened;
      here--;
      return 204;
    });
    const views = await tenantOn(cluster, nodes);
    const [one] = await subscribe(cluster, views, receiver, 1, { ordering: 'strict', policy: { ...QUICK, max_in_flight: 1 } });
    const events = await publishOn(views, 5);
    await receiver.received(1);
    await becomePremium(nodes[0], views[0]);
    await cluster.agreed();
    await waitFor(async () => (await views[1].get(`/subscriptions/${one.id}/stats`)).in_flight === 1, { what: 'the lane to be with the other node' });
    opened.open();
    await arrived(receiver, events, [one]);
    assert.equal(most, 1, 'at one time');
    assert.equal(receiver.requests.length, 5, 'nothing was sent twice');
    const workers = [];
    for (const event of events) workers.push((await views[1].waitDelivery({ event_id: event.id })).attempts[0].worker_id);
    assert.deepEqual(workers, ['node-1', 'node-2', 'node-2', 'node-2', 'node-2']);
  }, OF_TIERS);

  clusterTest('and no other node sends before the one that did is known to have stopped', 2, async ({ cluster, nodes, receive }) => {
    const lived = [];
    const receiver = await receive(async () => (lived.push(await cluster.postgres.sql("select count(*) from nodes where name = 'node-1'")), 204));
    const views = await tenantOn(cluster, nodes);
    const [one] = await subscribe(cluster, views, receiver, 1, { policy: QUICK });
    cluster.freeze(nodes[0]);
    await becomePremium(nodes[1], views[1]);
    const events = await publishOn([views[1]], 3);
    await arrived(receiver, events, [one]);
    await waitFor(() => lived.length === 3, { what: 'the database to have answered' });
    assert.deepEqual(lived, ['0', '0', '0'], 'it was declared dead before');
    cluster.wake(nodes[0]);
    assert.equal((await nodes[0].exited).code, 75);
  }, { ...OF_TIERS, ...ONE_DIES });
});
