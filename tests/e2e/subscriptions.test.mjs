// Subscriptions: changing, pausing, deleting them; their secrets, headers and test events.

import assert from 'node:assert/strict';

import { when } from './lib/receiver.mjs';
import { assertFields, assertId, assertProblem, assertTime, states } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';
import { gate, waitFor } from './lib/wait.mjs';

const LATER = { retry: { schedule_seconds: [3600], jitter: 0 } };

suite('subscriptions', ({ test }) => {
  test('PATCH merges; null restores the default', async ({ tenant }) => {
    const made = await tenant.subscribe('http://127.0.0.1:9/', {
      description: 'first', metadata: { a: '1', b: '2' }, event_types: ['a.*'], headers: { 'x-a': '1' },
      policy: { timeout_ms: 2000, max_in_flight: 3, retry: { schedule_seconds: [7], jitter: 0 } },
    });
    await waitFor(() => Date.now() > Date.parse(made.updated_at) + 2);
    const changed = await tenant.change(made.id, { metadata: { a: null, c: '3' }, policy: { timeout_ms: 3000 } });
    assert.deepEqual(changed.metadata, { b: '2', c: '3' });
    assert.equal(changed.policy.timeout_ms, 3000);
    assert.equal(changed.policy.max_in_flight, 3);
    assert.deepEqual(changed.policy.retry, { schedule_seconds: [7], jitter: 0 });
    assert.equal(changed.description, 'first');
    assert.ok(changed.updated_at > made.updated_at);
    assert.equal(changed.created_at, made.created_at);
    assert.ok(!('secret' in changed));
    assert.deepEqual(await tenant.subscription(made.id), changed);

    const restored = await tenant.change(made.id, { description: null, event_types: null, policy: { timeout_ms: null, retry: null } });
    assert.equal(restored.description, '');
    assert.deepEqual(restored.event_types, []);
    assert.equal(restored.policy.timeout_ms, 15_000);
    assert.equal(restored.policy.max_in_flight, 3);
    assert.deepEqual(restored.policy.retry, { initial_seconds: 5, multiplier: 4, max_seconds: 21_600, jitter: 0.2 });
    assert.equal((await tenant.change(made.id, { policy: null })).policy.max_in_flight, 10);
    assert.deepEqual((await tenant.change(made.id, { metadata: null, headers: null })).metadata, {});
  });

  test('PATCH takes both content types, and an empty change', async ({ tenant }) => {
    const { id } = await tenant.subscribe('http://127.0.0.1:9/');
    for (const type of ['application/json', 'application/merge-patch+json']) {
      const answer = await tenant.expect(200, 'PATCH', `/subscriptions/${id}`, { body: { description: type }, headers: { 'content-type': type } });
      assert.equal(answer.description, type);
    }
    assert.equal((await tenant.change(id, {})).description, 'application/merge-patch+json');
  });

  test('PATCH refuses what POST refuses, and changes nothing then', async ({ tenant }) => {
    const made = await tenant.subscribe('http://127.0.0.1:9/');
    const before = await tenant.subscription(made.id);
    const bad = { id: 'sub_1', tenant_id: 'x', created_at: 'now', url: 'ftp://x/', colour: 'red', status: 'asleep', policy: { timeout_ms: 1 } };
    const response = await tenant.request('PATCH', `/subscriptions/${made.id}`, { body: { description: 'changed', ...bad } });
    assertProblem(response, 422, ['id', 'tenant_id', 'created_at', 'url', 'colour', 'status', 'timeout_ms']);
    assertProblem(await tenant.request('PATCH', `/subscriptions/${made.id}`, { body: '{' }), 400);
    assertProblem(await tenant.request('PATCH', `/subscriptions/${made.id}`, { body: { url: null } }), 422, ['url']);
    const misspelt = { colour: null, policy: { timout_ms: null, retry: { initial: null } }, metadata: { none: null } };
    const { json } = await tenant.request('PATCH', `/subscriptions/${made.id}`, { body: misspelt });
    assert.deepEqual(json.errors.map(({ field }) => field).toSorted(), ['colour', 'policy.retry.initial', 'policy.timout_ms']);
    assertProblem(await tenant.request('PATCH', `/subscriptions/${made.id}`, { body: '[]' }), 422);
    assertProblem(await tenant.request('PATCH', `/subscriptions/${made.id}`, { body: '{}', headers: { 'content-type': 'text/plain' } }), 415);
    assert.deepEqual(await tenant.subscription(made.id), before);
  });

  test('a change is in force from its answer on', async ({ tenant, receiver }) => {
    const [old, moved] = [await receiver(), await receiver()];
    const { id } = await tenant.subscribe(old.url(), { event_types: ['a.*'] });
    await tenant.change(id, { url: moved.url(), event_types: ['b.*'] });
    assert.equal((await tenant.event((await tenant.publish('a.b')).id)).fanout.deliveries, 0);
    await tenant.waitDelivery(await tenant.publish('b.c'));
    assert.equal(moved.requests.length, 1);
    assert.equal(old.requests.length, 0);
  });

  test('paused: events match, nothing is sent; resumed: everything is', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const other = await receiver();
    const { id } = await tenant.subscribe(shop.url(), { format: 'raw' });
    await tenant.subscribe(other.url());
    await tenant.change(id, { status: 'paused' });
    for (let i = 0; i < 5; i++) await tenant.publish('a.b', i);
    await other.received(5);
    const waiting = await tenant.deliveries({ subscription_id: id });
    assert.deepEqual(waiting.map((delivery) => delivery.state), Array(5).fill('PENDING'));
    assert.equal(shop.requests.length, 0);

    await tenant.change(id, { status: 'active' });
    const requests = await shop.received(5);
    assert.deepEqual(requests.map((request) => request.text).sort(), ['0', '1', '2', '3', '4']);
  });

  test('disabled: new events do not match, open tasks wait', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { id } = await tenant.subscribe(shop.url(), { status: 'paused' });
    const kept = await tenant.publish('a.b', 'kept');
    assert.equal((await tenant.change(id, { status: 'disabled' })).status, 'disabled');
    const missed = await tenant.publish('a.b', 'missed');
    assert.equal((await tenant.event(missed.id)).fanout.deliveries, 0);
    assert.equal((await tenant.event(kept.id)).fanout.deliveries, 1);
    await tenant.change(id, { status: 'active' });
    await tenant.waitDelivery(kept);
    assert.deepEqual(shop.requests.map((request) => request.json.data), ['kept']);
  });

  test('DELETE answers 204; its open tasks go to the dead-letter queue', async ({ tenant, receiver }) => {
    const shop = await receiver([500]);
    const { id } = await tenant.subscribe(shop.url(), { policy: LATER });
    const event = await tenant.publish();
    const { id: open } = await tenant.waitDelivery(event, 'RETRY');
    const pausedOne = await tenant.subscribe(shop.url(), { status: 'paused' });
    const pending = await tenant.publish();

    for (const subscription of [id, pausedOne.id]) {
      const response = await tenant.request('DELETE', `/subscriptions/${subscription}`);
      assert.equal(response.status, 204);
      assert.equal(response.text, '');
      assertProblem(await tenant.request('GET', `/subscriptions/${subscription}`), 404);
      assertProblem(await tenant.request('DELETE', `/subscriptions/${subscription}`), 404);
    }
    const dead = await tenant.waitDelivery(open, 'DLQ');
    assert.equal(dead.failure_reason, 'subscription_deleted');
    assert.deepEqual(states(dead), ['PENDING', 'ATTEMPTING', 'RETRY', 'DLQ']);
    const unsent = await tenant.waitDelivery({ event_id: pending.id, subscription_id: pausedOne.id }, 'DLQ');
    assert.equal(unsent.failure_reason, 'subscription_deleted');
    assert.deepEqual(states(unsent), ['PENDING', 'DLQ']);
    assert.deepEqual((await tenant.get('/subscriptions')).data, []);
    assert.equal((await tenant.event((await tenant.publish()).id)).fanout.deliveries, 0);
    assertProblem(await tenant.request('POST', `/deliveries/${open}/replay`), 409);
  });

  test('DELETE answers once sending has stopped', async ({ tenant, receiver }) => {
    const shop = await receiver([{ status: 500, delay_ms: 300 }]);
    const { id } = await tenant.subscribe(shop.url(), { policy: { max_in_flight: 2, retry: { schedule_seconds: Array(20).fill(0), jitter: 0 } } });
    for (let i = 0; i < 5; i++) await tenant.publish('a.b', i);
    await shop.received(2);
    await tenant.expect(204, 'DELETE', `/subscriptions/${id}`);
    const sent = shop.requests.length;
    await waitFor(async () => (await tenant.deliveries({ subscription_id: id })).every((delivery) => delivery.state === 'DLQ'));
    assert.equal(shop.requests.length, sent);
  });

  test('custom headers are sent', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { id } = await tenant.subscribe(shop.url(), { headers: { 'X-Api-Key': 'k 1', authorization: 'Bearer theirs' } });
    await tenant.waitDelivery(await tenant.publish());
    assert.equal(shop.requests[0].headers['x-api-key'], 'k 1');
    assert.equal(shop.requests[0].headers.authorization, 'Bearer theirs');
    await tenant.change(id, { headers: { 'X-Api-Key': null, 'x-b': '2' } });
    await tenant.waitDelivery(await tenant.publish());
    assert.equal(shop.requests[1].headers['x-api-key'], undefined);
    assert.equal(shop.requests[1].headers['x-b'], '2');
  });

  test('headers that would break the request or its signature are refused', async ({ tenant }) => {
    const reserved = [
      'host', 'Host', 'HOST', 'Content-Length', 'transfer-encoding', 'connection', 'Webhook-Id', 'webhook-signature', 'WEBHOOK-timestamp', 'webhook-',
      'posthorn-attempt', 'Posthorn-Event-Id', 'posthorn-receipt-token', 'posthorn-x', 'content-type', 'user-agent', 'keep-alive', 'te', 'trailer',
      'upgrade', 'expect', 'proxy-authorization', 'Proxy-Connection', 'traceparent', 'TraceState',
    ];
    const bad = [
      { 'x-a': 'b\r\nx-c: d' }, { 'x-a': 'b\nc' }, { 'x-a': 'b\rc' }, { 'x-a': '\n' }, { 'x-a': 'b\0c' }, { 'x-a': '\0' }, { 'x-a': 'b\x7f' }, { 'x-a': '\x1b[0m' },
      { 'x-a\r\n': 'b' }, { 'x-a\nhost': 'b' }, { 'x-a:': 'b' }, { 'x a': 'b' }, { ' host': 'b' }, { 'host ': 'b' }, { 'x-ü': 'b' }, { 'x-a\t': 'b' }, { '': 'b' },
      { 'x-a': 5 }, { 'x-a': ['b'] }, { 'x-a': { b: 'c' } }, { 'X-A': '1', 'x-a': '2' }, { 'x-a': 'v'.repeat(4096) },
      Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`x-${i}`, ''])),
      ...reserved.map((name) => ({ [name]: 'x' })),
    ];
    const { id } = await tenant.subscribe('http://127.0.0.1:9/', { headers: { 'x-mine': '1' } });
    for (const headers of bad) {
      assertProblem(await tenant.request('POST', '/subscriptions', { body: { url: 'http://127.0.0.1:9/', headers } }), 422, ['headers']);
      assertProblem(await tenant.request('PATCH', `/subscriptions/${id}`, { body: { headers } }), 422, ['headers']);
    }
    // A NUL in a name is no name that a JSON parser would let us see.
    const nul = await tenant.request('POST', '/subscriptions', { body: '{"url":"http://127.0.0.1:9/","headers":{"x\\u0000":"b"}}' });
    assertProblem(nul, 422);
    assert.deepEqual((await tenant.get('/subscriptions')).data.map((one) => one.headers), [{ 'x-mine': '1' }]);
  });

  test('headers that are odd and legal arrive as they are, and bring nothing with them', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const plain = await receiver();
    const headers = {
      "!#$%&'*+-.^_`|~9Aa": 'token', 'x-empty': '', 'x-colon': 'a: b', 'x-quotes': '"a\\b"', 'x-percent': '%0d%0aevil: 1', 'x-comma': 'a,b;c=d',
      'x-utf8': 'ü“”', 'x-long': 'v'.repeat(4000), authorization: 'Bearer abc', cookie: 'a=b', 'webhooks-are': 'not webhook-', 'x-webhook-id': 'mine',
    };
    await tenant.subscribe(shop.url(), { headers });
    await tenant.subscribe(plain.url());
    await tenant.publish();
    const [[request], [bare]] = [await shop.received(), await plain.received()];
    for (const [name, value] of Object.entries(headers)) {
      assert.equal(Buffer.from(request.headers[name.toLowerCase()], 'latin1').toString(), value, name);
    }
    assert.equal(request.rawHeaders.length, bare.rawHeaders.length + 2 * Object.keys(headers).length);
  });

  test('the test endpoint sends posthorn.test to this subscription alone', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const other = await receiver();
    const { id, secret } = await tenant.subscribe(shop.url(), { event_types: ['a.*'] });
    await tenant.subscribe(other.url(), { event_types: ['posthorn.*'] });
    const answer = await tenant.expect(202, 'POST', `/subscriptions/${id}/test`);
    assertId(answer.delivery_id, 'dlv');
    const delivery = await tenant.waitDelivery(answer.delivery_id);
    assert.equal(delivery.event_type, 'posthorn.test');
    assert.equal(delivery.subscription_id, id);
    assert.deepEqual(delivery.attempts.map((attempt) => attempt.trigger), ['test']);
    const [request] = shop.requests;
    request.verify(secret);
    assert.equal(request.json.type, 'posthorn.test');
    assert.equal(request.id, answer.delivery_id);
    await tenant.publish('a.b');
    await shop.received(2);
    assert.equal(other.requests.length, 0);
  });
});

