// Signing secrets at rest and in what the server says: sealed, and never told but where they are made.

import assert from 'node:assert/strict';
import { createPrivateKey, randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { chmod, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe } from 'node:test';

import { ONLY_A_FILE } from './lib/shared_store.mjs';
import { Api } from './lib/api.mjs';
import { authority } from './lib/certificates.mjs';
import { LOOPBACK_FLAGS, Server } from './lib/server.mjs';
import { lifecycleTest } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

/** The forms in which a secret's text might lie somewhere. */
function formsOf(secret) {
  const base64 = secret.slice(secret.indexOf('_') + 1);
  const raw = Buffer.from(base64, 'base64');
  return [
    Buffer.from(base64),
    Buffer.from(raw.toString('base64url')),
    Buffer.from(raw.toString('hex')),
    raw,
    raw.subarray(0, 32), // an ed25519 seed alone
  ];
}

async function filesOf(folder) {
  const names = await readdir(folder, { recursive: true });
  const files = [];
  for (const name of names) {
    if ((await stat(join(folder, name))).isFile()) files.push({ name, bytes: await readFile(join(folder, name)) });
  }
  return files;
}

async function assertNowhere(folder, secrets) {
  const files = await filesOf(folder);
  assert.ok(files.some(({ name }) => name.endsWith('-wal') || name.endsWith('.db')));
  for (const { name, bytes } of files) {
    for (const secret of secrets) {
      for (const form of formsOf(secret)) assert.equal(bytes.indexOf(form), -1, `${name} holds a secret`);
    }
  }
}

const MAPPING_LIMIT = 256 * 1024 * 1024;

/** Whether bytes lie somewhere in a process's writable memory. */
function inMemory(pid, bytes) {
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw\S* /gm);
  const fd = openSync(`/proc/${pid}/mem`, 'r');
  try {
    return [...maps].some(([, from, to]) => {
      const start = BigInt(`0x${from}`);
      const memory = Buffer.alloc(Math.min(Number(BigInt(`0x${to}`) - start), MAPPING_LIMIT));
      try {
        return memory.subarray(0, readSync(fd, memory, 0, memory.length, start)).includes(bytes);
      } catch {
        return false; // not there any more, or not to be read
      }
    });
  } finally {
    closeSync(fd);
  }
}

/** A start that is refused; what it said. */
async function refusedStart(data, options = {}) {
  const server = new Server({ data, ...options });
  await assert.rejects(server.start(), /ended before it was ready/);
  await server.remove();
  return server.stderr;
}

