// The API over TLS: which versions, with which certificate, and how that is replaced.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import tls from 'node:tls';

import { Api } from './lib/api.mjs';
import { makeCertificate } from './lib/certificate.mjs';
import { LOOPBACK_FLAGS, Server, run, temporaryFolder } from './lib/server.mjs';
import { lifecycleTest } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

let folder, first, second, inUse;

before(async () => {
  folder = await temporaryFolder();
  first = await makeCertificate(folder, 'first');
  second = await makeCertificate(folder, 'second');
  inUse = { certificate: join(folder, 'in-use.crt'), key: join(folder, 'in-use.key') };
});
after(() => rm(folder, { recursive: true, force: true }));

async function put({ certificate, key }) {
  await copyFile(certificate, inUse.certificate);
  await copyFile(key, inUse.key);
}

const flags = () => [...LOOPBACK_FLAGS, '--tls-certificate', inUse.certificate, '--tls-key', inUse.key];

/** A verified connection; the certificate's name, and what says more. */
async function connect(url, options = {}) {
  const ca = [await readFile(first.certificate), await readFile(second.certificate)];
  const socket = tls.connect({ host: '127.0.0.1', port: new URL(url).port, ca, ...options });
  await once(socket, 'secureConnect');
  return socket;
}

async function nameOf(url) {
  const socket = await connect(url);
  const { CN } = socket.getPeerCertificate().subject;
  socket.destroy();
  return CN;
}

async function exchange(socket, path = '/healthz') {
  let text = '';
  const onData = (chunk) => (text += chunk);
  socket.on('data', onData);
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  await waitFor(() => /\r\n\r\n[^]+/.test(text), { what: 'an answer over TLS' });
  socket.off('data', onData);
  return Number(text.match(/^HTTP\/1\.1 (\d+)/)[1]);
}

describe('TLS', () => {
  lifecycleTest('serves the whole API over TLS 1.2 and 1.3, and nothing else', async ({ start, receiver }) => {
    await put(first);
    const server = await start({ flags: flags() });
    assert.match(server.url, /^https:/);
    assert.match(server.stderr, /TLS certificate in force.*expires_at=/);
    for (const version of ['TLSv1.2', 'TLSv1.3']) {
      const socket = await connect(server.url, { minVersion: version, maxVersion: version });
      assert.equal(socket.getProtocol(), version);
      assert.match(socket.getCipher().name, /GCM|CHACHA20/);
      assert.equal(await exchange(socket), 200);
      socket.destroy();
    }
    for (const options of [
      { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' },
      { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA256:AES128-SHA:AES128-GCM-SHA256' },
    ]) {
      await assert.rejects(connect(server.url, options), /alert|handshake|protocol|disconnected/i);
    }
    const plain = await fetch(server.url.replace('https:', 'http:') + '/healthz').catch((error) => error);
    assert.ok(plain instanceof Error, 'plain HTTP is not answered');

    const sink = await receiver();
    const tenant = await new Api(server).createTenant();
    await tenant.subscribe(sink.url());
    const large = { text: 'x'.repeat(900_000) };
    const event = await tenant.publish('invoice.paid', large);
    assert.deepEqual((await tenant.event(event.id)).data, large);
    await tenant.waitDelivery(event);
    const refused = await tenant.request('POST', '/events', { body: 'x'.repeat(3_000_000) });
    assert.equal(refused.status, 413);
    tenant.api.agent.destroy();
  });

  lifecycleTest('takes a new certificate on SIGHUP and keeps connections open', async ({ start }) => {
    await put(first);
    const server = await start({ flags: flags() });
    const kept = await connect(server.url);
    assert.equal(await exchange(kept), 200);
    await put(second);
    server.child.kill('SIGHUP');
    await waitFor(() => /new TLS certificate in force/.test(server.stderr), { what: 'the reload to be told' });
    assert.equal(await nameOf(server.url), 'second');
    assert.equal(await exchange(kept), 200);
    assert.equal(kept.getPeerCertificate().subject.CN, 'first');
    kept.destroy();
  });

  lifecycleTest('a bad new certificate is refused, said once, and the old one stays', async ({ start }) => {
    await put(first);
    const server = await start({ flags: flags() });
    const faults = [
      [() => writeFile(inUse.certificate, 'no certificate\n'), /in-use\.crt: holds no PEM certificates/],
      [() => rm(inUse.certificate), /in-use\.crt: cannot be read/],
      [() => copyFile(second.certificate, inUse.certificate), /in-use\.key: is not the key of the certificate/],
      [() => put(first).then(() => writeFile(inUse.key, 'no key\n')), /in-use\.key: holds no PEM private key/],
    ];
    for (const [index, [breakIt, expected]] of faults.entries()) {
      await breakIt();
      server.child.kill('SIGHUP');
      const told = () => server.stderr.match(/the new TLS certificate is refused, the old one stays in force.*/g) ?? [];
      await waitFor(() => told().length > index, { what: `the refusal of fault ${index}` });
      assert.equal(told().length, index + 1);
      assert.match(told()[index], expected);
      assert.equal(await nameOf(server.url), 'first');
    }
    await put(second);
    server.child.kill('SIGHUP');
    await waitFor(async () => (await nameOf(server.url)) === 'second', { what: 'a good one to be taken after bad ones' });
    assert.ok(server.running);
  });

  lifecycleTest('a start with a bad certificate is refused', async () => {
    for (const [certificate, key, expected] of [
      [first.certificate, second.key, /is not the key of the certificate/],
      [join(folder, 'none.crt'), first.key, /none\.crt: cannot be read/],
      [first.key, first.key, /holds no PEM certificates/],
    ]) {
      const data = await temporaryFolder();
      const server = new Server({ data, flags: ['--tls-certificate', certificate, '--tls-key', key] });
      await assert.rejects(server.start(), expected);
      await server.remove();
      await rm(data, { recursive: true });
    }
    const alone = await run(['serve', '--tls-key', first.key]);
    assert.equal(alone.code, 2);
    assert.match(alone.stderr, /tls-certificate and tls-key go together/);
  });

  lifecycleTest('SIGHUP without TLS ends the server as SIGTERM does', async ({ start }) => {
    const server = await start();
    assert.deepEqual(await server.stop('SIGHUP'), { code: 0, signal: null });
    assert.match(server.stderr, /stopped/);
  });

  lifecycleTest('an address beyond loopback needs TLS, or the word that it may do without', async ({ start }) => {
    const bare = await run(['serve', '--listen', '0.0.0.0:0']);
    assert.equal(bare.code, 2);
    assert.match(bare.stderr, /listen 0\.0\.0\.0:0: is not a loopback address.*tls-certificate.*insecure-listen/);
    const admin = await run(['serve', '--listen', '127.0.0.1:0', '--admin-listen', '[::]:0']);
    assert.equal(admin.code, 2);
    assert.match(admin.stderr, /admin-listen \[::\]:0: is not a loopback address/);
    await put(first);
    const server = await start({ flags: [...flags(), '--admin-listen', '127.0.0.1:0'] });
    await waitFor(() => /control plane is served apart url=https:\/\//.test(server.stderr), { what: 'the log to tell of it' });
    assert.equal(await nameOf(server.url), 'first');
  });
});
