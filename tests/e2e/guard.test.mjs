// The address guard, at the running program: what the socket does. Listeners stand where nothing may be sent and count
// connections; a name server gives names that rebind. The table of addresses and spellings is tests/unit/core/test_address.c.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';

import { Api } from './lib/api.mjs';
import { startNameServer } from './lib/dns.mjs';
import { closedPort, startReceiver } from './lib/receiver.mjs';
import { LOOPBACK_FLAGS, Server } from './lib/server.mjs';
import { assertProblem } from './lib/shape.mjs';
import { test, TEST_LIMIT_MS } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const TRIES = Number(process.env.REBIND_TRIES ?? 10_000);
const AT_ONCE = 32; // registrations
const REBIND_LIMIT_MS = 400_000;
const PUBLIC = '93.184.216.34';

/** What a name turns to after it was registered with a public address; each must be refused. */
const REBOUND = [
  ['127.0.0.1'], ['127.8.9.10'], ['::1'], ['0.0.0.0'], ['::'], ['::ffff:127.0.0.1'], ['::127.0.0.1'],
  // Any address of several, wherever it stands, whichever family.
  [PUBLIC, '127.0.0.1'], ['127.0.0.1', PUBLIC], [PUBLIC, '8.8.8.8', '9.9.9.9', '127.0.0.1'], [PUBLIC, '::1'], ['2606:4700:4700::1111', '127.0.0.1'],
  // At the end of aliases.
  [{ cname: 'inside.example' }, '127.0.0.1'], [{ cname: 'a.example' }, { cname: 'b.example' }, '::1'], [{ cname: 'a.example' }, PUBLIC, '127.0.0.1'],
  // What translates or tunnels to an IPv4 address.
  ['64:ff9b::127.0.0.1'], ['64:ff9b:1::127.0.0.1'], ['2002:7f00:1::1'], ['2001:0:7f00:1::1'],
  // Other networks of the host.
  ['10.0.0.1'], ['172.16.0.1'], ['192.168.0.1'], ['100.64.0.1'], ['169.254.169.254'], ['168.63.129.16'], ['fe80::1'], ['fc00::1'], ['fec0::1'], ['fd00:ec2::254'],
  ['192.0.0.1'], ['198.18.0.1'], ['224.0.0.1'], ['255.255.255.255'], ['ff02::1'], ['100::1'], ['2001:db8::1'],
];

/** Listeners on one port of several loopback addresses, as far as the machine has those, which count connections. */
async function startTraps(hosts) {
  for (let tries = 0; ; tries++) {
    const traps = { connections: 0, port: await closedPort(), servers: [] };
    try {
      for (const host of hosts) {
        const server = net.createServer((socket) => (traps.connections++, socket.destroy()));
        traps.servers.push(server);
        server.listen(traps.port, host);
        await once(server, 'listening').catch((error) => {
          if (!['EADDRNOTAVAIL', 'EAFNOSUPPORT'].includes(error.code)) throw error;
        });
      }
      return traps;
    } catch (error) {
      for (const server of traps.servers) server.close();
      if (error.code !== 'EADDRINUSE' || tries > 20) throw error;
    }
  }
}

/** A test with a server of these flags, and with the traps and a name server. */
function guardTest(name, { hosts = ['127.0.0.1', '127.8.9.10', '::1'], flags, zone, environment = () => ({}), limit = TEST_LIMIT_MS }, body) {
  test(name, { timeout: limit }, async () => {
    const traps = await startTraps(hosts);
    const names = await startNameServer(zone);
    const server = new Server({
      flags: ['--allow-http', '--allow-port', String(traps.port), '--name-servers', names.address, ...flags], env: environment(traps),
    });
    try {
      await server.start();
      await body({ api: new Api(server), names, traps, server });
    } catch (error) {
      console.error(`---- the server said ----\n${server.saidSince(0)}\n---- end ----`);
      throw error;
    } finally {
      await server.remove();
      await names.close();
      for (const one of traps.servers) one.close();
    }
  });
}

/** Runs work(0), work(1), … work(n - 1), `atOnce` at a time. */
async function inParallel(n, atOnce, work) {
  let next = 0;
  await Promise.all(Array.from({ length: atOnce }, async () => {
    while (next < n) await work(next++);
  }));
}

