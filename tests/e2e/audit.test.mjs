// The audit: every operation that changes something leaves an entry that says who, what and when, and tells no secret.

import assert from 'node:assert/strict';

import { assertProblem, assertTime } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';
import { HEADER_SECRET, idsFor, keyFor, makeKey, makeWorld, prepare, send } from './lib/world.mjs';

/** What sends events: they are kept themselves, with all that became of them. */
const KEPT_AS_EVENTS = ['publishEvent', 'publishBatch', 'testSubscription'];

const changing = (openapi) => openapi.operations.filter((one) => one.scope && one.method !== 'GET' && !KEPT_AS_EVENTS.includes(one.name));

/** Every string in an answer that opens something or signs. */
const secretsIn = (json) => ['secret', 'key', 'token', 'url'].map((name) => json?.[name]).filter((one) => typeof one === 'string' && !one.startsWith('http://127.'));

const auditOf = async (api, query = 'limit=250') => (await api.get(`/v1/audit?${query}`)).data;

suite('audit', ({ test }) => {
  test('every operation that changes something leaves one entry: who, what, when, and whose', async ({ api, receiver }) => {
    const shop = await receiver();
    const secrets = [];
    for (const operation of changing(api.openapi)) {
      const world = await makeWorld(api, shop);
      await prepare(operation, world);
      const key = await keyFor(operation, world);
      const { id: keyId } = (await api.get('/v1/keys?limit=1')).data[0];
      const before = (await auditOf(api)).length;
      const at = Date.now();

      const response = await send(operation, world, { key });
      assert.ok(response.status < 300, `${operation.name} answered ${response.status}: ${response.text}`);
      const [entry, ...rest] = await auditOf(api);
      assert.equal(rest.length + 1, Math.min(before + 1, 250), `${operation.name} left no entry, or more than one`);
      assert.equal(entry.actor, keyId, operation.name);
      assertTime(entry.at);
      assert.ok(Math.abs(Date.parse(entry.at) - at) < 10_000, `${operation.name} at ${entry.at}`);
      assert.match(entry.action, /^[a-z]+\.[a-z_]+$/);
      const object = idsFor(operation, world).id ?? response.json?.id ?? world.tenant.id;
      assert.equal(entry.object, object, `${operation.name}: ${JSON.stringify(entry)}`);
      const tenant = response.json?.tenant_id ?? (operation.name === 'createTenant' ? response.json.id : world.tenant.id);
      assert.equal(entry.tenant_id, tenant, `${operation.name}: ${JSON.stringify(entry)}`);
      secrets.push(...world.secrets, ...secretsIn(response.json), key);
    }
    await assertUntold(api, secrets);
  });

  /** No secret stands in the audit, in any list, or in the log. */
  async function assertUntold(api, secrets) {
    assert.ok(secrets.length > 10 && secrets.includes(HEADER_SECRET));
    const { text } = await api.request('GET', '/v1/audit?limit=250');
    const keys = await api.request('GET', '/v1/keys?limit=250');
    for (const secret of secrets) {
      assert.ok(!text.includes(secret), `the audit tells ${secret}`);
      assert.ok(!keys.text.includes(secret), `the list of keys tells ${secret}`);
      assert.ok(!api.server.log.includes(secret), `the log tells ${secret}`);
    }
  }

  test('what is refused leaves none', async ({ api, receiver }) => {
    const world = await makeWorld(api, await receiver());
    const before = await auditOf(api);
    for (const operation of changing(api.openapi)) {
      const response = await send(operation, world, { query: '?colour=red' });
      assert.equal(response.status, 422, `${operation.name} answered ${response.status}`);
    }
    assert.deepEqual(await auditOf(api), before);
  });

  test('a change tells which fields, not the values of headers', async ({ api, tenant }) => {
    const { id } = await tenant.subscribe('http://127.0.0.1:9/');
    await tenant.change(id, { headers: { authorization: HEADER_SECRET }, description: 'x' });
    const [entry] = await auditOf(api, `tenant_id=${tenant.id}`);
    assert.equal(entry.action, 'subscription.update');
    assert.deepEqual(entry.detail, { fields: ['headers', 'description'] });
  });

  test('the first admin key is called admin', async ({ api, tenant }) => {
    assert.equal((await auditOf(api, `tenant_id=${tenant.id}`)).at(-1).actor, 'admin');
  });

  test('a tenant that is gone keeps its entries, under its name', async ({ api, tenant }) => {
    const { id } = await tenant.subscribe('http://127.0.0.1:9/');
    await tenant.expect(204, 'DELETE', `/subscriptions/${id}`);
    await api.expect(204, 'DELETE', tenant.path);
    const actions = ['tenant.delete', 'subscription.delete', 'subscription.create', 'tenant.create'];
    const entries = await auditOf(api, `tenant_id=${tenant.id}`);
    assert.deepEqual(entries.map((entry) => entry.action), actions);
    assert.ok(entries.every((entry) => entry.tenant_id === tenant.id));
    const all = await auditOf(api);
    assert.deepEqual(all.slice(0, 4), entries);
  });

  test('pages, and a filter that names no tenant', async ({ api, tenant }) => {
    for (let i = 0; i < 4; i++) await makeKey(api, { tenant_id: tenant.id, scopes: ['events:read'] });
    const all = await auditOf(api, `tenant_id=${tenant.id}`);
    assert.equal(all.length, 5);
    const paged = [];
    for (let cursor = ''; cursor !== null; ) {
      const page = await api.get(`/v1/audit?tenant_id=${tenant.id}&limit=2${cursor && `&cursor=${cursor}`}`);
      paged.push(...page.data);
      cursor = page.next_cursor;
    }
    assert.deepEqual(paged, all);
    assert.deepEqual(await auditOf(api, 'tenant_id=nobody'), []);
    assertProblem(await api.request('GET', '/v1/audit?tenant_id=a%20b'), 422, ['tenant_id']);
  });
});

