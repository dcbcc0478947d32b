// Signatures as a subscriber sees them: HMAC by the standardwebhooks package, ed25519 by node's own crypto; before, within
// and after the overlap of a rotation.

import assert from 'node:assert/strict';
import { createPublicKey, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { Webhook } from 'standardwebhooks';

import { assertProblem } from './lib/shape.mjs';
import { lifecycleTest, suite } from './lib/suite.mjs';
import { Api } from './lib/api.mjs';
import { when } from './lib/receiver.mjs';
import { gate, waitFor } from './lib/wait.mjs';

const OVERLAP_SECONDS = 5; // an attempt must begin within
const SECRETS_MAX = 8;
const hmacSecret = (byte) => `whsec_${Buffer.alloc(24, byte).toString('base64')}`;

/** The signatures of a request, in their order. */
const signaturesOf = (request) => request.headers['webhook-signature'].split(' ');

/** Whether one signature alone is good for a whsec_ secret or a whpk_ key. */
function isSignedBy(request, signature, key) {
  if (key.startsWith('whsec_')) {
    try {
      new Webhook(key).verify(request.body, { ...request.headers, 'webhook-signature': signature });
      return true;
    } catch {
      return false;
    }
  }
  const [version, value] = signature.split(',');
  const spki = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), Buffer.from(key.slice('whpk_'.length), 'base64')]);
  const signed = Buffer.concat([Buffer.from(`${request.id}.${request.headers['webhook-timestamp']}.`), request.body]);
  return version === 'v1a' && verify(null, signed, createPublicKey({ key: spki, format: 'der', type: 'spki' }), Buffer.from(value, 'base64'));
}

/** Signed by exactly these, in this order. */
function assertSigned(request, keys) {
  const signatures = signaturesOf(request);
  assert.equal(signatures.length, keys.length, `${signatures.length} signatures for ${keys.length} secrets`);
  for (const [i, signature] of signatures.entries()) {
    for (const [j, key] of keys.entries()) assert.equal(isSignedBy(request, signature, key), i === j, `signature ${i} by secret ${j}`);
  }
  for (const key of keys.filter((one) => one.startsWith('whsec_'))) request.verify(key);
}

const rotate = (tenant, id, body) => tenant.expect(200, 'POST', `/subscriptions/${id}/rotate-secret`, { body });
const inForce = async (tenant, id) => (await tenant.get(`/subscriptions/${id}/secrets`)).data;

/** Waits until the overlap of a subscription's secrets is over. */
async function overlapEnds(tenant, id) {
  const ends = (await inForce(tenant, id)).map((one) => Date.parse(one.expires_at ?? 0));
  await waitFor(() => Date.now() > Math.max(...ends), { what: 'the end of the overlap' });
}

