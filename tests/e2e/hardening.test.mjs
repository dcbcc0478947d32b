// What the running process has given up: privileges, files, programs.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { chmod, mkdir, rename, rm, stat, symlink, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe } from 'node:test';

import { Api } from './lib/api.mjs';
import { makeCertificate } from './lib/certificate.mjs';
import { LOOPBACK_FLAGS, Server, temporaryFolder } from './lib/server.mjs';
import { lifecycleTest, test } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const isRoot = process.getuid() === 0;

/** A field of /proc/PID/status. */
function statusOf(server, name) {
  return readFileSync(`/proc/${server.child.pid}/status`, 'utf8').match(new RegExp(`^${name}:\\s*(.*)$`, 'm'))[1].split(/\s+/);
}

async function inFolder(body) {
  const folder = await temporaryFolder();
  try {
    await chmod(folder, 0o755); // another user must get through
    await body(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function delivers(server, receiver) {
  const sink = await receiver();
  const tenant = await new Api(server).createTenant();
  await tenant.subscribe(sink.url());
  await tenant.waitDelivery(await tenant.publish());
  tenant.api.agent.destroy();
}

describe('hardening', () => {
  lifecycleTest('it serves in a sandbox, unless told not to', async ({ start, receiver }) => {
    const server = await start();
    if (!/not confined/.test(server.stderr)) assert.deepEqual(statusOf(server, 'Seccomp'), ['2']);
    assert.deepEqual(statusOf(server, 'NoNewPrivs'), ['1']);
    await delivers(server, receiver);
    const open = await start({ flags: [...LOOPBACK_FLAGS, '--sandbox=false'] });
    assert.deepEqual(statusOf(open, 'Seccomp'), ['0']);
    await delivers(open, receiver);
  });

  lifecycleTest('its threads bear their names in the sandbox too', async ({ start }) => {
    const { pid } = (await start()).child;
    const nameOf = (id) => {
      try {
        return readFileSync(`/proc/${pid}/task/${id}/comm`, 'utf8').trim();
      } catch {
        return ''; // it has ended meanwhile
      }
    };
    const names = () => readdirSync(`/proc/${pid}/task`).map(nameOf);
    const wanted = ['writer', 'deliver-0', 'api-side'];
    await waitFor(() => wanted.every((name) => names().includes(name)), { what: () => `${wanted} among ${names()}` });
  });

  lifecycleTest('a file beyond its folders is out of reach', async ({ start }) => {
    await inFolder(async (folder) => {
      const [near, far] = [join(folder, 'near'), join(folder, 'far')];
      await mkdir(near);
      await mkdir(far);
      const used = await makeCertificate(near, 'used');
      const renewed = await makeCertificate(far, 'used');
      const flags = [...LOOPBACK_FLAGS, '--tls-certificate', used.certificate, '--tls-key', used.key];
      const confined = await start({ flags });
      const open = await start({ flags: [...flags, '--sandbox=false'] });
      for (const kind of ['certificate', 'key']) {
        await unlink(used[kind]);
        await symlink(renewed[kind], used[kind]);
      }
      for (const server of [confined, open]) server.child.kill('SIGHUP');
      await waitFor(() => /new TLS certificate in force/.test(open.stderr), { what: 'the reload without a sandbox' });
      if (!/Landlock/.test(confined.stderr)) {
        await waitFor(() => /new TLS certificate is refused.*cannot be read/.test(confined.stderr), {
          what: 'the file to be out of reach',
        });
        // Renamed into the folder it is within reach.
        for (const kind of ['certificate', 'key']) await rename(renewed[kind], used[kind]);
        confined.child.kill('SIGHUP');
        await waitFor(() => /new TLS certificate in force/.test(confined.stderr), { what: 'the reload in a sandbox' });
      }
    });
  });

  test('started as root it becomes the user it is told', { skip: !isRoot }, async () => {
    await inFolder(async (folder) => {
      const data = join(folder, 'data');
      const server = new Server({ data, flags: [...LOOPBACK_FLAGS, '--user', 'nobody'] });
      try {
        await server.start();
        const { uid, mode } = await stat(data);
        assert.notEqual(uid, 0);
        assert.equal(mode & 0o777, 0o700);
        for (const field of ['Uid', 'Gid']) assert.ok(statusOf(server, field).every((id) => id !== '0'), field);
        assert.deepEqual(statusOf(server, 'CapEff'), ['0000000000000000']);
        assert.ok(!statusOf(server, 'Groups').includes('0'));
        assert.equal((await stat(join(data, 'secret.key'))).uid, uid);
        assert.match(readFileSync(`/proc/${server.child.pid}/limits`, 'utf8'), /^Max core file size +0 +0/m);
        await new Api(server).createTenant();
        await server.restart();
      } finally {
        await server.remove();
      }
    });
  });

  test('a user that does not fit is refused', { skip: !isRoot }, async () => {
    await inFolder(async (folder) => {
      for (const [user, expected] of [
        ['root', /no such user without privileges/],
        ['no-such-user-here', /no such user without privileges/],
        ['nobody', /cannot be used by that user.*chown/],
      ]) {
        const data = join(folder, user);
        await mkdir(data, { mode: 0o700 }); // root's
        const server = new Server({ data, flags: ['--user', user] });
        await assert.rejects(server.start(), expected);
        await server.remove();
      }
    });
  });
});