const metric = async (api, name) => Number((await api.request('GET', '/metrics')).text.match(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\d+)$`, 'm'))?.[1] ?? 0);

let rebound = false;
guardTest(
  `${TRIES} names that rebind: not one connection to a refused address`,
  {
    flags: ['--max-in-flight', '100'],
    zone: (name) => (rebound ? REBOUND[Number(name.match(/^r(\d+)\./)[1]) % REBOUND.length] : [PUBLIC]),
    limit: REBIND_LIMIT_MS + TEST_LIMIT_MS,
  },
  async ({ api, names, traps }) => {
    const tenant = await api.createTenant();
    // A datagram that is lost is no refusal: it is tried again.
    const policy = { timeout_ms: 10_000, retry: { schedule_seconds: Array(8).fill(1), jitter: 0 } };
    // http and https are sent by different transports.
    const scheme = (i) => (Math.floor(i / REBOUND.length) % 2 ? 'https' : 'http');
    await inParallel(TRIES, AT_ONCE, (i) => tenant.subscribe(`${scheme(i)}://r${i}.example:${traps.port}/`, { policy }));
    rebound = true;
    const event = await tenant.publish();
    const wanted = () => metric(api, 'posthorn_dlq_size');
    await waitFor(async () => (await wanted()) === TRIES, { limit: REBIND_LIMIT_MS, every: 200, what: async () => `${TRIES} refused deliveries` });

    const deliveries = await tenant.deliveries({ event_id: event.id });
    assert.equal(deliveries.length, TRIES);
    for (const one of deliveries) {
      assert.equal(one.failure_reason, 'blocked_address', JSON.stringify(one));
      assert.equal(one.last_error, 'blocked_address');
      assert.equal(one.last_status_code, null);
    }
    for (let i = 0; i < TRIES; i++) assert.ok(names.lookups(`r${i}.example`) >= 2, `r${i}.example was not looked up again`);
    assert.equal(traps.connections, 0);
  },
);

let zone = {};
const zoned = (name) => zone[name] ?? null;

guardTest('registration judges what a name has now; one that has nothing is let in', { flags: [], zone: zoned }, async ({ api, traps }) => {
  const tenant = await api.createTenant();
  for (const [i, addresses] of REBOUND.entries()) {
    zone = { [`n${i}.example`]: addresses };
    const response = await tenant.request('POST', '/subscriptions', { body: { url: `http://n${i}.example:${traps.port}/` } });
    assertProblem(response, 422, ['url']);
    assert.match(response.json.errors[0].message, /^resolves to an address that /);
  }
  const { id } = await tenant.subscribe(`http://nowhere.example:${traps.port}/`);
  zone = { 'moved.example': ['127.0.0.1'] };
  assertProblem(await tenant.request('PATCH', `/subscriptions/${id}`, { body: { url: `http://moved.example:${traps.port}/` } }), 422, ['url']);
  assert.equal((await tenant.subscription(id)).url, `http://nowhere.example:${traps.port}/`);
  // The name that was let in is judged when it is sent to.
  zone = { 'nowhere.example': ['127.0.0.1'] };
  const { delivery_id } = await tenant.expect(202, 'POST', `/subscriptions/${id}/test`);
  assert.equal((await tenant.waitDelivery(delivery_id, 'DLQ')).failure_reason, 'blocked_address');
  assert.equal(traps.connections, 0);
});

guardTest(
  'allow-address opens what it names and nothing beside it; a kept connection does not outlive the judgement',
  { hosts: ['127.0.0.1', '127.0.0.3', '::1'], flags: ['--allow-address', '127.0.0.2/32'], zone: zoned },
  async ({ api, traps }) => {
    const shop = await startReceiver([204], { host: '127.0.0.2', port: traps.port });
    try {
      const tenant = await api.createTenant();
      zone = { 'shop.example': ['127.0.0.2'] };
      await tenant.subscribe(`http://shop.example:${traps.port}/`);
      await tenant.waitDelivery(await tenant.publish());
      assert.equal(shop.requests.length, 1);
      assert.equal(shop.requests[0].headers.host, `shop.example:${traps.port}`);

      for (const addresses of [['127.0.0.3'], ['127.0.0.2', '127.0.0.1']]) {
        zone = { 'shop.example': addresses };
        const blocked = await waitFor(async () => {
          const event = await tenant.publish();
          const delivery = await waitFor(async () => {
            const [one] = (await tenant.get(`/deliveries?event_id=${event.id}`)).data;
            return ['DELIVERED', 'DLQ'].includes(one.state) && one;
          });
          return delivery.state === 'DLQ' && delivery; // before that the first answer still stood in the cache
        }, { every: 200, what: `a delivery that is refused for ${addresses}` });
        assert.equal(blocked.failure_reason, 'blocked_address');
        zone = { 'shop.example': ['127.0.0.2'] };
        await waitFor(async () => {
          const [one] = await tenant.deliveries({ event_id: (await tenant.publish()).id });
          return one.state !== 'DLQ' && (await shop.received(shop.requests.length + 1, { limit: 500 }).catch(() => null));
        }, { every: 200, what: 'a delivery after the name came back' });
      }
      assert.equal(traps.connections, 0);
    } finally {
      await shop.close();
    }
  },
);

const PROXY_VARIABLES = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY'];

