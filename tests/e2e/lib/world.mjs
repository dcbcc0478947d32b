// For the tests that walk every operation of openapi.json: a tenant with one object of each kind, and a good request for
// each operation, made of the document's own examples.

import assert from 'node:assert/strict';

import { kindOfId, pathOf } from './openapi.mjs';
import { waitFor } from './wait.mjs';

export const TENANT_SCOPES = ['events:write', 'events:read', 'subscriptions:write', 'subscriptions:read', 'deliveries:read', 'replays:write'];
/** A header of every world's subscription that nobody may see but who may read the subscription. */
export const HEADER_SECRET = 'header-secret-4711';
const RECEIPT_TOKEN = 'posthorn-receipt-token';
let made = 0;

/** given: what an operation wants in a header. ids: by kind, as the document's schemas name them. A new kind of id in a path needs its object here. */
export async function makeWorld(api, receiver) {
  const tenant = await api.createTenant();
  const subscription = await tenant.subscribe(receiver.url(), { headers: { 'x-api-key': HEADER_SECRET }, receipts: true });
  const event = await tenant.publish('invoice.paid', { amount: 1 }, { ordering_key: 'in_1' });
  const delivery = await tenant.waitDelivery(event);
  const key = await makeKey(api, { tenant_id: tenant.id, scopes: ['events:read'] });
  const replay = await tenant.expect(202, 'POST', '/replays', { body: {} });
  await waitFor(async () => (await tenant.get(`/replays/${replay.id}`)).state === 'done', { what: 'the replay of nothing to be done' });
  const ids = { TenantId: tenant.id, SubscriptionId: subscription.id, EventId: event.id, DeliveryId: delivery.id, KeyId: key.id, ReplayId: replay.id };
  const receiptToken = receiver.requests.find(({ id }) => id === delivery.id).headers[RECEIPT_TOKEN];
  return { api, tenant, receiver, ids, given: { [RECEIPT_TOKEN]: receiptToken }, secrets: [subscription.secret, key.key, HEADER_SECRET] };
}

export const makeKey = (api, fields) => api.expect(201, 'POST', '/v1/keys', { body: fields });

/** The ids that stand in the path of an operation. */
export function idsFor(operation, world) {
  const kind = kindOfId(operation);
  assert.ok(!kind || world.ids[kind], `lib/world.mjs makes no object for a ${kind}: ${operation.method} ${operation.path}`);
  return { t: world.tenant.id, id: world.ids[kind] };
}

/** The media types of what an operation takes; [undefined] when it takes no body. */
export const typesOf = (operation) => Object.keys(operation.requestBody?.content ?? { undefined: null }).map((type) => (type === 'undefined' ? undefined : type));

/** What of a document's example stands for something of the world. */
function inWorld(example, world) {
  if (typeof example === 'string') {
    if (example === 'acme') return world.tenant.id;
    if (example === 'globex') return `globex-${process.pid}-${++made}`;
    return example.startsWith('https://example.com/') ? world.receiver.url() : example;
  }
  if (Array.isArray(example)) return example.map((one) => inWorld(one, world));
  if (typeof example !== 'object' || example === null) return example;
  return Object.fromEntries(Object.entries(example).map(([name, value]) => [name, inWorld(value, world)]));
}

/** Sends the operation's example. options: key, ids (in place of the world's), type (one of its media types), query, method. */
export function send(operation, world, { ids = idsFor(operation, world), type = typesOf(operation)[0], query = '', key, method = operation.method, headers = {} } = {}) {
  const example = operation.requestBody?.content[type].example;
  assert.ok(!type || example !== undefined, `${operation.name} has no example of ${type}`);
  const wanted = operation.parameters.filter((one) => one.in === 'header').map(({ name }) => [name, world.given[name]]);
  return world.api.request(method, pathOf(operation, ids) + query, {
    body: type && inWorld(example, world), key, headers: { ...(type ? { 'content-type': type } : {}), ...Object.fromEntries(wanted), ...headers },
  });
}

/** What must be so before an operation can succeed. */
const BEFORE = {
  cancelReplay: async ({ tenant, receiver, ids }) => { // one that waits for a paused subscription
    const { id } = await tenant.subscribe(receiver.url(), { status: 'paused' });
    const replay = await tenant.expect(202, 'POST', '/replays', { body: { subscription_id: id, include_missing: true } });
    ids.ReplayId = replay.id;
  },
  deleteTenant: ({ tenant, ids }) => tenant.expect(204, 'DELETE', `/subscriptions/${ids.SubscriptionId}`),
};
export const prepare = (operation, world) => BEFORE[operation.name]?.(world);

/** A key that may do this operation and nothing else. */
export const keyFor = async (operation, world) =>
  (await makeKey(world.api, { scopes: [operation.scope], tenant_id: operation.scope === 'admin' ? null : world.tenant.id })).key;