suite('secrets in errors', ({ test }) => {
  test('a refusal does not repeat what was secret in the request', async ({ tenant }) => {
    const { id } = await tenant.subscribe('http://127.0.0.1:9/');
    const secret = 'whsec_TOPSECRETtopsecretTOPSECRETtopsecret';
    const refused = [
      ['/subscriptions', { body: { url: 'http://127.0.0.1:9/', secret: `${secret}!` } }],
      ['/subscriptions', { body: { url: 'http://127.0.0.1:9/', signature: 'ed25519', secret } }],
      ['/subscriptions', { body: { url: `http://user:${secret}@127.0.0.1:9/` } }],
      ['/subscriptions', { body: { url: 'http://127.0.0.1:9/', headers: { authorization: `${secret}\n` } } }],
      ['/subscriptions', { body: `{"secret":"${secret}"` }],
      ['/subscriptions', { body: `{"secret":"${secret}` }],
      ['/subscriptions', { body: `{"secret":${secret}}` }],
      ['/subscriptions', { body: `{"secret":"${secret}" "url":1}` }],
      ['/subscriptions', { body: `{"url":"x","secret":"${secret}","secret":"${secret}"}` }],
      ['/subscriptions', { body: `"${secret}"` }],
      [`/subscriptions/${id}/rotate-secret`, { body: { secret: `${secret}!` } }],
      [`/subscriptions/${id}/rotate-secret`, { body: `{"secret":"${secret}` }],
      // A parser that quotes what it stumbled over.
      ...['{"secret":"TOPSECRET', '{"secret":TOPSECRET}', '["a" "TOPSECRET"]', '{"a":"TOPSECRET\\x"}', '{"TOPSECRET":1,"TOPSECRET":2}'].map((body) => ['/subscriptions', { body }]),
      ['/events', { body: `{"type":"a.b","data":"${secret}` }],
      ['/events', { key: secret, body: {} }],
    ];
    for (const [path, options] of refused) {
      const response = await tenant.request('POST', path, options);
      assert.ok(response.status >= 400 && response.status < 500);
      assert.ok(!response.text.includes('TOPSECRET'), `${JSON.stringify(options)} answered ${response.text}`);
      assert.ok(!JSON.stringify(response.headers).includes('TOPSECRET'));
    }
    assert.ok(!tenant.api.server.log.includes('TOPSECRET'));
  });
});
