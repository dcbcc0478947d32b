// Delivery receipts: what the subscriber says became of a delivery, by the token that came with it.

import assert from 'node:assert/strict';

import { assertFields, assertProblem, assertTime } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';

const TOKEN = 'posthorn-receipt-token';

/** A delivery that was received, its token, and how to send a receipt for it. */
async function delivered(tenant, shop, fields = {}) {
  await tenant.subscribe(shop.url(), { receipts: true, ...fields });
  const event = await tenant.publish();
  const delivery = await tenant.waitDelivery(event);
  const tokens = shop.requests.map((request) => request.headers[TOKEN]);
  const send = (body, headers = { [TOKEN]: tokens.at(-1) }, id = delivery.id) => tenant.request('POST', `/deliveries/${id}/receipt`, { body, headers, key: null });
  return { delivery, tokens, send };
}

suite('receipts', ({ test }) => {
  test('a receipt is kept with the delivery and changes no state', async ({ tenant, receiver }) => {
    const shop = await receiver([204]);
    const { delivery, send } = await delivered(tenant, shop);
    assert.equal(delivery.receipt, null);
    const answer = await send({ status: 'processed', note: 'booked as 4711' });
    assert.equal(answer.status, 200, answer.text);
    const after = await tenant.delivery(delivery.id);
    assertFields(after.receipt, ['status', 'note', 'at']);
    assertTime(after.receipt.at);
    assert.deepEqual(after.receipt, answer.json);
    assert.deepEqual([after.receipt.status, after.receipt.note, after.state], ['processed', 'booked as 4711', 'DELIVERED']);
    assert.deepEqual(after.timeline, delivery.timeline);
    assert.deepEqual((await tenant.deliveries({ event_id: delivery.event_id }))[0].receipt, after.receipt);
  });

  test('the token is good once', async ({ tenant, receiver }) => {
    const { delivery, send } = await delivered(tenant, await receiver([204]));
    assert.equal((await send({ status: 'failed' })).status, 200);
    assertProblem(await send({ status: 'processed' }), 409);
    assert.deepEqual((await tenant.delivery(delivery.id)).receipt.status, 'failed');
  });

  test('a wrong token, none, or that of another delivery: 401, and no word of what is there', async ({ api, tenant, receiver }) => {
    const shop = await receiver([204]);
    const { delivery, tokens: [token], send } = await delivered(tenant, shop);
    await tenant.waitDelivery(await tenant.publish());
    assert.notEqual(shop.requests[1].id, delivery.id);
    const body = { status: 'processed' };
    const forged = [{}, { [TOKEN]: '' }, { [TOKEN]: 'x' }, { [TOKEN]: `00000002${token.slice(8)}` }, { [TOKEN]: token.slice(0, -1) + (token.endsWith('0') ? '1' : '0') },
      { authorization: `Bearer ${api.server.adminKey}` }, { [TOKEN]: shop.requests[1].headers[TOKEN] }];
    for (const headers of forged) assertProblem(await send(body, headers), 401);
    assertProblem(await send(body, { [TOKEN]: token }, 'dlv_nonsense'), 401);
    assertProblem(await api.request('POST', `/v1/tenants/nobody/deliveries/${delivery.id}/receipt`, { body, key: null }), 401);
    const stranger = await api.createTenant();
    assertProblem(await stranger.request('POST', `/deliveries/${delivery.id}/receipt`, { body, headers: { [TOKEN]: token }, key: null }), 404);
    assert.equal((await tenant.delivery(delivery.id)).receipt, null);
    assert.equal((await send(body, { authorization: `Bearer ${token}` })).status, 200, 'as a bearer’s, too');
  });

  test('each attempt has a token of its own: a later one takes the place of an earlier one', async ({ tenant, receiver }) => {
    const shop = await receiver([500, 500, 204]);
    const { delivery, tokens, send } = await delivered(tenant, shop);
    assert.equal(new Set(tokens).size, 3);
    assert.equal((await send({ status: 'failed', note: 'no' }, { [TOKEN]: tokens[1] })).status, 200);
    assertProblem(await send({ status: 'failed' }, { [TOKEN]: tokens[0] }), 409);
    assert.equal((await send({ status: 'processed' }, { [TOKEN]: tokens[2] })).status, 200);
    assert.deepEqual((await tenant.delivery(delivery.id)).receipt.status, 'processed');
    await tenant.expect(202, 'POST', `/deliveries/${delivery.id}/replay`);
    await shop.received(4);
    await tenant.waitDelivery(delivery.id);
    assertProblem(await send({ status: 'failed' }, { [TOKEN]: tokens[2] }), 409);
    assert.equal((await send({ status: 'failed', note: 'the replay came to nothing' }, { [TOKEN]: shop.requests[3].headers[TOKEN] })).status, 200);
    assert.equal((await tenant.delivery(delivery.id)).receipt.note, 'the replay came to nothing');
  });

  test('only a subscription that asks for receipts gets tokens; the log does not show them', async ({ tenant, receiver }) => {
    const [plain, asking] = [await receiver([204]), await receiver([204])];
    await tenant.subscribe(plain.url());
    const { delivery, tokens } = await delivered(tenant, asking);
    await plain.received(1);
    assert.equal(plain.requests[0].headers[TOKEN], undefined);
    assert.ok(!JSON.stringify(delivery).includes(tokens[0]));
  });

  test('bad receipts are told field by field and use nothing up', async ({ tenant, receiver }) => {
    const { send } = await delivered(tenant, await receiver([204]));
    assertProblem(await send({}), 422, ['status']);
    assertProblem(await send({ status: 'maybe', note: 7, colour: 'red' }), 422, ['status', 'note', 'colour']);
    assertProblem(await send({ status: 'failed', note: 'n'.repeat(1025) }), 422, ['note']);
    assertProblem(await send('{"status":'), 400);
    assertProblem(await send({ status: 'failed', note: 'n'.repeat(20_000) }), 413);
    assert.equal((await send({ status: 'failed', note: 'n'.repeat(1024) })).status, 200);
  });
});
