// One server for a file of tests, one tenant and any number of receivers for each test.

import { after, describe, it, test as unlimited } from 'node:test';

import { Api } from './api.mjs';
import { OpenApi } from './openapi.mjs';
import { startReceiver } from './receiver.mjs';
import { Server } from './server.mjs';

export const TEST_LIMIT_MS = 240_000; // several waits, each with its own

/**
 * suite('title', ({test}) => { test('what holds', async ({api, tenant, receiver, server}) => …) })
 * Every answer is held against openapi.json. A failed test prints what the server said meanwhile. `concurrency` runs tests side by side: for those that mostly wait.
 */
export function suite(title, define, { concurrency = 1, ...serverOptions } = {}) {
  describe(title, { concurrency }, () => {
    let starting;
    const started = () => (starting ??= Server.start(serverOptions));
    after(async () => {
      if (starting) await (await starting.catch(() => null))?.remove();
    });
    const test = (name, body) =>
      it(name, { timeout: TEST_LIMIT_MS }, async () => {
        const server = await started();
        const { logged } = server;
        const api = new Api(server);
        api.openapi = await OpenApi.of(server, api);
        await scenario(() => server.saidSince(logged), async (receiver) => {
          const tenant = await api.createTenant();
          await body({ server, api, tenant, receiver });
        });
        api.agent.destroy();
      });
    define({ test });
  });
}

/** A test that needs no server, or makes one its own way: test('what holds', async (t) => …), before the body options of node's. None hangs for ever. */
export function test(name, ...rest) {
  const body = rest.pop();
  unlimited(name, { timeout: TEST_LIMIT_MS, ...rest[0] }, body);
}

/** A test that starts and stops servers of its own, for those that kill them. */
export function lifecycleTest(name, body, { skip = false } = {}) {
  it(name, { timeout: TEST_LIMIT_MS, skip }, async () => {
    const servers = [];
    const start = async (options) => {
      const server = new Server(options);
      servers.push(server);
      await server.start();
      return server;
    };
    try {
      await scenario(() => servers.map((server) => server.saidSince(0)).join('\n---\n'), (receiver) => body({ start, receiver }));
    } finally {
      for (const server of servers) await server.remove();
    }
  });
}

/** Runs a test's body with receivers. said(): what servers said, for one that fails. */
async function scenario(said, body) {
  const receivers = [];
  const receiver = async (script, options) => {
    const started = await startReceiver(script, options);
    receivers.push(started);
    return started;
  };
  try {
    await body(receiver);
  } catch (error) {
    console.error(`---- the server said ----\n${said()}\n---- end ----`);
    throw error;
  } finally {
    for (const started of receivers) await started.close();
  }
}
