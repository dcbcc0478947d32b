// Receivers that misbehave: silent, broken, slow and endless ones, and what the attempt then records.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

import {
  closedPort, closeWithoutAnswer, dripBody, dripHeaders, dripStatusLine, endlessBody, hang, hugeHeaders, raw, resetAfter,
} from './lib/receiver.mjs';
import { states } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const TIMEOUT_MS = 8000; // long enough for the receivers that answer in time, on a busy machine
const POLICY = { timeout_ms: TIMEOUT_MS, retry: { schedule_seconds: [0], jitter: 0 } };
const sha256 = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** The first attempt fails with this error code (any code when it is null) and no status; the second delivers. */
function failsOnce(test, name, answer, error) {
  test(name, async ({ tenant, receiver }) => {
    const shop = await receiver([answer, 204]);
    await tenant.subscribe(shop.url(), { policy: POLICY });
    const delivery = await tenant.waitDelivery(await tenant.publish());
    const [first, second] = delivery.attempts;
    if (error) assert.equal(first.error, error);
    else assert.match(first.error, /^[a-z_]+$/);
    assert.equal(first.status_code, null);
    assert.equal(second.status_code, 204);
    assert.equal(second.error, null);
    assert.equal(delivery.attempt_count, 2);
    assert.deepEqual(states(delivery), ['PENDING', 'ATTEMPTING', 'RETRY', 'ATTEMPTING', 'DELIVERED']);
    assert.equal(shop.requests[1].text, shop.requests[0].text);
  });
}

/** A final 2xx status line within the timeout is a delivery, whatever comes after it. */
function delivers(test, name, answer, status, check = () => {}) {
  test(name, async ({ tenant, receiver }) => {
    const shop = await receiver([answer]);
    await tenant.subscribe(shop.url(), { policy: POLICY });
    const delivery = await tenant.waitDelivery(await tenant.publish());
    assert.equal(delivery.attempt_count, 1);
    assert.equal(delivery.attempts[0].status_code, status);
    assert.equal(delivery.last_status_code, status);
    check(delivery.attempts[0]);
    await waitFor(() => shop.requests[0].socket.destroyed, { what: 'the connection to be given up' });
  });
}

