// Batches: a JSON array or NDJSON, all or nothing, answers in order.

import assert from 'node:assert/strict';

import { assertFields, assertId, assertProblem } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';

const NDJSON = { 'content-type': 'application/x-ndjson' };

suite('batch', ({ test }) => {
  const batch = (tenant, body, headers = {}) => tenant.request('POST', '/events/batch', { body, headers });

  test('a JSON array: answers in order, bytes kept', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url(), { format: 'raw', ordering: 'strict' });
    const values = ['1.0', '{ "b":1,"a":2 }', '"\\u00e9"', '12345678901234567890'];
    const response = await batch(tenant, `[ ${values.map((data, i) => `{"type":"n${i}","data":${data}}`).join(' ,\n')} ]`);
    assert.equal(response.status, 202);
    assertFields(response.json, ['data']);
    assert.deepEqual(response.json.data.map(({ type }) => type), ['n0', 'n1', 'n2', 'n3']);
    for (const answer of response.json.data) {
      assertFields(answer, ['id', 'type', 'created_at', 'duplicate']);
      assertId(answer.id, 'evt');
    }
    const requests = await shop.received(4);
    assert.deepEqual(requests.map((request) => request.text), values);
    assert.deepEqual(requests.map((request) => request.headers['posthorn-event-id']), response.json.data.map(({ id }) => id));
  });

  test('NDJSON: a line each, with or without a last line end', async ({ tenant }) => {
    const line = (i) => `{"type":"n${i}","data":${i}}`;
    for (const body of [`${line(0)}\n${line(1)}\n`, `${line(0)}\n${line(1)}`, `${line(0)}\r\n${line(1)}\r\n`]) {
      const response = await batch(tenant, body, NDJSON);
      assert.equal(response.status, 202, response.text);
      assert.deepEqual(response.json.data.map(({ type }) => type), ['n0', 'n1']);
    }
    assert.equal((await tenant.all('/events')).length, 6);
  });

  test('data nested as deep as it may be, alone and in a batch', async ({ tenant }) => {
    const event = (levels) => `{"type":"a.b","data":${'['.repeat(levels)}${']'.repeat(levels)}}`;
    const bodies = (levels) => [['/events', event(levels)], ['/events/batch', `[${event(1)},${event(levels)}]`], ['/events/batch', `${event(1)}\n${event(levels)}`, NDJSON]];
    for (const [path, body, headers] of bodies(64)) {
      assert.equal((await tenant.request('POST', path, { body, headers })).status, 202, path);
    }
    for (const [path, body, headers] of bodies(65)) {
      assertProblem(await tenant.request('POST', path, { body, headers }), 400);
    }
    assert.equal((await tenant.all('/events')).length, 5);
  });

  test('a thousand events are a batch, one more is not', async ({ tenant }) => {
    const events = (n) => Array.from({ length: n }, (_, i) => ({ type: 'a.b', data: i }));
    const refused = await batch(tenant, events(1001));
    assertProblem(refused, refused.status === 413 ? 413 : 422);
    assert.deepEqual((await tenant.get('/events')).data, []);
    const accepted = await batch(tenant, events(1000));
    assert.equal(accepted.status, 202);
    assert.equal(new Set(accepted.json.data.map(({ id }) => id)).size, 1000);
    const lines = await batch(tenant, events(1000).map((event) => JSON.stringify(event)).join('\n'), NDJSON);
    assert.equal(lines.status, 202);
  });

  test('all or nothing: one bad event refuses them all and is named', async ({ tenant }) => {
    const response = await batch(tenant, [{ type: 'a.b', data: 1 }, { type: 'a b', data: 1 }, { type: 'a.b', data: 1, colour: 'red' }]);
    assertProblem(response, 422, ['type', 'colour']);
    assert.match(JSON.stringify(response.json.errors), /1/, 'the position is named');
    const lines = await batch(tenant, '{"type":"a.b","data":1}\n{"type":\n', NDJSON);
    assertProblem(lines, 400);
    assert.deepEqual((await tenant.get('/events')).data, []);
  });

  test('422: what is no list of events', async ({ tenant }) => {
    for (const body of ['{}', '1', '[1]', '[[]]', '[null]']) assertProblem(await batch(tenant, body), 422);
    assertProblem(await batch(tenant, '1\n2\n', NDJSON), 422);
  });

  test('413: one event over the limit refuses them all', async ({ tenant }) => {
    const big = { type: 'a.b', data: 'x'.repeat(1024 * 1024) };
    assertProblem(await batch(tenant, [{ type: 'a.b', data: 1 }, big]), 413);
    assert.deepEqual((await tenant.get('/events')).data, []);
  });

  test('413: a batch over 16 MiB; one just under it passes', async ({ tenant }) => {
    const events = (n) => Array.from({ length: n }, () => ({ type: 'a.b', data: 'x'.repeat(1000 * 1000) }));
    const refused = await batch(tenant, events(17)).catch((error) => error); // the server may hang up on a body it will not read
    if (refused instanceof Error) assert.ok(['EPIPE', 'ECONNRESET'].includes(refused.code), refused.message);
    else assertProblem(refused, 413);
    assert.deepEqual((await tenant.get('/events')).data, []);
    assert.equal((await batch(tenant, events(16))).status, 202);
  });

  test('a batch delivers every one of its events', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url(), { format: 'raw' });
    await tenant.subscribe(shop.url(), { format: 'raw' });
    await batch(tenant, Array.from({ length: 100 }, (_, i) => ({ type: 'a.b', data: i })));
    const requests = await shop.received(200);
    assert.equal(new Set(requests.map((request) => request.text)).size, 100);
    assert.equal(new Set(requests.map((request) => request.id)).size, 200);
  });
});
