// Who may do what: every operation of openapi.json, tried by those who may not. Each is refused, and has changed nothing.
// (That the same requests succeed with the right key is shown by openapi.test.mjs.)

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';

import { kindOfId, pathOf } from './lib/openapi.mjs';
import { assertProblem } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';
import { idsFor, keyFor, makeKey, makeWorld, send, TENANT_SCOPES } from './lib/world.mjs';

const NOWHERE = '01JZZZZZZZEZZ8ZZZZZZZZZZZZ';
/** Figures that move by themselves. */
const RESTLESS = ['getSubscriptionStats'];

/** What the store answers to every question about these worlds. */
async function snapshot(api, worlds) {
  const answers = {};
  for (const operation of api.openapi.operations.filter((one) => one.method === 'GET' && one.scope && !RESTLESS.includes(one.name))) {
    for (const world of operation.isTenants ? worlds : worlds.slice(0, 1)) {
      const query = operation.parameters.some((one) => one.name === 'limit') ? '?limit=250' : '';
      const { status, json } = await send(operation, world, { query });
      answers[`${operation.name} ${world.tenant.id}`] = { status, json };
    }
  }
  return answers;
}

/** Runs `attempts` for each operation that needs a key, and asserts that none of them changed anything. */
async function walk(api, worlds, attempts) {
  const before = await snapshot(api, worlds);
  for (const operation of api.openapi.operations.filter((one) => one.scope)) {
    await attempts(operation);
    assert.deepEqual(await snapshot(api, worlds), before, `${operation.name} was refused and has changed something all the same`);
  }
}

function assertRefused(response, status, what) {
  try {
    assertProblem(response, status);
  } catch (error) {
    error.message = `${what}: ${error.message}`;
    throw error;
  }
}

async function expiredKey(api) {
  const { key } = await makeKey(api, { scopes: ['admin'], expires_at: new Date(Date.now() + 3000).toISOString() });
  await waitFor(async () => (await api.request('GET', '/v1/tenants', { key })).status === 401, { what: 'the key to expire' });
  return key;
}

async function revokedKey(api) {
  const { id, key } = await makeKey(api, { scopes: ['admin'] });
  await api.expect(200, 'GET', '/v1/tenants', { key });
  await api.expect(204, 'DELETE', `/v1/keys/${id}`);
  return key;
}

