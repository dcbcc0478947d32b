// Receivers with TLS: whose certificates are trusted, client certificates, HTTP/2; and how deliveries leave the machine:
// authorities of the operator's, a proxy, a source address.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Api } from './lib/api.mjs';
import { authority, CAN_STAND_IN, inPlaceOfSystem } from './lib/certificates.mjs';
import { startNameServer } from './lib/dns.mjs';
import { LOOPBACK_FLAGS, run, temporaryFolder } from './lib/server.mjs';
import { lifecycleTest } from './lib/suite.mjs';

const POLICY = { timeout_ms: 30_000, retry: { schedule_seconds: [0], jitter: 0 } };

describe('TLS and egress', { concurrency: 4 }, () => {
  let ours, other, shopTls, client;
  before(async () => {
    [ours, other] = [await authority('ours'), await authority('other')];
    shopTls = await ours.issue('shop.test');
    client = await other.issue('client');
  });
  after(async () => {
    await ours.remove();
    await other.remove();
  });

  /** A test with a server of these flags and a tenant. */
  const tlsTest = (name, flags, body) =>
    lifecycleTest(name, async ({ start, receiver }) => {
      const server = await start({ flags: [...LOOPBACK_FLAGS, ...flags()] });
      const api = new Api(server);
      await body({ server, api, tenant: await api.createTenant(), receiver });
      api.agent.destroy();
    });
  const trustOurs = () => ['--ca-file', ours.file];

  tlsTest('a certificate of an unknown authority is refused, one of ca-file is not', () => [], async ({ tenant, receiver }) => {
    const shop = await receiver([204], { tls: shopTls });
    await tenant.subscribe(shop.url(), { policy: POLICY });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.deepEqual(delivery.attempts.map((attempt) => attempt.error), ['tls', 'tls']);
    assert.equal(shop.requests.length, 0);
  });

  tlsTest('HTTP/1.1 over TLS, kept alive', trustOurs, async ({ tenant, receiver }) => {
    const shop = await receiver([204], { tls: shopTls });
    const { secret } = await tenant.subscribe(shop.url(), { policy: POLICY, headers: { 'x-empty': '', 'x-team': 'a' } });
    for (let i = 0; i < 3; i++) await tenant.waitDelivery(await tenant.publish());
    assert.equal(shop.connections, 1);
    for (const request of shop.requests) {
      request.verify(secret);
      assert.equal(request.headers['x-empty'], '');
      assert.equal(request.headers['x-team'], 'a');
      assert.equal(request.version, '1.1');
    }
  });

  tlsTest('HTTP/2 where it is offered', trustOurs, async ({ tenant, receiver }) => {
    const shop = await receiver([{ status: 500, headers: { 'x-a': 'b' }, body: 'no' }, 204], { tls: { ...shopTls, http2: true } });
    const { secret } = await tenant.subscribe(shop.url(), { policy: POLICY });
    const delivery = await tenant.waitDelivery(await tenant.publish());
    assert.deepEqual(delivery.attempts.map((attempt) => attempt.status_code), [500, 204]);
    assert.equal(delivery.attempts[0].response_body, 'no');
    assert.equal(delivery.attempts[0].response_headers['x-a'], 'b');
    assert.equal(shop.requests[0].version, '2.0');
    shop.requests[1].verify(secret);
  });

  lifecycleTest('TLS below 1.2 is not spoken, whatever the machine allows', async ({ start, receiver }) => {
    const folder = await temporaryFolder();
    const file = join(folder, 'openssl.cnf');
    await writeFile(file, 'openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n[c]\nMinProtocol=TLSv1\nCipherString=ALL@SECLEVEL=0\n');
    const server = await start({ flags: [...LOOPBACK_FLAGS, ...trustOurs()], env: { OPENSSL_CONF: file } });
    const api = new Api(server);
    const tenant = await api.createTenant();
    const old = await receiver([204], { tls: { ...shopTls, minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL@SECLEVEL=0' } });
    await tenant.subscribe(old.url(), { policy: POLICY });
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.equal(delivery.last_error, 'tls');
    assert.equal(old.requests.length, 0);
    api.agent.destroy();
    await rm(folder, { recursive: true });
  });

  tlsTest('redirects are not followed', trustOurs, async ({ tenant, receiver }) => {
    const elsewhere = await receiver([200]);
    for (const http2 of [false, true]) {
      const shop = await receiver([{ status: 307, headers: { location: elsewhere.url() } }], { tls: { ...shopTls, http2 } });
      const { id } = await tenant.subscribe(shop.url(), { policy: POLICY });
      const { attempts } = await tenant.waitDelivery({ ...(await tenant.publish()), subscription_id: id }, 'DLQ');
      assert.deepEqual(attempts.map((attempt) => attempt.status_code), [307, 307]);
      await tenant.expect(204, 'DELETE', `/subscriptions/${id}`);
    }
    assert.equal(elsewhere.requests.length, 0);
  });

  tlsTest('a certificate for another name is refused', trustOurs, async ({ tenant, receiver }) => {
    const shop = await receiver([204], { tls: shopTls });
    const { port } = new URL(shop.url());
    await tenant.subscribe(`https://127.0.0.2:${port}/`, { policy: POLICY });
    shop.server.close();
    shop.server.listen(Number(port), '127.0.0.2');
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.equal(delivery.last_error, 'tls');
  });

  tlsTest('a client certificate, and an authority of the subscription alone', () => [], async ({ server, tenant, receiver }) => {
    const shop = await receiver([204], { tls: { ...shopTls, ca: other.pem, requestCert: true, rejectUnauthorized: true } });
    const tls = { client_certificate: client.cert, client_key: client.key, ca: ours.pem };
    const subscription = await tenant.subscribe(shop.url(), { policy: POLICY, tls });
    assert.ok(!('tls' in subscription), 'write-only');
    await tenant.waitDelivery(await tenant.publish());
    assert.equal(shop.requests[0].socket.getPeerCertificate().subject.CN, 'client');

    // Nothing but what is named changes.
    const patched = await tenant.change(subscription.id, { description: 'x' });
    assert.ok(!JSON.stringify(patched).includes('BEGIN'));
    await tenant.waitDelivery(await tenant.publish());

    // Without the certificate the receiver breaks off; the authority stays.
    await tenant.change(subscription.id, { tls: { client_certificate: null, client_key: null } });
    const refused = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.match(refused.last_error, /^(tls|reset)$/);
    assert.equal(shop.requests.length, 2);

    // The key lies nowhere in the clear.
    const base64 = client.key.split('\n')[1];
    for (const name of await readdir(server.data)) {
      assert.ok(!(await readFile(join(server.data, name))).includes(base64), `${name} holds the key`);
    }
    assert.ok(!JSON.stringify(await tenant.api.get('/v1/audit')).includes(base64));
  });

  lifecycleTest('TLS material outlives a restart', async ({ start, receiver }) => {
    const shop = await receiver([204], { tls: { ...shopTls, ca: other.pem, requestCert: true, rejectUnauthorized: true } });
    const server = await start();
    const api = new Api(server);
    const tenant = await api.createTenant();
    const tls = { client_certificate: client.cert, client_key: client.key, ca: ours.pem };
    await tenant.subscribe(shop.url(), { policy: POLICY, tls });
    await server.stop();
    await server.start();
    await tenant.waitDelivery(await tenant.publish());
    assert.equal(shop.requests[0].socket.getPeerCertificate().subject.CN, 'client');
    api.agent.destroy();
  });

  lifecycleTest('authorities of the server or of a subscription stand in place of the system’s', async ({ start, receiver }) => {
    const shop = await receiver([204], { tls: await other.issue('shop.test') });
    const system = await inPlaceOfSystem(other);
    try {
      for (const [flags, withoutTls] of [[[], 'DELIVERED'], [trustOurs(), 'DLQ']]) {
        const server = await start({ flags: [...LOOPBACK_FLAGS, ...flags], within: system.within });
        const api = new Api(server);
        const tenant = await api.createTenant();
        for (const [tls, state] of [[null, withoutTls], [{ ca: ours.pem }, 'DLQ'], [null, withoutTls]]) {
          const { id } = await tenant.subscribe(shop.url(), { policy: POLICY, tls });
          const { last_error } = await tenant.waitDelivery({ ...(await tenant.publish()), subscription_id: id }, state);
          assert.equal(last_error, state === 'DLQ' ? 'tls' : null);
          await tenant.expect(204, 'DELETE', `/subscriptions/${id}`);
        }
        api.agent.destroy();
      }
    } finally {
      await system.remove();
    }
  }, { skip: !CAN_STAND_IN && 'nothing can be mounted here' });

  tlsTest('tls that does not fit together is refused by field', () => [], async ({ tenant, receiver }) => {
    const shop = await receiver();
    const create = (tls) => tenant.request('POST', '/subscriptions', { body: { url: shop.url(), tls } });
    const cases = [
      [{ client_certificate: client.cert }, 'tls.client_key'],
      [{ client_key: client.key }, 'tls.client_certificate'],
      [{ client_certificate: client.cert, client_key: shopTls.key }, 'tls.client_key'],
      [{ client_certificate: 'x', client_key: client.key }, 'tls.client_certificate'],
      [{ client_certificate: client.cert, client_key: 'x' }, 'tls.client_key'],
      [{ ca: 'x' }, 'tls.ca'],
      [{ ca: `${ours.pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n` }, 'tls.ca'],
      [{ ca: 7 }, 'tls.ca'],
      [{ ca: ours.pem.repeat(100) }, 'tls.ca'],
      [{ ca: `${'\n'.repeat(24000)}`, client_certificate: '\n'.repeat(16000), client_key: '\n'.repeat(8000) }, 'tls'],
      [{ pin: 'x' }, 'tls.pin'],
      ['x', 'tls'],
    ];
    for (const [tls, field] of cases) {
      const { status, json, text } = await create(tls);
      assert.equal(status, 422, field);
      assert.ok(json.errors.some((error) => error.field === field), `${field}: ${text}`);
      assert.ok(!text.includes('BEGIN'), 'no value is told');
    }
    for (const tls of [null, {}, { ca: null }]) assert.equal((await create(tls)).status, 201);
  });

  tlsTest('the source address', () => ['--source-address', '127.0.0.77'], async ({ tenant, receiver }) => {
    const shop = await receiver([(request) => ({ status: 200, body: request.socket.remoteAddress })]);
    await tenant.subscribe(shop.url(), { policy: POLICY });
    const delivery = await tenant.waitDelivery(await tenant.publish());
    assert.equal(delivery.attempts[0].response_body, '127.0.0.77');
  });

  describe('through a proxy', { concurrency: 1 }, () => {
    let proxy, asked, allow;
    before(async () => {
      asked = [];
      allow = true;
      proxy = http.createServer((_, response) => response.writeHead(500).end('only CONNECT'));
      proxy.on('connect', (request, socket, head) => {
        asked.push({ url: request.url, authorization: request.headers['proxy-authorization'] });
        socket.on('error', () => {});
        if (!allow) return socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n');
        const { hostname, port } = new URL(`http://${request.url}`);
        const upstream = net.connect(Number(port), hostname, () => {
          socket.write('HTTP/1.1 200 Connection established\r\nx-proxy: 1\r\n\r\n');
          upstream.write(head);
          upstream.pipe(socket).pipe(upstream);
        });
        upstream.on('error', () => socket.destroy());
      });
      proxy.listen(0, '127.0.0.1');
      await once(proxy, 'listening');
    });
    after(() => {
      proxy.closeAllConnections();
      proxy.close();
    });
    const flags = () => ['--ca-file', ours.file, '--proxy', `http://user:p%40ss@127.0.0.1:${proxy.address().port}`];

    tlsTest('it is asked for the judged address, with http and https', flags, async ({ server, tenant, receiver }) => {
      for (const tls of [null, shopTls, { ...shopTls, http2: true }]) {
        asked.length = 0;
        const shop = await receiver([200], { tls });
        const type = `to.${shop.server.address().port}`;
        await tenant.subscribe(shop.url(), { policy: POLICY, event_types: [type] });
        const delivery = await tenant.waitDelivery(await tenant.publish(type));
        assert.equal(delivery.attempts[0].response_headers['x-proxy'], undefined);
        const basic = `Basic ${Buffer.from('user:p@ss').toString('base64')}`;
        assert.deepEqual(asked, [{ url: new URL(shop.url()).host, authorization: basic }]);
        assert.equal(shop.requests[0].headers['proxy-authorization'], undefined);
      }
      assert.ok(!server.log.includes('p@ss') && !server.log.includes('p%40ss'));
    });

    lifecycleTest('a name reaches the proxy as its address', async ({ start, receiver }) => {
      const names = await startNameServer(() => ['127.0.0.1']);
      const server = await start({ flags: [...LOOPBACK_FLAGS, ...flags(), '--name-servers', names.address] });
      const api = new Api(server);
      const tenant = await api.createTenant();
      const shop = await receiver([204], { tls: shopTls });
      const { port } = new URL(shop.url());
      asked.length = 0;
      await tenant.subscribe(`https://shop.test:${port}/x`, { policy: POLICY });
      await tenant.waitDelivery(await tenant.publish());
      assert.deepEqual(asked.map(({ url }) => url), [`127.0.0.1:${port}`]);
      assert.equal(shop.requests[0].headers.host, `shop.test:${port}`);
      api.agent.destroy();
      await names.close();
    });

    tlsTest('a proxy that refuses is a failed connection', flags, async ({ tenant, receiver }) => {
      const shop = await receiver();
      await tenant.subscribe(shop.url(), { policy: POLICY });
      allow = false;
      const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
      allow = true;
      assert.equal(delivery.last_status_code, null);
      assert.equal(delivery.last_error, 'connect_failed');
    });
  });

  lifecycleTest('settings that cannot work are refused at start', async () => {
    for (const [args, words] of [
      [['--ca-file', '/nonexistent'], /ca-file cannot be read/],
      [['--ca-file', fileURLToPath(import.meta.url)], /ca-file must hold certificates/],
      [['--source-address', '192.0.2.1'], /source-address is no address of this machine/],
      [['--source-address', 'x'], /must be an address/],
      [['--proxy', 'https://127.0.0.1:1'], /must be the URL of a proxy/],
      [['--proxy', 'http://127.0.0.1'], /must be the URL of a proxy/],
      [['--proxy', 'http://127.0.0.1:1/path'], /must be the URL of a proxy/],
    ]) {
      const { code, stderr } = await run(['serve', '--listen', '127.0.0.1:0', ...args]);
      assert.notEqual(code, 0);
      assert.match(stderr, words);
    }
  });
});