suite('secrets', ({ test }) => {
  test('the list shows what signs, never the secret', async ({ tenant }) => {
    const { id, secret } = await tenant.subscribe('http://127.0.0.1:9/');
    const response = await tenant.request('GET', `/subscriptions/${id}/secrets`);
    assert.equal(response.status, 200);
    assert.ok(!response.text.includes(secret) && !response.text.includes(secret.slice(6, 30)));
    const { data } = response.json;
    assert.equal(data.length, 1);
    assertFields(data[0], ['id', 'scheme', 'created_at', 'expires_at', 'public_key']);
    assertId(data[0].id, 'sec');
    assertTime(data[0].created_at);
    assert.equal(data[0].expires_at, null);
    assert.equal(data[0].public_key, null);
  });

  test('after a rotation both secrets sign', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { id, secret } = await tenant.subscribe(shop.url());
    const rotated = await tenant.expect(200, 'POST', `/subscriptions/${id}/rotate-secret`, { body: { overlap_seconds: 3600 } });
    assert.match(rotated.secret, /^whsec_/);
    assert.notEqual(rotated.secret, secret);
    await tenant.publish();
    const [request] = await shop.received();
    request.verify(secret);
    request.verify(rotated.secret);
    assert.equal(request.headers['webhook-signature'].split(' ').length, 2);

    const { data } = await tenant.get(`/subscriptions/${id}/secrets`);
    assert.equal(data.length, 2);
    const expiring = data.filter((one) => one.expires_at !== null);
    assert.equal(expiring.length, 1);
    assert.ok(Math.abs(Date.parse(expiring[0].expires_at) - Date.now() - 3_600_000) < 60_000);
  });

  test('without an overlap the old secret signs no more', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { id, secret } = await tenant.subscribe(shop.url());
    const mine = `whsec_${Buffer.alloc(24, 3).toString('base64')}`;
    const rotated = await tenant.expect(200, 'POST', `/subscriptions/${id}/rotate-secret`, { body: { overlap_seconds: 0, secret: mine } });
    assert.equal(rotated.secret, mine);
    await tenant.publish();
    const [request] = await shop.received();
    request.verify(mine);
    assert.throws(() => request.verify(secret));
    assert.equal((await tenant.get(`/subscriptions/${id}/secrets`)).data.length, 1);
  });

  test('422: secrets that are none', async ({ tenant }) => {
    const { id } = await tenant.subscribe('http://127.0.0.1:9/');
    const bytes = (n) => `whsec_${Buffer.alloc(n, 1).toString('base64')}`;
    for (const secret of [bytes(23), bytes(65), 'whsec_', 'whsec_!!!!', Buffer.alloc(32).toString('base64'), '', 5]) {
      assertProblem(await tenant.request('POST', '/subscriptions', { body: { url: 'http://127.0.0.1:9/', secret } }), 422, ['secret']);
      assertProblem(await tenant.request('POST', `/subscriptions/${id}/rotate-secret`, { body: { secret } }), 422, ['secret']);
    }
    assertProblem(await tenant.request('POST', `/subscriptions/${id}/rotate-secret`, { body: { overlap_seconds: -1, colour: 1 } }), 422, ['overlap_seconds', 'colour']);
    for (const secret of [bytes(24), bytes(64)]) await tenant.subscribe('http://127.0.0.1:9/', { secret });
  });
});

