// What the API answers to requests it refuses: RFC 9457 documents, the right status, and no effect.

import assert from 'node:assert/strict';
import net from 'node:net';
import { gzipSync } from 'node:zlib';

import { assertId, assertProblem } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';

const UNKNOWN = '01JZZZZZZZEZZ8ZZZZZZZZZZZZ';

suite('problems', ({ test }) => {
  test('400: a body that is not JSON', async ({ tenant }) => {
    for (const path of ['/events', '/subscriptions', '/events/batch']) {
      for (const body of ['', '{', '{"type":"a.b","data":1}x', "{'type':'a'}", '{"type":"a.b","data":01}', '[1,]', Buffer.from('{"type":"a.b","data":"\xff\xfe"}', 'latin1')]) {
        const response = await tenant.request('POST', path, { body });
        assertProblem(response, 400);
      }
    }
    assert.deepEqual((await tenant.get('/events')).data, []);
  });

  test('400: a body that ends early or holds a NUL', async ({ tenant }) => {
    for (const body of ['{"type":"a.b","data":', '{"type":"a.b","data":"\0"}', '{"type":"a.b","data":1}\0', '{"type":"a.b","data":NaN}']) {
      assertProblem(await tenant.request('POST', '/events', { body }), 400);
    }
  });

  test('a body nested without end is refused or kept, and the server lives on', async ({ tenant }) => {
    for (const depth of [500, 100_000]) {
      const data = '['.repeat(depth) + ']'.repeat(depth);
      const response = await tenant.request('POST', '/events', { body: `{"type":"a.b","data":${data}}` });
      if (response.status !== 202) assertProblem(response, response.status === 400 ? 400 : 422);
    }
    await tenant.publish();
  });

  test('400: a head that a proxy in front may read otherwise, and nothing behind it is a request', async ({ api, tenant }) => {
    const event = '{"type":"a.b","data":1}', key = `Authorization: Bearer ${api.server.adminKey}`;
    const publish = (...lines) => [`POST ${tenant.path}/events HTTP/1.1`, key, ...lines].join('\r\n') + '\r\n\r\n';
    const chunked = `${event.length.toString(16)}\r\n${event}\r\n0\r\n\r\n`, length = `Content-Length: ${event.length}`;
    const heads = {
      'two lengths': publish('Host: x', length, 'Content-Length: 5') + event,
      'one length twice': publish('Host: x', length, length) + event,
      'a length and a coding': publish('Host: x', 'Content-Length: 5', 'Transfer-Encoding: chunked') + chunked,
      'another coding': publish('Host: x', 'Transfer-Encoding: xchunked') + chunked,
      'another coding before chunked': publish('Host: x', 'Transfer-Encoding: gzip, chunked') + chunked,
      'chunked twice': publish('Host: x', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked') + chunked,
      'a space behind a name': publish('Host: x', 'Content-Length : 5') + event,
      'two hosts': publish('Host: x', 'Host: y', length) + event,
      'no host': publish(length) + event,
      'two keys': publish('Host: x', 'Authorization: Bearer x', length) + event,
    };
    for (const [what, head] of Object.entries(heads)) {
      const socket = net.connect(new URL(api.server.url).port, '127.0.0.1').setEncoding('latin1');
      let text = '';
      socket.write(`${head}GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n`);
      for await (const piece of socket) text += piece; // to its end: the connection is closed
      assert.match(text, /^HTTP\/1\.1 400 [^]*application\/problem\+json/, what);
      assert.equal(text.match(/HTTP\/1\.1 /g).length, 1, what);
    }
    assert.deepEqual((await tenant.get('/events')).data, []);
    // A client of HTTP/1.0 names no host.
    const old = net.connect(new URL(api.server.url).port, '127.0.0.1').setEncoding('latin1');
    old.write('GET /healthz HTTP/1.0\r\n\r\n');
    let text = '';
    for await (const piece of old) text += piece;
    assert.match(text, /^HTTP\/1\.[01] 200 /);
  });

  test('401: no key, a wrong one, another scheme', async ({ tenant }) => {
    const attempts = [
      { key: null },
      { key: 'wrong' },
      { key: '' },
      { key: null, headers: { authorization: 'Basic YWRtaW46YWRtaW4=' } },
      { key: null, headers: { authorization: tenant.api.server.adminKey } },
      { key: `${tenant.api.server.adminKey}x` },
      { key: tenant.api.server.adminKey.slice(0, -1) },
    ];
    for (const options of attempts) {
      for (const [method, path] of [['GET', '/events'], ['POST', '/events'], ['DELETE', ''], ['GET', `/subscriptions/sub_${UNKNOWN}`]]) {
        assertProblem(await tenant.request(method, path, { body: method === 'POST' ? {} : undefined, ...options }), 401);
      }
      assertProblem(await tenant.api.request('GET', '/v1/tenants', options), 401);
    }
    await tenant.get('/events');
  });

  test('the scheme of the authorization ignores case', async ({ tenant }) => {
    const headers = { authorization: `bearer ${tenant.api.server.adminKey}` };
    await tenant.expect(200, 'GET', '/events', { key: null, headers });
  });

  test('404: what does not exist', async ({ api, tenant }) => {
    const paths = [
      '/v1/nothing', '/nothing', '/v1/tenants/nobody', '/v1/tenants/nobody/events', '/v1/tenants/nobody/subscriptions',
      `${tenant.path}/nothing`, `${tenant.path}/events/evt_${UNKNOWN}`, `${tenant.path}/subscriptions/sub_${UNKNOWN}`,
      `${tenant.path}/deliveries/dlv_${UNKNOWN}`, `${tenant.path}/deliveries/dlv_${UNKNOWN}/attempts`,
    ];
    for (const path of paths) assertProblem(await api.request('GET', path), 404);
    assertProblem(await api.request('POST', '/v1/tenants/nobody/events', { body: { type: 'a.b', data: 1 } }), 404);
    assertProblem(await api.request('POST', '/v1/tenants/nobody/subscriptions', { body: { url: 'http://127.0.0.1:9/' } }), 404);
    assertProblem(await tenant.request('PATCH', `/subscriptions/sub_${UNKNOWN}`, { body: {} }), 404);
    assertProblem(await tenant.request('DELETE', `/subscriptions/sub_${UNKNOWN}`), 404);
    assertProblem(await tenant.request('POST', `/deliveries/dlv_${UNKNOWN}/replay`), 404);
  });

  test('400 or 404: an id that is none, a path that cannot be decoded', async ({ tenant }) => {
    for (const path of ['/events/evt_1', '/events/sub_' + UNKNOWN, '/events/..%2f..%2f', '/events/%zz', '/events/%00', `/events/${'x'.repeat(2000)}`]) {
      const response = await tenant.request('GET', path);
      assertProblem(response, response.status === 400 ? 400 : 404);
    }
  });

  test('404: another tenant’s objects', async ({ api, tenant, receiver }) => {
    const shop = await receiver();
    const subscription = await tenant.subscribe(shop.url());
    const event = await tenant.publish();
    const delivery = await tenant.waitDelivery(event);
    const other = await api.createTenant();
    for (const path of [`/subscriptions/${subscription.id}`, `/subscriptions/${subscription.id}/secrets`, `/events/${event.id}`, `/deliveries/${delivery.id}`, `/deliveries/${delivery.id}/attempts`]) {
      await tenant.get(path);
      assertProblem(await other.request('GET', path), 404);
    }
    assertProblem(await other.request('PATCH', `/subscriptions/${subscription.id}`, { body: { status: 'paused' } }), 404);
    assertProblem(await other.request('DELETE', `/subscriptions/${subscription.id}`), 404);
    assertProblem(await other.request('POST', `/subscriptions/${subscription.id}/rotate-secret`, { body: {} }), 404);
    assertProblem(await other.request('POST', `/subscriptions/${subscription.id}/test`), 404);
    assertProblem(await other.request('POST', `/deliveries/${delivery.id}/replay`), 404);
    assert.deepEqual(await other.deliveries(), []);
    assert.equal((await tenant.subscription(subscription.id)).status, 'active');
  });

  test('405 with Allow: a verb that the path does not have', async ({ api, tenant }) => {
    const cases = [
      ['DELETE', '/v1/tenants', ['GET', 'POST']],
      ['POST', tenant.path, ['GET', 'PATCH', 'DELETE']],
      ['PUT', `${tenant.path}/subscriptions`, ['GET', 'POST']],
      ['POST', `${tenant.path}/subscriptions/sub_${UNKNOWN}`, ['GET', 'PATCH', 'DELETE']],
      ['DELETE', `${tenant.path}/events`, ['GET', 'POST']],
      ['DELETE', `${tenant.path}/events/evt_${UNKNOWN}`, ['GET']],
      ['POST', `${tenant.path}/deliveries`, ['GET']],
      ['DELETE', `${tenant.path}/deliveries/dlv_${UNKNOWN}`, ['GET']],
      ['GET', `${tenant.path}/deliveries/dlv_${UNKNOWN}/replay`, ['POST']],
      ['POST', '/healthz', ['GET']],
    ];
    for (const [method, path, allowed] of cases) {
      const response = await api.request(method, path, { body: method === 'GET' ? undefined : {} });
      assertProblem(response, 405);
      const allow = response.headers.allow.split(/\s*,\s*/);
      for (const verb of allowed) assert.ok(allow.includes(verb), `${method} ${path}: Allow is "${response.headers.allow}"`);
      assert.ok(!allow.includes(method));
    }
  });

  test('409: a tenant that exists', async ({ api, tenant }) => {
    assertProblem(await api.request('POST', '/v1/tenants', { body: { id: tenant.id, name: 'again' } }), 409);
  });

  test('415: another content type', async ({ tenant }) => {
    const body = '{"type":"a.b","data":1}';
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/xml', 'application/x-ndjson', 'application/jsonp']) {
      assertProblem(await tenant.request('POST', '/events', { body, headers: { 'content-type': type } }), 415);
    }
    assertProblem(await tenant.request('POST', '/events/batch', { body: `[${body}]`, headers: { 'content-type': 'text/plain' } }), 415);
    const compressed = { body: gzipSync(body), headers: { 'content-encoding': 'gzip' } };
    for (const [method, path] of [['POST', '/events'], ['POST', '/events/batch'], ['POST', '/subscriptions']]) {
      const refused = await tenant.request(method, path, compressed);
      assertProblem(refused, 415);
      assert.equal(refused.headers['accept-encoding'], 'identity');
    }
    await tenant.publishText(body, { 'content-encoding': 'identity' });
    for (const type of ['application/json; charset=utf-8', 'Application/JSON', 'application/json;charset=UTF-8']) {
      await tenant.publishText(body, { 'content-type': type });
    }
  });

  test('422: JSON of another kind than an object', async ({ tenant }) => {
    for (const body of ['[]', '1', '"a"', 'null', 'true']) {
      assertProblem(await tenant.request('POST', '/events', { body }), 422);
      assertProblem(await tenant.request('POST', '/subscriptions', { body }), 422);
    }
  });

  test('422: every bad field of an event is listed, unknown ones too', async ({ tenant }) => {
    const body = { type: 'no spaces', data: 1, schema_version: 3, ordering_key: 7, deliver_at: 'soon', colour: 'red', size: 1 };
    const response = await tenant.request('POST', '/events', { body });
    assertProblem(response, 422, ['type', 'schema_version', 'ordering_key', 'deliver_at', 'colour', 'size']);
    assert.deepEqual((await tenant.get('/events')).data, []);
  });

  test('422: type and data of an event must be there', async ({ tenant }) => {
    assertProblem(await tenant.request('POST', '/events', { body: {} }), 422, ['type', 'data']);
  });

  test('422: event types', async ({ tenant }) => {
    for (const type of ['', 'a b', 'a/b', 'ä', 'a'.repeat(129), 'posthorn.test', 'posthorn.', 'a\n', 1, null, ['a']]) {
      assertProblem(await tenant.request('POST', '/events', { body: { type, data: 1 } }), 422, ['type']);
    }
    for (const type of ['a', 'A.b-c_d.9', 'a'.repeat(128), 'posthornish', '.', '-']) await tenant.publish(type);
  });

  test('422: every bad field of a subscription is listed, unknown ones too', async ({ tenant }) => {
    const body = {
      url: 'ftp://127.0.0.1/', event_types: ['a b'], description: 5, metadata: [], status: 'sleeping', ordering: 'maybe',
      format: 'xml', signature: 'md5', headers: { 'x-a': 'b\r\nx-c: d' }, colour: 'red', secret: 'short',
    };
    const response = await tenant.request('POST', '/subscriptions', { body });
    assertProblem(response, 422, Object.keys(body));
    assert.deepEqual((await tenant.get('/subscriptions')).data, []);
  });

  test('422: every bad field of a policy is listed, unknown ones too', async ({ tenant }) => {
    const policy = {
      timeout_ms: 99, max_in_flight: 0, rate_limit: { per_second: -1 }, retry: { schedule_seconds: [-1] }, max_attempts: 0,
      window_seconds: -1, retry_on: [99], no_retry_on: ['x'], disable_after_seconds: -1, patience: 1,
    };
    const response = await tenant.request('POST', '/subscriptions', { body: { url: 'http://127.0.0.1:9/', policy } });
    assertProblem(response, 422, Object.keys(policy));
  });

  test('422: single values of a policy', async ({ tenant }) => {
    const bad = [
      { timeout_ms: 60_001 }, { timeout_ms: '5000' }, { timeout_ms: 500.5 }, { retry: { jitter: 1.1 } }, { retry: { jitter: -0.1 } },
      { retry: { schedule_seconds: 'often' } }, { retry: { initial_seconds: 'soon' } }, { retry: { schedule_seconds: [1], patience: 1 } },
      { retry: [] }, { max_attempts: 'many' },
    ];
    for (const policy of bad) {
      const [name] = Object.keys(policy);
      assertProblem(await tenant.request('POST', '/subscriptions', { body: { url: 'http://127.0.0.1:9/', policy } }), 422, [name]);
    }
    for (const policy of [{ timeout_ms: 100 }, { timeout_ms: 60_000 }, { retry: { jitter: 0 } }, { retry: { jitter: 1 } }]) {
      await tenant.subscribe('http://127.0.0.1:9/', { policy });
    }
  });

  test('422: addresses that nothing may be sent to', async ({ tenant }) => {
    const urls = [
      'http://10.0.0.1/', 'http://169.254.169.254/latest', 'http://[::1]:8080/', 'http://192.168.1.1/', 'http://0.0.0.0/',
      'http://user:secret@127.0.0.1:8080/', 'http://user@127.0.0.1:8080/', 'file:///etc/passwd', 'gopher://127.0.0.1/', '/hook', 'http://', 'http:///hook',
      'http://127.0.0.1:0/', 'http://127.0.0.1:65536/', 'http://127.0.0.1:x/', 'hook', '', 'http://127.0.0.1/a b', 'http://127.0.0.1/\r\nx: y', null, 5,
    ];
    for (const url of urls) assertProblem(await tenant.request('POST', '/subscriptions', { body: { url } }), 422, ['url']);
    await tenant.subscribe('http://a-name-that-does-not-resolve.invalid/hook');
  });

  test('422: tenants', async ({ api }) => {
    for (const id of ['', 'a b', 'a/b', 'ä', 'x'.repeat(65), 7, null]) {
      assertProblem(await api.request('POST', '/v1/tenants', { body: { id, name: 'x' } }), 422, ['id']);
    }
    const body = { id: 'fine', name: 7, tier: 'gold', limits: { events_per_second: -1, parsecs: 1 }, colour: 'red' };
    assertProblem(await api.request('POST', '/v1/tenants', { body }), 422, ['name', 'tier', 'events_per_second', 'parsecs', 'colour']);
    assertProblem(await api.request('GET', '/v1/tenants/fine'), 404);
  });

  test('413: an event over the limit', async ({ tenant }) => {
    const body = (size) => `{"type":"a.b","data":"${'x'.repeat(size)}"}`;
    assertProblem(await tenant.request('POST', '/events', { body: body(1024 * 1024) }), 413);
    const event = await tenant.publishText(body(1024 * 1024 - 1024));
    assertId(event.id, 'evt');
  });

  test('413: an event over the limit of its tenant', async ({ api }) => {
    const small = await api.createTenant({ limits: { max_payload_bytes: 1000 } });
    assertProblem(await small.request('POST', '/events', { body: { type: 'a.b', data: 'x'.repeat(1001) } }), 413);
    await small.publish('a.b', 'x'.repeat(500));
  });

  test('a number, a key or a string of any size is no reason to fall over', async ({ tenant }) => {
    const hostile = ['1e999999', `1${'0'.repeat(5000)}`, `{"${'k'.repeat(50_000)}":1}`, '"\\u0000"', '"\\ud800"', '-0', '{"a":1,"a":2}', '{"":""}'];
    for (const data of hostile) {
      const response = await tenant.request('POST', '/events', { body: `{"type":"a.b","data":${data}}` });
      assert.ok([202, 400, 422].includes(response.status), `${data.slice(0, 40)} answered ${response.status}`);
      if (response.status === 202) {
        const { text } = await tenant.request('GET', `/events/${response.json.id}`);
        assert.ok(text.includes(data), `${data.slice(0, 40)} came back changed`);
      }
    }
  });
});
