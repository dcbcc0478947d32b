// Clients and what stands between them and the server: certificates, overload, connections that break.

import assert from 'node:assert/strict';
import http from 'node:http';
import { rm } from 'node:fs/promises';
import { after, before } from 'node:test';

import { cliOf, startCli } from './lib/cli.mjs';
import { makeCertificate } from './lib/certificate.mjs';
import { LOOPBACK_FLAGS, run, temporaryFolder } from './lib/server.mjs';
import { lifecycleTest, test } from './lib/suite.mjs';

let folder;
before(async () => (folder = await temporaryFolder()));
after(() => rm(folder, { recursive: true, force: true }));

/** A server of the test's own that answers as `answer(request, body)` says: [status, headers, body], or null to break the connection. */
async function withStandIn(answer, body) {
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const said = answer(request, Buffer.concat(chunks).toString());
    if (!said) return request.socket.destroy();
    response.writeHead(said[0], { 'content-type': 'application/json', ...said[1] });
    response.end(JSON.stringify(said[2]));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  try {
    return await body({ POSTHORN_URL: `http://127.0.0.1:${server.address().port}`, POSTHORN_KEY: 'k', POSTHORN_TENANT: 't' });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

lifecycleTest('a server with a certificate of its own is trusted with --ca', async ({ start }) => {
  const { certificate, key } = await makeCertificate(folder, 'api');
  const server = await start({ flags: [...LOOPBACK_FLAGS, '--tls-certificate', certificate, '--tls-key', key] });
  const { cli, json } = cliOf(server);
  assert.match(server.url, /^https:/);
  const { code, stderr } = await cli('tenant', 'list');
  assert.deepEqual([code, /cannot be reached: .*certificate/.test(stderr)], [3, true], stderr);
  assert.deepEqual((await json('tenant', 'list', '--ca', certificate)).data, []);
  for (const id of ['..', '.', 'a']) assert.equal((await json('tenant', 'create', id, '--ca', certificate)).id, id);
  assert.equal((await json('tenant', 'get', '..', '--ca', certificate)).id, '..');
});

test('an import waits while the server is overloaded, and loses and doubles nothing', async () => {
  const taken = [];
  let asked = 0;
  await withStandIn((_, body) => {
    if (asked++ % 2 === 0) return [503, { 'retry-after': '1' }, { status: 503, detail: 'The queue is full.' }];
    const events = body.trim().split('\n').map((line) => JSON.parse(line));
    taken.push(...events.map(({ data }) => data));
    return [202, {}, { data: events.map(({ data, type }) => ({ id: `evt_${data}`, type, created_at: '', duplicate: false })) }];
  }, async (env) => {
    const input = Array.from({ length: 1500 }, (_, i) => `{"type":"a","data":${i}}`).join('\n');
    const { code, stdout } = await run(['event', 'batch', '--json'], { env, input });
    assert.equal(code, 0);
    assert.deepEqual(JSON.parse(stdout).data.map(({ id }) => id), taken.map((i) => `evt_${i}`));
    assert.deepEqual(taken, Array.from({ length: 1500 }, (_, i) => i));
  });
});

test('an interrupted import says how far it came', async () => {
  let asked = 0;
  await withStandIn((_, body) =>
    asked++ === 0
      ? [202, {}, { data: body.trim().split('\n').map(() => ({ id: 'evt_1', type: 'a', created_at: '', duplicate: false })) }]
      : [503, { 'retry-after': '30' }, { status: 503, detail: 'The queue is full.' }],
  async (env) => {
    const cli = startCli(['event', 'batch'], { env });
    try {
      cli.child.stdin.end(Array.from({ length: 1001 }, (_, i) => `{"type":"a","data":${i}}`).join('\n'));
      await cli.said(/evt_1/);
      cli.ctrlC();
      assert.notEqual(await cli.end(), 0);
      assert.match(cli.stderr, /the 1000 events before it are published/);
    } finally {
      await cli.remove();
    }
  });
});

test('a connection that breaks, and an answer that says when to try again', async () => {
  await withStandIn(() => null, async (env) => {
    const { code, stdout } = await run(['tenant', 'list', '--json'], { env });
    assert.deepEqual([code, stdout], [3, '']);
  });
  await withStandIn(() => [429, { 'retry-after': '7' }, { status: 429, detail: 'Too many events.' }], async (env) => {
    const { code, stderr } = await run(['event', 'publish', 'a', '-1'], { env });
    assert.equal(code, 1);
    assert.match(stderr, /refused: Too many events\. \(429\)\n {2}try again in 7 s/);
  });
  await withStandIn(() => [200, {}, { pages: [] }], async (env) => {
    const { code, stderr } = await run(['tenant', 'list'], { env });
    assert.deepEqual([code, /is this a posthorn server/.test(stderr)], [1, true]);
  });
});