suite('order', ({ test }) => {
  test('key: one at a time and in publish order for each key; other keys go on', async ({ tenant, receiver }) => {
    const others = gate();
    const shop = await receiver(async (request) => {
      if (request.text === '"b1"') others.open();
      if (request.text !== '"a1"' || request.attempt > 1) return 204;
      await others.opened; // the first of key a fails only when key b has been served
      return 500;
    });
    await tenant.subscribe(shop.url(), { ordering: 'key', format: 'raw', policy: { retry: { schedule_seconds: [0, 1], jitter: 0 } } });
    for (const [data, ordering_key] of [['a1', 'a'], ['a2', 'a'], ['b1', 'b'], ['a3', 'a']]) await tenant.publish('x', data, { ordering_key });
    const requests = await shop.received(5);
    const came = requests.map((request) => JSON.parse(request.text));
    assert.deepEqual(came.filter((data) => data.startsWith('a')), ['a1', 'a1', 'a2', 'a3']);
  });

  test('strict: publish order through a failing first attempt', async ({ tenant, receiver }) => {
    const shop = await receiver([500, 500, 204]);
    await tenant.subscribe(shop.url(), { ordering: 'strict', format: 'raw', policy: { retry: { schedule_seconds: [0, 1], jitter: 0 } } });
    await tenant.publish('x', 0);
    await tenant.expect(202, 'POST', '/events/batch', { body: [1, 2, 3].map((data) => ({ type: 'x', data })) });
    await tenant.publish('x', 4);
    const requests = await shop.received(7);
    assert.deepEqual(requests.map((request) => request.text), ['0', '0', '0', '1', '2', '3', '4']);
    assert.equal(Math.max(...requests.map((request) => request.concurrency)), 1);
  });

  test('strict: the dead-letter queue lets the next one go', async ({ tenant, receiver }) => {
    const shop = await receiver([404, 204]);
    await tenant.subscribe(shop.url(), { ordering: 'strict', format: 'raw' });
    for (const data of [1, 2]) await tenant.publish('x', data);
    const requests = await shop.received(2);
    assert.deepEqual(requests.map((request) => request.text), ['1', '2']);
  });

  test('strict: a task not yet due blocks nobody', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url(), { ordering: 'strict', format: 'raw' });
    await tenant.publish('x', 'later', { deliver_at: new Date(Date.now() + 3_600_000).toISOString() });
    await tenant.waitDelivery(await tenant.publish('x', 'now'));
    assert.deepEqual(shop.requests.map((request) => request.text), ['"now"']);
  });

  test('key without an ordering key: unordered', async ({ tenant, receiver }) => {
    const second = gate();
    const shop = await receiver(async (request) => {
      if (request.text === '2') second.open();
      await second.opened; // holds the first until the second is there: ordered, it never would be
      return 204;
    });
    await tenant.subscribe(shop.url(), { ordering: 'key', format: 'raw', policy: { timeout_ms: 30_000 } });
    for (const data of [1, 2]) await tenant.publish('x', data);
    await waitFor(async () => (await tenant.deliveries({ state: 'delivered' })).length === 2);
  });
});