suite('signatures', ({ test }) => {
  for (const signature of ['hmac', 'ed25519']) {
    test(`${signature}: before, within and after the overlap`, async ({ tenant, receiver }) => {
      const shop = await receiver();
      const created = await tenant.subscribe(shop.url(), { signature });
      const verifier = (answer) => (signature === 'hmac' ? answer.secret : answer.public_key);
      const send = async () => {
        await tenant.waitDelivery(await tenant.publish());
        return shop.requests.at(-1);
      };
      assertSigned(await send(), [verifier(created)]);

      const rotated = await rotate(tenant, created.id, { overlap_seconds: OVERLAP_SECONDS });
      assert.notEqual(verifier(rotated), verifier(created));
      assertSigned(await send(), [verifier(rotated), verifier(created)]);
      assert.equal((await inForce(tenant, created.id)).length, 2);

      await overlapEnds(tenant, created.id);
      const after = await send();
      assertSigned(after, [verifier(rotated)]);
      assert.ok(!isSignedBy(after, signaturesOf(after)[0], verifier(created)));
      assert.deepEqual((await inForce(tenant, created.id)).map((one) => [one.id, one.expires_at]), [[rotated.id, null]]);
    });
  }

  test('every secret in force signs, newest first', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const secrets = [hmacSecret(1)];
    const { id } = await tenant.subscribe(shop.url(), { secret: secrets[0] });
    for (let byte = 2; byte <= SECRETS_MAX; byte++) {
      secrets.unshift(hmacSecret(byte));
      await rotate(tenant, id, { secret: secrets[0] });
    }
    assert.equal((await inForce(tenant, id)).length, SECRETS_MAX);
    await tenant.publish();
    assertSigned((await shop.received())[0], secrets);
    assertProblem(await tenant.request('POST', `/subscriptions/${id}/rotate-secret`, { body: {} }), 409);
    const { secret } = await rotate(tenant, id, { overlap_seconds: 0 });
    await tenant.publish();
    assertSigned((await shop.received(2))[1], [secret]);
  });

  test('a retry and a replay are signed by what is in force then, over the same bytes', async ({ tenant, receiver }) => {
    const rotated = gate(); // no retry is sent before
    const shop = await receiver([when(rotated.opened, 500), 204]);
    const { id, secret } = await tenant.subscribe(shop.url(), { policy: { retry: { schedule_seconds: [1, 1], jitter: 0 } } });
    const event = await tenant.publish();
    await shop.received();
    const second = await rotate(tenant, id, { overlap_seconds: 0 });
    rotated.open();
    const delivery = await tenant.waitDelivery(event);
    const third = await rotate(tenant, id, { overlap_seconds: 60 });
    await tenant.expect(202, 'POST', `/deliveries/${delivery.id}/replay`);
    const [first, retry, replay] = await shop.received(3);
    assertSigned(first, [secret]);
    assertSigned(retry, [second.secret]);
    assertSigned(replay, [third.secret, second.secret]);
    for (const request of [retry, replay]) {
      assert.equal(request.id, first.id);
      assert.deepEqual(request.body, first.body);
    }
  });

  test('the ed25519 vector of Standard Webhooks: secret, public half, and what is sent', async ({ tenant, receiver }) => {
    const line = readFileSync(new URL('../cases/signatures.tsv', import.meta.url), 'utf8').split('\n').find((one) => one.startsWith('ed25519\t'));
    const [, secret, publicKey, id, timestamp, payload, signature] = line.split('\t');
    const vector = { id, headers: { 'webhook-timestamp': timestamp }, body: Buffer.from(payload) };
    assert.ok(isSignedBy(vector, signature, publicKey), 'this test verifies as the vector has it');

    const shop = await receiver();
    const created = await tenant.subscribe(shop.url(), { signature: 'ed25519', secret });
    assert.equal(created.secret, secret);
    assert.equal(created.public_key, publicKey);
    assert.deepEqual((await inForce(tenant, created.id)).map((one) => [one.scheme, one.public_key]), [['ed25519', publicKey]]);
    await tenant.publish();
    assertSigned((await shop.received())[0], [publicKey]);
  });

  test('a secret must fit the subscription’s scheme', async ({ tenant }) => {
    const { id, secret } = await tenant.subscribe('http://127.0.0.1:9/', { signature: 'ed25519' });
    assert.match(secret, /^whsk_/);
    assertProblem(await tenant.request('POST', `/subscriptions/${id}/rotate-secret`, { body: { secret: hmacSecret(1) } }), 422, ['secret']);
    assertProblem(await tenant.request('POST', '/subscriptions', { body: { url: 'http://127.0.0.1:9/', secret } }), 422, ['secret']);
    assertProblem(await tenant.request('PATCH', `/subscriptions/${id}`, { body: { signature: 'hmac' } }), 422, ['signature']);
    assertProblem(await tenant.request('PATCH', `/subscriptions/${id}`, { body: { secret: hmacSecret(1) } }), 422, ['secret']);
    // A seed with another key's public half.
    const seed = Buffer.from(secret.slice('whsk_'.length), 'base64');
    seed[63] ^= 1;
    assertProblem(await tenant.request('POST', `/subscriptions/${id}/rotate-secret`, { body: { secret: `whsk_${seed.toString('base64')}` } }), 422, ['secret']);
    assert.equal((await inForce(tenant, id)).length, 1);
  });
}, { concurrency: 4 });

lifecycleTest('what signs, and until when, survives kill -9', async ({ start, receiver }) => {
  const server = await start({ fixedPort: true });
  const api = new Api(server);
  const tenant = await api.createTenant();
  const shop = await receiver();
  const { id, secret } = await tenant.subscribe(shop.url());
  const rotated = await rotate(tenant, id, { overlap_seconds: OVERLAP_SECONDS });
  await server.kill();
  await server.start();
  await tenant.publish();
  const [within] = await shop.received();
  if (signaturesOf(within).length === 2) assertSigned(within, [rotated.secret, secret]); // the start may have taken longer
  await overlapEnds(tenant, id);
  await tenant.publish();
  assertSigned((await shop.received(2))[1], [rotated.secret]);
  api.agent.destroy();
});
