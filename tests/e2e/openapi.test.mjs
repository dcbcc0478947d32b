// The OpenAPI document: that it is one, and that the server does what it says. (Every answer of the other tests is held
// against it, too: lib/suite.mjs.)

import assert from 'node:assert/strict';

import { Validator } from '@seriousme/openapi-schema-validator';

import { keyFor, makeWorld, prepare, send, typesOf } from './lib/world.mjs';
import { suite } from './lib/suite.mjs';

/** The first query of a parameter's example. */
const queryOf = (parameter, world) => {
  const kind = parameter.schema.$ref?.split('/').at(-1);
  const value = parameter.example ?? world.ids[kind];
  return value === undefined ? undefined : `?${new URLSearchParams({ [parameter.name]: value === 'acme' ? world.tenant.id : value })}`;
};

suite('openapi', ({ test }) => {
  test('it is served to everybody, and is valid OpenAPI 3.1', async ({ api }) => {
    const response = await api.request('GET', '/v1/openapi.json', { key: null });
    assert.equal(response.status, 200);
    assert.match(response.headers['content-type'], /^application\/json\b/);
    const validator = new Validator();
    const { valid, errors } = await validator.validate(response.json);
    assert.ok(valid, JSON.stringify(errors, null, 1));
    assert.equal(validator.version, '3.1');
    validator.resolveRefs(); // throws when one leads nowhere
  });

  test('every part of it is used', async ({ api }) => {
    const { document } = api.openapi;
    const text = JSON.stringify(document);
    for (const [kind, parts] of Object.entries(document.components)) {
      if (kind === 'securitySchemes') continue;
      for (const name of Object.keys(parts)) assert.ok(text.includes(`"#/components/${kind}/${name}"`), `${kind}/${name} is not used`);
    }
  });

  test('every operation succeeds with its example, by a key of just its scope, and answers as it says', async ({ api, receiver }) => {
    const shop = await receiver();
    for (const operation of api.openapi.operations) {
      for (const type of typesOf(operation)) {
        const world = await makeWorld(api, shop);
        await prepare(operation, world);
        const key = operation.scope ? await keyFor(operation, world) : null;
        const response = await send(operation, world, { type, key });
        assert.ok(response.status < 300, `${operation.name} (${type}) answered ${response.status}: ${response.text.slice(0, 500)}`);
      }
    }
  });

  test('every query parameter is taken, and no other', async ({ api, receiver }) => {
    const world = await makeWorld(api, await receiver());
    for (const operation of api.openapi.operations.filter((one) => one.method === 'GET' && one.scope)) {
      for (const parameter of operation.parameters.filter((one) => one.in === 'query')) {
        const query = queryOf(parameter, world);
        if (!query) continue; // a cursor comes from a page
        const response = await send(operation, world, { query });
        assert.equal(response.status, 200, `${operation.name}${query} answered ${response.status}: ${response.text}`);
      }
      const response = await send(operation, world, { query: '?colour=red' });
      assert.equal(response.status, 422, `${operation.name}?colour=red answered ${response.status}`);
    }
  });

  test('HEAD answers as GET does, without a body', async ({ api, receiver }) => {
    const world = await makeWorld(api, await receiver());
    for (const operation of api.openapi.operations.filter((one) => one.method === 'GET')) {
      const response = await send(operation, world, { method: 'HEAD' });
      assert.equal(response.status, 200, `HEAD ${operation.path} answered ${response.status}`);
      assert.equal(response.text, '');
    }
  });

  test('what a subscriber receives is what its webhook says', async ({ api, tenant, receiver }) => {
    const { openapi } = api;
    const { post } = openapi.document.webhooks.delivery;
    const shop = await receiver();
    await tenant.subscribe(shop.url());
    await tenant.subscribe(shop.url(), { format: 'cloudevents', signature: 'ed25519' });
    await tenant.publish('invoice.paid', { amount: 1 });
    for (const request of await shop.received(2)) {
      for (const parameter of post.parameters) openapi.validate(parameter.schema, request.headers[parameter.name], parameter.name);
      const body = post.requestBody.content[request.headers['content-type']];
      assert.ok(body, request.headers['content-type']);
      openapi.validate(body.schema, request.json, 'the body');
    }
  });
});
