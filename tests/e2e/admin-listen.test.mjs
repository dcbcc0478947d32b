// The control plane on a listener of its own: the public one serves what producers and subscribers need.

import assert from 'node:assert/strict';
import { describe } from 'node:test';

import { Api } from './lib/api.mjs';
import { LOOPBACK_FLAGS } from './lib/server.mjs';
import { lifecycleTest } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

/** The same server, asked at the operator's address. */
async function adminOf(server) {
  const [, url] = await waitFor(() => server.stderr.match(/served apart url=(\S+)\n/), { what: 'the log to tell the address' });
  return new Api({ url, adminKey: server.adminKey });
}

describe('admin-listen', () => {
  lifecycleTest('serves publishing and health in public, and all else apart', async ({ start }) => {
    const server = await start({ flags: [...LOOPBACK_FLAGS, '--admin-listen', '127.0.0.1:0'] });
    const open = new Api(server);
    const admin = await adminOf(server);
    const tenant = await admin.createTenant();
    const body = { type: 'invoice.paid', data: 1 };
    await open.expect(202, 'POST', `${tenant.path}/events`, { body });
    await open.expect(202, 'POST', `${tenant.path}/events/batch`, { body: [body] });
    for (const path of ['/healthz', '/readyz']) await open.expect(200, 'GET', path, { key: null });

    const control = [
      ['GET', '/'], ['GET', '/metrics'], ['GET', '/v1/tenants'], ['POST', '/v1/tenants'], ['GET', tenant.path],
      ['PATCH', tenant.path], ['DELETE', tenant.path], ['GET', `${tenant.path}/subscriptions`],
      ['POST', `${tenant.path}/subscriptions`], ['GET', `${tenant.path}/deliveries`], ['GET', '/v1/keys'],
      ['POST', '/v1/keys'], ['GET', '/v1/audit'],
    ];
    for (const [method, path] of control) {
      for (const key of [undefined, null, 'wrong']) {
        const answer = await open.request(method, path, { key });
        assert.equal(answer.status, 404, `${method} ${path} in public`);
      }
    }
    // The path is there in public, for publishing alone.
    const listed = await open.request('GET', `${tenant.path}/events`);
    assert.deepEqual([listed.status, listed.headers.allow], [405, 'POST']);
    await open.expect(401, 'POST', `${tenant.path}/events`, { body, key: 'wrong' });

    await admin.expect(200, 'GET', '/metrics', { key: null });
    assert.equal((await tenant.get('/events')).data.length, 2);
    await admin.expect(202, 'POST', `${tenant.path}/events`, { body });
    for (const api of [open, admin]) api.agent.destroy();
  });
});