describe('secrets at rest', { skip: ONLY_A_FILE }, () => {
  lifecycleTest('lie in no file of the data folder, and in nothing that is said', async ({ start, receiver }) => {
    const server = await start();
    const sink = await receiver();
    const tenant = await new Api(server).createTenant();
    const given = `whsec_${randomBytes(32).toString('base64')}`;
    const made = [];
    for (const fields of [{}, { secret: given }, { signature: 'ed25519' }]) {
      made.push(await tenant.subscribe(sink.url(), fields));
    }
    assert.equal(made[1].secret, given);
    const rotated = await tenant.expect(200, 'POST', `/subscriptions/${made[0].id}/rotate-secret`, { body: {} });
    const secrets = [...made.map(({ secret }) => secret), rotated.secret];
    for (const secret of secrets) assert.match(secret, /^whs(ec|k)_/);

    const event = await tenant.publish();
    for (const { id } of made) await tenant.waitDelivery({ ...event, event_id: event.id, subscription_id: id });
    const { json: wrong } = await tenant.request('POST', '/subscriptions', { body: { url: 'nonsense', secret: given } });
    const told = JSON.stringify([
      wrong,
      await tenant.all('/subscriptions'),
      await Promise.all(made.map(({ id }) => tenant.get(`/subscriptions/${id}/secrets`))),
      await tenant.api.get('/v1/audit'),
    ]);
    for (const secret of secrets) {
      for (const form of formsOf(secret).slice(0, 3)) {
        assert.ok(!told.includes(form.toString()), 'an answer tells a secret');
        assert.ok(!server.log.includes(form.toString()), 'the log tells a secret');
      }
    }
    await assertNowhere(server.data, secrets);
    await server.stop();
    await assertNowhere(server.data, secrets);
    await server.start();
    await assertNowhere(server.data, secrets);
    // What was sealed signs after a restart as before.
    await tenant.waitDelivery({ ...(await tenant.publish()), subscription_id: made[1].id });
  });

  lifecycleTest('are gone from memory once nothing signs with them', async ({ start, receiver }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--permit-core-dumps'] }); // its user may read its memory
    const sink = await receiver();
    const tenant = await new Api(server).createTenant();
    const given = `whsec_${randomBytes(48).toString('base64')}`;
    const kept = await tenant.subscribe(sink.url(), { event_types: ['never'] });
    const gone = [await tenant.subscribe(sink.url(), { secret: given }), await tenant.subscribe(sink.url(), { signature: 'ed25519' })];
    const event = await tenant.publish();
    for (const { id } of gone) await tenant.waitDelivery({ ...event, subscription_id: id });
    assert.ok(formsOf(kept.secret).some((form) => inMemory(server.child.pid, form)), 'the search finds what is there');
    for (const { id } of gone) await tenant.expect(204, 'DELETE', `/subscriptions/${id}`);
    tenant.api.agent.destroy(); // and with it the connections they came on
    for (const { secret } of gone) {
      await waitFor(() => formsOf(secret).every((form) => !inMemory(server.child.pid, form)), {
        what: 'the secret of a deleted subscription to be nowhere in memory',
      });
    }
  });

  lifecycleTest('so are client keys', async ({ start, receiver }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--permit-core-dumps'] });
    const ours = await authority('ours');
    const [shopTls, client] = [await ours.issue('shop.test'), await ours.issue('client')];
    const sink = await receiver([204], { tls: { ...shopTls, ca: ours.pem, requestCert: true, rejectUnauthorized: true } });
    const tenant = await new Api(server).createTenant();
    const tls = { client_certificate: client.cert, client_key: client.key, ca: ours.pem };
    const { id } = await tenant.subscribe(sink.url(), { tls });
    await tenant.waitDelivery(await tenant.publish());
    const [, line, end] = client.key.split('\n');
    const forms = { line: Buffer.from(line), end: Buffer.from(end), number: Buffer.from(createPrivateKey(client.key).export({ format: 'jwk' }).d, 'base64url') };
    assert.ok(inMemory(server.child.pid, forms.line), 'the search finds what is there');
    await tenant.expect(204, 'DELETE', `/subscriptions/${id}`);
    tenant.api.agent.destroy();
    for (const [what, form] of Object.entries(forms)) {
      await waitFor(() => !inMemory(server.child.pid, form), { what: `the ${what} of the key to be nowhere in memory` });
    }
    await ours.remove();
  });

  lifecycleTest('are in no core dump', async ({ start }) => {
    const limits = (pid) => readFileSync(`/proc/${pid}/limits`, 'utf8').match(/^Max core file size +(\S+) +(\S+)/m).slice(1);
    const server = await start();
    assert.deepEqual(limits(server.child.pid), ['0', '0']);
    // What may not be dumped belongs to root in /proc, whoever runs it; and to its user when it may.
    if (process.getuid() !== 0) assert.equal(statSync(`/proc/${server.child.pid}/maps`).uid, 0);
    const open = await start({ flags: [...LOOPBACK_FLAGS, '--permit-core-dumps'] });
    assert.deepEqual(limits(open.child.pid), limits(process.pid));
  });

  lifecycleTest('the key that is made is private, told, and needed', async ({ start }) => {
    const server = await start();
    const path = join(server.data, 'secret.key');
    assert.match(server.stderr, /key that seals signing secrets was made.*secret\.key/);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.deepEqual((await readdir(server.data)).filter((name) => name.endsWith('.new')), []);
    await server.restart();
    assert.doesNotMatch(server.stderr, /was made/);
    await server.stop();

    await rename(path, `${path}.away`);
    assert.match(await refusedStart(server.data), /missing.*put it back from a backup/);
    await assert.rejects(stat(path), { code: 'ENOENT' });
    await writeFile(path, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
    assert.match(await refusedStart(server.data), /not the one that sealed/);
    await writeFile(path, 'no key\n');
    assert.match(await refusedStart(server.data), /is no key.*openssl rand/);
    await rename(`${path}.away`, path);
    await chmod(path, 0o644);
    await server.start();
    assert.match(server.stderr, /may be read by others: chmod 600/);
  });

  lifecycleTest('the key changes by giving the previous one for one start', async ({ start, receiver }) => {
    const [first, second] = [randomBytes(32).toString('base64'), randomBytes(32).toString('hex')];
    const server = await start({ env: { POSTHORN_SECRET_KEY: first } });
    assert.ok(!(await readdir(server.data)).includes('secret.key'));
    const sink = await receiver();
    const tenant = await new Api(server).createTenant();
    const subscription = await tenant.subscribe(sink.url());
    await server.stop();

    const file = join(server.data, 'other.key');
    await writeFile(file, `${second}\n`, { mode: 0o600 });
    server.flags = [...LOOPBACK_FLAGS, '--secret-key-file', file];
    server.env = {};
    assert.match(await refusedStart(server.data, { flags: server.flags }), /not the one that sealed/);
    server.env = { POSTHORN_SECRET_KEY_PREVIOUS: first };
    await server.start();
    // The subscription's, and two keys of the server's own.
    assert.match(server.stderr, /sealed with the secret key; previous keys are not needed any more secrets=3/);
    server.env = {};
    await server.restart();
    const event = await tenant.publish();
    await tenant.waitDelivery({ ...event, subscription_id: subscription.id });
    await server.stop();
    const both = await refusedStart(server.data, { flags: server.flags, env: { POSTHORN_SECRET_KEY: first } });
    assert.match(both, /both set/);
    assert.ok(!both.includes(first));
    await rm(file);
    assert.match(await refusedStart(server.data, { flags: server.flags }), /cannot be read/);
  });
});