guardTest(
  'the proxy variables of the environment are not heeded',
  {
    flags: ['--allow-address', '127.0.0.2/32'], zone: zoned,
    environment: ({ port }) => Object.fromEntries(PROXY_VARIABLES.map((name) => [name, `http://127.0.0.1:${port}`])),
  },
  async ({ api, traps }) => {
    const shop = await startReceiver([204], { host: '127.0.0.2', port: traps.port });
    try {
      const tenant = await api.createTenant();
      await tenant.subscribe(`http://127.0.0.2:${traps.port}/`);
      await tenant.waitDelivery(await tenant.publish());
      // Over TLS another transport sends; the receiver speaks none, and that is where it must have come to.
      const { id } = await tenant.subscribe(`https://127.0.0.2:${traps.port}/`, { policy: { max_attempts: 1 } });
      const { delivery_id } = await tenant.expect(202, 'POST', `/subscriptions/${id}/test`);
      assert.equal((await tenant.waitDelivery(delivery_id, 'DLQ')).last_error, 'tls');
      assert.equal(traps.connections, 0);
    } finally {
      await shop.close();
    }
  },
);

test('the server’s own listener is refused, however it is spelled or named', async () => {
  const own = { 'own.example': ['127.0.0.1'], 'own6.example': ['::ffff:127.0.0.1'], 'any.example': ['0.0.0.0'] };
  const names = await startNameServer((name) => own[name] ?? null);
  const server = await Server.start({ flags: [...LOOPBACK_FLAGS, '--allow-address', '0.0.0.0/8', '--name-servers', names.address] });
  try {
    const api = new Api(server);
    const tenant = await api.createTenant();
    const { port } = new URL(server.url);
    const hosts = ['127.0.0.1', '127.1', '2130706433', '0x7f000001', '017700000001', '[::ffff:127.0.0.1]', '0.0.0.0', '0', ...Object.keys(own), 'localhost'];
    for (const host of hosts) {
      const response = await tenant.request('POST', '/subscriptions', { body: { url: `http://${host}:${port}/v1/tenants` } });
      assertProblem(response, 422, ['url']);
      assert.match(response.json.errors[0].message, /own listener/, host);
    }
    await tenant.subscribe(`http://127.0.0.1:${Number(port) === 65535 ? 1 : Number(port) + 1}/`);
  } finally {
    await server.remove();
    await names.close();
  }
});

test('a name with more addresses than are judged is refused, the last of them may be private', async () => {
  const publicOnes = Array.from({ length: 32 }, (_, i) => `93.184.216.${i + 1}`);
  const zones = { 'many.test': publicOnes, 'more.test': [...publicOnes, '::1'] };
  const names = await startNameServer((name) => zones[name] ?? null);
  const server = await Server.start({ flags: ['--name-servers', names.address] });
  try {
    const tenant = await new Api(server).createTenant();
    await tenant.subscribe('https://many.test/', { event_types: ['never'] });
    const response = await tenant.request('POST', '/subscriptions', { body: { url: 'https://more.test/' } });
    assertProblem(response, 422, ['url']);
    assert.match(response.json.errors[0].message, /more addresses/);
    // Registered while it had none.
    await tenant.subscribe('https://later.test/', { policy: { retry: { schedule_seconds: [1, 1, 1], jitter: 0 } } });
    zones['later.test'] = zones['more.test'];
    const delivery = await tenant.waitDelivery(await tenant.publish(), 'DLQ');
    assert.equal(delivery.failure_reason, 'blocked_address');
    assert.equal(delivery.last_error, 'blocked_address');
  } finally {
    await server.remove();
    await names.close();
  }
});

test('without its flags nothing but https to public addresses on 443 and 80 is let in', async () => {
  const server = await Server.start({ flags: [] });
  try {
    const api = new Api(server);
    const tenant = await api.createTenant();
    const refused = {
      'http://93.184.216.34/': /https/, 'https://93.184.216.34:8443/': /port/, 'https://127.0.0.1/': /loopback/, 'https://[::1]/': /loopback/,
      'https://10.0.0.1/': /private/, 'https://localhost/': /localhost/, 'https://169.254.169.254/': /metadata/, 'https://168.63.129.16/': /metadata/,
    };
    for (const [url, reason] of Object.entries(refused)) {
      const response = await tenant.request('POST', '/subscriptions', { body: { url } });
      assertProblem(response, 422, ['url']);
      assert.match(response.json.errors[0].message, reason, url);
    }
    for (const url of ['https://93.184.216.34/', 'https://93.184.216.34:80/', 'https://[2606:4700:4700::1111]:443/']) await tenant.subscribe(url);
    // A tenant's leave opens http, and http alone.
    const open = await api.createTenant({ allow_http: true });
    await open.subscribe('http://93.184.216.34/');
    for (const url of ['http://93.184.216.34:8080/', 'http://127.0.0.1/']) assertProblem(await open.request('POST', '/subscriptions', { body: { url } }), 422, ['url']);
  } finally {
    await server.remove();
  }
});
