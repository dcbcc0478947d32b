// Idempotency-Key: one event, however often and from however many sides it is published.

import assert from 'node:assert/strict';

import { assertProblem } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';

const BODY = '{"type":"a.b","data":1}';
const publish = (tenant, key, body = BODY) =>
  tenant.request('POST', '/events', { body, headers: { 'idempotency-key': key } });

suite('idempotency', ({ test }) => {
  test('the same key with the same body answers the first answer', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url());
    const first = await publish(tenant, 'k');
    assert.equal(first.status, 202);
    assert.equal(first.json.duplicate, false);
    for (let i = 0; i < 3; i++) {
      const again = await publish(tenant, 'k');
      assert.equal(again.status, 202);
      assert.deepEqual(again.json, { ...first.json, duplicate: true });
    }
    await tenant.waitDelivery(await tenant.publish('a.b', 'last'));
    assert.equal((await tenant.deliveries()).length, 2);
    assert.equal((await tenant.all('/events')).length, 2);
  });

  test('409: the same key with another body, be it one space', async ({ tenant }) => {
    await publish(tenant, 'k');
    for (const body of ['{"type":"a.b","data":2}', '{"type":"a.b", "data":1}', '{"data":1,"type":"a.b"}']) {
      assertProblem(await publish(tenant, 'k', body), 409);
    }
    assert.equal((await tenant.all('/events')).length, 1);
  });

  test('keys are per tenant', async ({ api, tenant }) => {
    const other = await api.createTenant();
    const [a, b] = [await publish(tenant, 'k'), await publish(other, 'k')];
    assert.notEqual(a.json.id, b.json.id);
    assert.equal(b.json.duplicate, false);
  });

  test('a refused request does not use its key up', async ({ tenant }) => {
    assertProblem(await publish(tenant, 'k', '{"type":"no spaces","data":1}'), 422);
    assertProblem(await publish(tenant, 'k', '{"type":"a.b","data":'), 400);
    const { status, json } = await publish(tenant, 'k');
    assert.equal(status, 202);
    assert.equal(json.duplicate, false);
  });

  test('keys are 1 to 255 characters, and case matters', async ({ tenant }) => {
    for (const key of ['', 'k'.repeat(256)]) {
      const response = await publish(tenant, key);
      assertProblem(response, response.status === 400 ? 400 : 422);
    }
    assertProblem(await publish(tenant, ['one', 'two']), 422, ['Idempotency-Key']);
    const keys = ['k'.repeat(255), 'a', 'A', '"quoted"', "'; --", '0'];
    const answers = await Promise.all(keys.map((key) => publish(tenant, key)));
    assert.equal(new Set(answers.map(({ json }) => json.id)).size, keys.length);
  });

  test('concurrent requests with one key make one event', async ({ tenant }) => {
    const answers = await Promise.all(Array.from({ length: 40 }, () => publish(tenant, 'k')));
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([202]));
    assert.equal(new Set(answers.map(({ json }) => json.id)).size, 1);
    assert.equal(answers.filter(({ json }) => !json.duplicate).length, 1);
    assert.equal((await tenant.all('/events')).length, 1);
  });

  test('concurrent requests with one key and different bodies: one wins, the others are told', async ({ tenant }) => {
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => publish(tenant, 'k', `{"type":"a.b","data":${i}}`)));
    const won = answers.filter(({ status }) => status === 202);
    assert.equal(won.length, 1);
    for (const answer of answers) if (answer !== won[0]) assertProblem(answer, 409);
    assert.equal((await tenant.all('/events')).length, 1);
  });
});

suite('idempotency of batches', ({ test }) => {
  const batch = (tenant, events, options = {}) => tenant.request('POST', '/events/batch', { body: events, ...options });
  const event = (data, idempotency_key) => ({ type: 'a.b', data, ...(idempotency_key ? { idempotency_key } : {}) });

  test('each event may carry a key of its own', async ({ tenant }) => {
    const events = [event(1, 'one'), event(2, 'two'), event(3)];
    const first = await batch(tenant, events);
    assert.equal(first.status, 202);
    assert.deepEqual(first.json.data.map((answer) => answer.duplicate), [false, false, false]);
    const second = await batch(tenant, events);
    assert.equal(second.status, 202);
    assert.deepEqual(second.json.data.map((answer) => answer.duplicate), [true, true, false]);
    assert.deepEqual(second.json.data.slice(0, 2).map(({ id }) => id), first.json.data.slice(0, 2).map(({ id }) => id));
    assert.equal((await tenant.all('/events')).length, 4);
  });

  test('409 and nothing done: one key met another body', async ({ tenant }) => {
    await batch(tenant, [event(1, 'one')]);
    assertProblem(await batch(tenant, [event(7, 'new'), event(2, 'one')]), 409);
    assert.equal((await tenant.all('/events')).length, 1);
    const after = await batch(tenant, [event(8, 'new')]);
    assert.deepEqual(after.json.data.map((answer) => answer.duplicate), [false], 'the refused batch used no key up');
  });

  test('the header is for the whole batch, by all its bytes', async ({ tenant }) => {
    const headers = { 'idempotency-key': 'whole' };
    const first = await batch(tenant, [event(1), event(2, 'two')], { headers });
    assert.equal(first.status, 202);
    const second = await batch(tenant, [event(1), event(2, 'two')], { headers });
    assert.equal(second.status, 202);
    assert.deepEqual(second.json.data, first.json.data.map((answer) => ({ ...answer, duplicate: true })));
    assertProblem(await batch(tenant, [event(1), event(3)], { headers }), 409);
    assert.equal((await tenant.all('/events')).length, 2);
  });

  test('a key twice in one batch', async ({ tenant }) => {
    const same = await batch(tenant, [event(1, 'one'), event(1, 'one')]);
    assert.equal(same.status, 202);
    assert.deepEqual(same.json.data.map((answer) => answer.duplicate), [false, true]);
    assert.equal(same.json.data[0].id, same.json.data[1].id);
    assertProblem(await batch(tenant, [event(1, 'two'), event(2, 'two')]), 409);
    assert.equal((await tenant.all('/events')).length, 1);
  });

  test('concurrent batches with common keys', async ({ tenant }) => {
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) => batch(tenant, [event('common', 'common'), event(i, `own-${i}`)])),
    );
    for (const { status } of answers) assert.equal(status, 202);
    assert.equal(new Set(answers.map(({ json }) => json.data[0].id)).size, 1);
    assert.equal((await tenant.all('/events')).length, 11);
  });
});
