// What a client does while something goes on, and on a terminal: watch, wait, progress, colours.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { cliOf, shellOf, startCli } from './lib/cli.mjs';
import { gate, waitFor } from './lib/wait.mjs';
import { when } from './lib/receiver.mjs';
import { temporaryFolder } from './lib/server.mjs';
import { lifecycleTest, suite } from './lib/suite.mjs';
import { Api } from './lib/api.mjs';

const ESCAPE = /\u001b\[/;

/** Runs `body` with a started command, and ends what is left of it. */
async function withCli(words, options, body) {
  const cli = startCli(words, options);
  try {
    return await body(cli);
  } finally {
    await cli.remove();
  }
}

/** Whether a process is within write(1, …); 64 is the call's number where 1 is not. */
const isWriting = (pid) => /^(1|64) 0x1 /.test(readFileSync(`/proc/${pid}/syscall`, 'utf8'));

/** `count` deliveries of one subscription in the dead-letter queue; then its receiver does as `script` says. */
async function lose(tenant, receiver, count, script = [204]) {
  const endpoint = await receiver([404]);
  const { id } = await tenant.subscribe(endpoint.url());
  for (let i = 0; i < count; i++) await tenant.publish('invoice.paid', i);
  await waitFor(async () => (await tenant.deliveries({ state: 'dlq' })).length === count);
  const next = await receiver(script);
  await tenant.change(id, { url: next.url() });
  return { id, endpoint: next };
}

suite('clients that go on', ({ test }) => {
  test('watch shows what was there and what changes, until Ctrl-C', async ({ server, tenant, receiver }) => {
    const endpoint = await receiver([500, 204]);
    await tenant.subscribe(endpoint.url(), { policy: { retry: { schedule_seconds: [1], jitter: 0 } } });
    const { id } = await tenant.waitDelivery(await tenant.publish('old.one'));
    for (const terminal of [false, true]) {
      const words = ['delivery', 'watch', '--interval-ms', '100'];
      await withCli(words, { terminal, env: shellOf(server, tenant) }, async (watch) => {
        await watch.said(new RegExp(`${id}.*old\\.one`));
        const type = terminal ? 'new.onterminal' : 'new.one';
        await tenant.waitDelivery(await tenant.publish(type));
        await watch.said(new RegExp(`DELIVERED.* 204 .*${type.replace('.', '\\.')}`));
        watch.ctrlC();
        assert.equal(await watch.end(), 0);
        assert.equal(ESCAPE.test(watch.stdout), terminal);
        assert.equal(watch.stdout.match(new RegExp(id, 'g')).length, 1, 'what does not change is shown once');
      });
    }
  });

  test('Ctrl-C ends watch also while nobody reads what it says', async ({ server, tenant, receiver }) => {
    const folder = await temporaryFolder();
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const unread = openSync(pipe, 'r+');
    const endpoint = await receiver();
    await tenant.subscribe(endpoint.url(), { status: 'paused' });
    await withCli(['delivery', 'watch', '--json', '--interval-ms', '100'], { stdout: unread, env: shellOf(server, tenant) }, async (watch) => {
      // More than a pipe holds, once the first look is over: that shows no more than a few.
      const publish = () => tenant.expect(202, 'POST', '/events/batch', { body: Array.from({ length: 250 }, () => ({ type: 'a', data: 1 })) });
      await waitFor(async () => (await publish(), isWriting(watch.child.pid)), { every: 200, what: 'a write that waits' });
      watch.ctrlC();
      assert.equal(await watch.end(), 0);
      assert.doesNotMatch(watch.stderr, /cannot be written/);
    });
    closeSync(unread);
    await rm(folder, { recursive: true });
  });

  test('watch --json: a delivery a line, filtered', async ({ server, tenant, receiver }) => {
    const endpoint = await receiver([404, 204]);
    await tenant.subscribe(endpoint.url());
    await withCli(['delivery', 'watch', '--json', '--state', 'dlq', '--interval-ms', '100'], { env: shellOf(server, tenant) }, async (watch) => {
      const lost = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
      await tenant.waitDelivery(await tenant.publish());
      await watch.said(/\n$/);
      watch.ctrlC();
      assert.equal(await watch.end(), 0);
      const rows = watch.stdout.trimEnd().split('\n').map((line) => JSON.parse(line));
      assert.deepEqual(rows.map((row) => [row.id, row.state]), [[lost.id, 'DLQ']]);
    });
  });

  test('a replay counted, made and waited for', async ({ server, tenant, receiver }) => {
    const { json, cli, done } = cliOf(server, tenant);
    const { id, endpoint } = await lose(tenant, receiver, 3);
    const counted = await cli('replay', 'create', '--subscription', id, '--since', '1h', '--dry-run');
    assert.match(counted.stdout, /^matched +3$/m);
    assert.match(counted.stderr, /nothing was sent/);
    assert.equal(endpoint.requests.length, 0);
    const replay = await json('replay', 'create', '--subscription', id, '--state', 'dlq', '--wait');
    assert.deepEqual([replay.state, replay.matched, replay.done, replay.failed], ['done', 3, 3, 0]);
    assert.equal(endpoint.requests.length, 3);
    assert.deepEqual(await json('replay', 'get', replay.id), replay);
    assert.match(await done('replay', 'list'), new RegExp(`^${replay.id} +done +3 +3 +0 `, 'm'));
    assert.equal((await json('replay', 'wait', replay.id)).state, 'done');
  });

  test('a progress bar on a terminal; Ctrl-C leaves the replay going on, cancel ends it', async ({ server, tenant, receiver }) => {
    const { done, cli, json } = cliOf(server, tenant);
    const slow = gate();
    const { id } = await lose(tenant, receiver, 4, [204, when(slow.opened)]);
    await tenant.change(id, { policy: { max_in_flight: 1 } });
    const env = shellOf(server, tenant);
    try {
      const replay = await withCli(['replay', 'create', '--subscription', id, '--wait'], { terminal: true, env }, async (create) => {
        await create.said(/\[######-+\] {2}25 % {2}1 of 4 replayed/);
        create.ctrlC();
        assert.equal(await create.end(), 130);
        return (await create.said(/goes on.*posthorn replay wait (rpl_\w+)/))[1];
      });
      await withCli(['replay', 'wait', replay], { terminal: true, env: { ...env, NO_COLOR: '1' } }, async (wait) => {
        await wait.said(/1 of 4 replayed/);
        assert.equal(await done('replay', 'cancel', replay), `${replay} cancelled\n`);
        slow.open();
        assert.equal(await wait.end(), 1);
        assert.match(wait.stdout, /state +cancelled/);
      });
      assert.equal((await json('replay', 'get', replay)).state, 'cancelled');
      assert.equal((await cli('replay', 'wait', replay)).code, 1);
      assert.equal((await cli('replay', 'wait', 'rpl_00000000000000000000000000')).code, 1);
    } finally {
      slow.open();
    }
  });

  test('colours on a terminal alone, and not with NO_COLOR', async ({ server, tenant, receiver }) => {
    await lose(tenant, receiver, 1);
    const env = shellOf(server, tenant);
    const output = (options) => withCli(['delivery', 'list'], options, async (list) => {
      assert.equal(await list.end(), 0);
      return list.stdout;
    });
    assert.match(await output({ terminal: true, env }), /\u001b\[31mDLQ\u001b\[0m/);
    for (const more of [{ NO_COLOR: '1' }, { TERM: 'dumb' }]) {
      assert.ok(!ESCAPE.test(await output({ terminal: true, env: { ...env, ...more } })), JSON.stringify(more));
    }
    assert.ok(!ESCAPE.test(await output({ env })));
  });
});

lifecycleTest('watch waits for a server that restarts', async ({ start, receiver }) => {
  const server = await start({ fixedPort: true });
  const api = new Api(server);
  const tenant = await api.createTenant();
  const endpoint = await receiver();
  await tenant.subscribe(endpoint.url());
  await withCli(['delivery', 'watch', '--interval-ms', '100'], { env: shellOf(server, tenant) }, async (watch) => {
    await watch.said(/DELIVERY/);
    await server.stop();
    await watch.said(/the server is away/, 'stderr');
    await server.start();
    await watch.said(/the server is back/, 'stderr');
    await tenant.publish('after.restart');
    await watch.said(/DELIVERED.*after\.restart/);
    watch.ctrlC();
    assert.equal(await watch.end(), 0);
  });
  api.agent.destroy();
});