suite('replay', ({ test }) => {
  test('a delivery from the dead-letter queue: same id, same bytes, next number', async ({ tenant, receiver }) => {
    const shop = await receiver([404, 500, 204]);
    const { id: subscription_id, secret } = await tenant.subscribe(shop.url());
    const event = await tenant.publishText('{"type":"a.b","data":{ "n" : 1.0 }}');
    const dead = await tenant.waitDelivery(event, 'DLQ');
    assert.equal(dead.replay, null);

    await tenant.expect(202, 'POST', `/deliveries/${dead.id}/replay`);
    const delivery = await tenant.waitDelivery(dead.id, 'DELIVERED', { mayPassTerminal: true });
    const [first, ...later] = shop.requests;
    for (const request of later) {
      request.verify(secret);
      assert.equal(request.id, first.id);
      assert.equal(request.text, first.text);
      assert.equal(request.headers['posthorn-event-id'], event.id);
    }
    assert.deepEqual(shop.requests.map((request) => request.attempt), [1, 2, 3]);
    assert.deepEqual(delivery.attempts.map(({ number, trigger }) => [number, trigger]), [[1, 'schedule'], [2, 'replay'], [3, 'replay']]);
    assert.equal(delivery.id, dead.id);
    assert.equal(delivery.event_id, event.id);
    assert.equal(delivery.subscription_id, subscription_id);
    assertFields(delivery.replay, ['source', 'requested_by', 'at']);
    assertTime(delivery.replay.at);
    assert.equal(delivery.failure_reason, null);
    assert.equal(delivery.exhausted_at, null);
    assert.deepEqual(states(delivery), [
      'PENDING', 'ATTEMPTING', 'DLQ', 'REPLAYING', 'ATTEMPTING', 'RETRY', 'ATTEMPTING', 'DELIVERED',
    ]);
  });

  test('a delivered one too, and the attempts begin afresh', async ({ tenant, receiver }) => {
    const shop = await receiver([204, 500, 204]);
    await tenant.subscribe(shop.url(), { policy: { max_attempts: 2, retry: { schedule_seconds: [0], jitter: 0 } } });
    const { id } = await tenant.waitDelivery(await tenant.publish());
    await tenant.expect(202, 'POST', `/deliveries/${id}/replay`);
    await shop.received(3);
    const delivery = await tenant.waitDelivery(id);
    assert.equal(delivery.attempt_count, 3);
  });

  test('409: a delivery that is still open', async ({ tenant, receiver }) => {
    const release = gate();
    const shop = await receiver([500, when(release.opened)]);
    await tenant.subscribe(shop.url(), { policy: LATER });
    const { id } = await tenant.waitDelivery(await tenant.publish(), 'RETRY');
    assertProblem(await tenant.request('POST', `/deliveries/${id}/replay`), 409);
    const sending = await tenant.publish();
    await shop.received(2);
    const { id: inFlight } = await tenant.waitDelivery(sending, 'ATTEMPTING');
    assertProblem(await tenant.request('POST', `/deliveries/${inFlight}/replay`), 409);
    release.open();
    await tenant.waitDelivery(inFlight);
  });
});