suite('access', ({ test }) => {
  test('401: without a key, and with any that is none', async ({ api, receiver }) => {
    const world = await makeWorld(api, await receiver());
    const { key: good } = await makeKey(api, { scopes: ['admin'] });
    const admin = api.server.adminKey;
    const bare = (authorization) => ({ key: null, headers: { authorization } });
    const attempts = {
      'no key': { key: null },
      'an empty bearer': bare('Bearer '),
      'an empty header': bare(''),
      'a bearer of spaces': bare('Bearer    '),
      'a wrong key': { key: 'wrong' },
      'a key cut short': { key: good.slice(0, -1) },
      'a key with more behind it': { key: `${good}x` },
      'a key in capitals': { key: good.toUpperCase() },
      'two keys': { key: `${good} ${good}` },
      'a key without its scheme': bare(good),
      'another scheme': bare(`Basic ${Buffer.from(`x:${admin}`).toString('base64')}`),
      'the admin key cut short': { key: admin.slice(0, -1) },
      'a key of NULs': { key: '%00%00' },
      'the id of a key': { key: world.ids.KeyId },
      'an expired key': { key: await expiredKey(api) },
      'a revoked key': { key: await revokedKey(api) },
    };
    await walk(api, [world], async (operation) => {
      for (const [what, options] of Object.entries(attempts)) {
        const response = await send(operation, world, options);
        assertRefused(response, 401, `${operation.name} with ${what}`);
        assert.match(response.headers['www-authenticate'], /^Bearer\b/);
      }
      if (operation.method === 'GET') assert.equal((await send(operation, world, { method: 'HEAD', key: null })).status, 401);
    });
  });

  test('401: a key that is revoked, or expires, while the body still comes', async ({ api, tenant }) => {
    const whole = '{"type":"invoice.paid","data":1}';
    const begin = async (key) => {
      const socket = net.connect(new URL(api.server.url).port, '127.0.0.1').setEncoding('latin1');
      const answer = once(socket, 'data');
      socket.write(`POST ${tenant.path}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Length: ${whole.length}\r\n\r\n${whole.slice(0, 9)}`);
      return { socket, end: async () => (socket.write(whole.slice(9)), (await answer)[0]) };
    };
    const endings = {
      revoked: async ({ id }) => api.expect(204, 'DELETE', `/v1/keys/${id}`),
      expired: ({ key }) => waitFor(async () => (await api.request('GET', `${tenant.path}/events`, { key })).status === 401, { what: 'the key to expire' }),
    };
    /** Answers whether the key was still good when the head had been sent. */
    const tried = async (what, lasts_ms) => {
      const expires_at = lasts_ms ? new Date(Date.now() + lasts_ms).toISOString() : null;
      const body = { tenant_id: tenant.id, scopes: ['events:write', 'events:read'], expires_at };
      const { status: answered, json: made } = await api.request('POST', '/v1/keys', { body });
      if (answered === 422 && lasts_ms) return false; // it was over before it was made
      const { socket, end } = await begin(made.key);
      const { status } = await api.request('GET', `${tenant.path}/events`, { key: made.key });
      await endings[what](made);
      assert.match(await end(), /^HTTP\/1\.1 401 /, what);
      socket.destroy();
      return status === 200;
    };
    assert.ok(await tried('revoked'));
    let lasts_ms = 500; // on a slow machine that is over too soon
    await waitFor(() => tried('expired', (lasts_ms *= 2)), { what: 'a key that outlasts the head' });
    assert.deepEqual(await tenant.all('/events'), []);
  });

  test('the key of a tenant that is gone opens nothing', async ({ api, receiver }) => {
    const world = await makeWorld(api, await receiver());
    const gone = await api.createTenant();
    const { key } = await makeKey(api, { tenant_id: gone.id, scopes: TENANT_SCOPES });
    await api.expect(204, 'DELETE', gone.path);
    await walk(api, [world], async (operation) => {
      for (const t of [world.tenant.id, gone.id]) {
        const response = await send(operation, world, { key, ids: { ...idsFor(operation, world), t } });
        assert.ok([401, 403, 404].includes(response.status), `${operation.name} answered ${response.status}`);
      }
    });
    // A new tenant of the same name is another tenant.
    await api.createTenant({ id: gone.id });
    const response = await api.request('GET', `${gone.path}/events`, { key });
    assert.ok([401, 404].includes(response.status), `the old key answered ${response.status} for a new tenant of that name`);
  });

  test('404: another tenant’s key; 403 where no tenant is named', async ({ api, receiver }) => {
    const shop = await receiver();
    const [world, other] = [await makeWorld(api, shop), await makeWorld(api, shop)];
    const { key } = await makeKey(api, { tenant_id: other.tenant.id, scopes: TENANT_SCOPES });
    await walk(api, [world, other], async (operation) => {
      assertRefused(await send(operation, world, { key }), operation.isTenants ? 404 : 403, operation.name);
    });
  });

  test('403: a key that has every scope but those that will do', async ({ api, receiver }) => {
    const world = await makeWorld(api, await receiver());
    const keys = new Map();
    const keyWithout = async (scopes, tenant_id) => {
      const name = `${scopes} ${tenant_id}`;
      if (!keys.has(name)) keys.set(name, (await makeKey(api, { tenant_id, scopes: TENANT_SCOPES.filter((one) => !scopes.includes(one)) })).key);
      return keys.get(name);
    };
    // They are made first, for a key is an entry of the audit.
    for (const { scope, scopes } of api.openapi.operations) for (const tenant of [world.tenant.id, null]) if (scope) await keyWithout(scopes, tenant);
    await walk(api, [world], async (operation) => {
      for (const tenant of [world.tenant.id, null]) {
        const key = await keyWithout(operation.scopes, tenant);
        assertRefused(await send(operation, world, { key }), 403, `${operation.name} by a key of ${tenant ?? 'every tenant'}`);
      }
    });
  });

  test('404: ids of another tenant, of another kind, and of nothing', async ({ api, receiver }) => {
    const shop = await receiver();
    const [world, other] = [await makeWorld(api, shop), await makeWorld(api, shop)];
    const keys = new Map();
    for (const operation of api.openapi.operations.filter((one) => one.scope)) keys.set(operation.name, await keyFor(operation, world));
    await walk(api, [world, other], async (operation) => {
      const ids = idsFor(operation, world);
      const tries = operation.isTenants ? [{ ...ids, t: 'nobody' }, { ...ids, t: world.tenant.id.toUpperCase() }, { ...ids, t: '..' }] : [];
      const kind = kindOfId(operation);
      if (kind && operation.isTenants) tries.push({ ...ids, id: other.ids[kind] }, { ...ids, t: other.tenant.id });
      if (kind) {
        const wrong = Object.entries(world.ids).filter(([one]) => one !== kind && one !== 'TenantId').map(([, id]) => id);
        const shaken = [`${ids.id}0`, ids.id.slice(0, -1), `${ids.id.slice(0, 4)}${NOWHERE}`, ids.id.slice(4), 'x', '..', `${ids.id}/`, `%${ids.id}`];
        tries.push(...[...wrong, ...shaken].map((id) => ({ ...ids, id })));
      }
      for (const one of tries) {
        for (const key of [undefined, keys.get(operation.name)]) {
          const response = await send(operation, world, { ids: one, key });
          assertRefused(response, 404, `${operation.name} of ${JSON.stringify(one)}`);
        }
      }
    });
  });

  test('what is asked of one tenant tells nothing of another', async ({ api, receiver }) => {
    const shop = await receiver();
    const [one, two] = [await makeWorld(api, shop), await makeWorld(api, shop)];
    let tried = 0;
    for (const operation of api.openapi.operations.filter(({ isTenants, method }) => isTenants && method === 'GET')) {
      for (const [world, other] of [[one, two], [two, one]]) {
        const query = operation.parameters.some((one) => one.name === 'limit') ? '?limit=250' : '';
        const { status, text } = await send(operation, world, { query });
        assert.equal(status, 200, operation.name);
        for (const id of Object.values(other.ids)) assert.ok(!text.includes(id), `${operation.name} of ${world.tenant.id} tells of ${id}`);
        tried++;
      }
    }
    assert.ok(tried >= 20, `${tried} answers`);
  });

  test('another tenant’s cursor shows nothing of that tenant', async ({ api, receiver }) => {
    const shop = await receiver();
    const [world, other] = [await makeWorld(api, shop), await makeWorld(api, shop)];
    const more = await other.tenant.subscribe(shop.url());
    await other.tenant.waitDelivery({ id: (await other.tenant.publish()).id, subscription_id: more.id });
    let tried = 0;
    for (const operation of api.openapi.operations.filter((one) => one.isTenants && one.parameters.some((two) => two.name === 'cursor'))) {
      const { json } = await send(operation, other, { query: '?limit=1' });
      if (!json.next_cursor) continue;
      tried++;
      const { text } = await send(operation, world, { query: `?cursor=${json.next_cursor}` });
      for (const id of [other.tenant.id, ...Object.values(other.ids)]) assert.ok(!text.includes(id), `${operation.name} shows ${id}`);
    }
    assert.ok(tried >= 3, `${tried} lists`);
  });

  test('a body that names another tenant’s object is refused, or about nothing', async ({ api, receiver }) => {
    const shop = await receiver();
    const [world, other] = [await makeWorld(api, shop), await makeWorld(api, shop)];
    const before = await snapshot(api, [other]);
    let tried = 0;
    for (const operation of api.openapi.operations.filter((one) => one.isTenants && one.requestBody?.content['application/json'])) {
      const { schema, example } = operation.requestBody.content['application/json'];
      for (const [name, property] of Object.entries(api.openapi.resolve(schema).properties ?? {})) {
        const kind = Object.keys(other.ids).find((one) => JSON.stringify(property).includes(`/schemas/${one}"`));
        if (!kind || kind === 'TenantId') continue;
        tried++;
        const response = await api.request(operation.method, pathOf(operation, idsFor(operation, world)), { body: { ...example, [name]: other.ids[kind] } });
        if (response.status < 300) assert.equal(response.json.matched, 0, `${operation.name} by ${name} answered ${response.text}`);
        else assert.ok([404, 422].includes(response.status), `${operation.name} by ${name} answered ${response.status}`);
      }
    }
    assert.ok(tried >= 1);
    assert.deepEqual(await snapshot(api, [other]), before);
  });

  test('a filter by another tenant’s id finds nothing', async ({ api, receiver }) => {
    const shop = await receiver();
    const [world, other] = [await makeWorld(api, shop), await makeWorld(api, shop)];
    let tried = 0;
    for (const operation of api.openapi.operations.filter((one) => one.isTenants)) {
      for (const parameter of operation.parameters.filter((one) => one.in === 'query')) {
        const id = other.ids[parameter.schema.$ref?.split('/').at(-1)];
        if (!id) continue;
        tried++;
        const { json } = await send(operation, world, { query: `?${parameter.name}=${id}` });
        const { data, next_cursor, total = 0 } = json;
        assert.deepEqual({ data, next_cursor, total }, { data: [], next_cursor: null, total: 0 }, `${operation.name} by ${parameter.name}`);
      }
    }
    assert.ok(tried >= 2);
  });
});