suite('failures', ({ test }) => {
  failsOnce(test, 'a black hole times out', hang(), 'timeout');
  failsOnce(test, 'a status line that never ends times out', dripStatusLine(), 'timeout');
  failsOnce(test, 'a reset', resetAfter(), 'reset');
  failsOnce(test, 'a reset in the middle of the status line', resetAfter('HTTP/1.1 2'), 'reset');
  failsOnce(test, 'a close without an answer', closeWithoutAnswer(), null);
  failsOnce(test, 'an answer that is no HTTP', raw('220 mail.example.com ESMTP\r\n'), null);
  failsOnce(test, 'an answer of bytes', raw(Buffer.from([0, 1, 2, 255, 13, 10, 13, 10])), null);
  failsOnce(test, 'an interim answer and then nothing', raw('HTTP/1.1 103 Early Hints\r\n\r\n'), null);

  delivers(test, 'a body that drips', dripBody(200), 200);
  delivers(test, 'headers that drip after a 2xx status line', dripHeaders(200), 200);
  delivers(test, 'a reset in the middle of the body', resetAfter('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf'), 200);
  delivers(test, 'a body that ends early', raw('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf'), 200);
  delivers(test, 'a body in broken chunks', raw('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhalf'), 200);
  delivers(test, 'megabytes of headers', hugeHeaders(2_000_000), 200);
  delivers(test, 'HTTP/1.0 without a length', raw('HTTP/1.0 200 OK\r\n\r\nold'), 200, (attempt) =>
    assert.equal(attempt.response_body, 'old'),
  );
  delivers(test, 'an interim answer before the final one', raw('HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n'), 202);
  delivers(test, 'an endless body is read to 64 KiB', endlessBody(200, 'x'), 200, (attempt) => {
    assert.equal(attempt.response_body, 'x'.repeat(4096));
    assert.equal(attempt.response_hash, sha256('x'.repeat(64 * 1024)));
  });

  test('an endless body of an error is an error, and is read to 64 KiB', async ({ tenant, receiver }) => {
    const shop = await receiver([endlessBody(500), 204]);
    await tenant.subscribe(shop.url(), { policy: POLICY });
    const delivery = await tenant.waitDelivery(await tenant.publish());
    assert.equal(delivery.attempts[0].status_code, 500);
    assert.equal(delivery.attempts[0].response_hash, sha256('x'.repeat(64 * 1024)));
  });

  test('a port on which nobody listens', async ({ tenant }) => {
    await tenant.subscribe(`http://127.0.0.1:${await closedPort()}/`, { policy: POLICY });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.deepEqual(delivery.attempts.map((attempt) => attempt.error), ['connect_refused', 'connect_refused']);
    assert.equal(delivery.last_error, 'connect_refused');
    assert.equal(delivery.last_status_code, null);
  });

  test('a name that does not resolve', async ({ tenant }) => {
    await tenant.subscribe('http://a-name-that-does-not-resolve.invalid/', { policy: { ...POLICY, timeout_ms: 10_000 } });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.deepEqual(delivery.attempts.map((attempt) => attempt.error), ['dns', 'dns']);
  });

  test('TLS to a port that speaks none', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url().replace('http:', 'https:'), { policy: { ...POLICY, timeout_ms: 30_000 } });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.deepEqual(delivery.attempts.map((attempt) => attempt.error), ['tls', 'tls']);
  });

  test('the timeout is a total one, and a delivery that times out shows it', async ({ tenant, receiver }) => {
    const shop = await receiver([hang()]);
    await tenant.subscribe(shop.url(), { policy: { timeout_ms: TIMEOUT_MS, retry: { schedule_seconds: [3600], jitter: 0 } } });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'RETRY');
    assert.equal(delivery.last_error, 'timeout');
    assert.equal(delivery.last_status_code, null);
    const [attempt] = delivery.attempts;
    assert.equal(attempt.status_code, null);
    assert.ok(attempt.latency_ms >= TIMEOUT_MS - 10, `gave up after ${attempt.latency_ms} ms`);
    assert.equal(attempt.response_hash === null || attempt.response_hash === sha256(''), true);
    await waitFor(() => shop.requests[0].socket.destroyed, { what: 'the connection to be given up' });
  });

  test('a body is kept to 4 KiB and hashed whole', async ({ tenant, receiver }) => {
    const body = Array.from({ length: 2000 }, (_, i) => `${i},`).join('');
    const shop = await receiver([{ status: 500, body }]);
    await tenant.subscribe(shop.url(), { policy: { retry: { schedule_seconds: [3600], jitter: 0 } } });
    const { attempts: [attempt] } = await tenant.waitDelivery(await tenant.publish(), 'RETRY');
    assert.equal(attempt.response_body, body.slice(0, 4096));
    assert.equal(attempt.response_hash, sha256(body));
  });

  test('a body of any bytes leaves the record readable', async ({ tenant, receiver }) => {
    const bodies = [
      Buffer.from([0xff, 0xfe, 0, 0x80, 0x22, 0x5c, 0x0a]),
      Buffer.from(`${'a'.repeat(4095)}é`),
      Buffer.from(`${'a'.repeat(4094)}😀`),
      Buffer.from('"\\\u0000\u001f\u2028'),
      Buffer.from([0xed, 0xa0, 0x80]),
    ];
    for (const [i, body] of bodies.entries()) {
      const shop = await receiver([{ status: 200, body }]);
      await tenant.subscribe(shop.url(), { event_types: [`body.${i}`] });
      const delivery = await tenant.waitDelivery(await tenant.publish(`body.${i}`));
      assert.equal(typeof delivery.attempts[0].response_body, 'string');
      assert.equal(delivery.attempts[0].response_hash, sha256(body));
    }
  });

  test('headers of any bytes leave the record readable', async ({ tenant, receiver }) => {
    const shop = await receiver([raw(Buffer.from('HTTP/1.1 200 OK\r\nx-a: \xff\xfe"\\\r\nx-a: again\r\nx-empty:\r\ncontent-length: 0\r\nconnection: close\r\n\r\n', 'latin1'))]);
    await tenant.subscribe(shop.url());
    const delivery = await tenant.waitDelivery(await tenant.publish());
    assert.equal(typeof delivery.attempts[0].response_headers, 'object');
  });
}, { concurrency: 8 });
