// The program's commands beside serve: help, version, verify, receive and dev.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { writeFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { Webhook } from 'standardwebhooks';

import { Api } from './lib/api.mjs';
import { BINARY, cleanEnvironment, run, temporaryFolder } from './lib/server.mjs';
import { test } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const SECRET = `whsec_${Buffer.alloc(32, 9).toString('base64')}`;

/** A command that runs until it is told to end. */
async function start(t, args, env = {}) {
  const child = spawn(BINARY, args, { env: cleanEnvironment(env), stdio: ['ignore', 'pipe', 'pipe'] });
  const running = { child, stdout: '', stderr: '', ended: new Promise((resolve) => child.once('close', resolve)) };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (text) => (running[name] += text));
  t.after(async () => {
    child.kill('SIGKILL');
    await running.ended;
  });
  running.said = (pattern, name = 'stdout') =>
    waitFor(() => running[name].match(pattern), { what: () => `${pattern} in:\n${running.stdout}\n${running.stderr}` });
  return running;
}

const signed = (body, { secret = SECRET, id = 'dlv_1', at = new Date() } = {}) => ({
  'webhook-id': id,
  'webhook-timestamp': String(Math.floor(at / 1000)),
  'webhook-signature': new Webhook(secret).sign(id, at, body),
});

test('help and version', async () => {
  const version = await run(['--version']);
  assert.equal(version.code, 0);
  assert.match(version.stdout, /^posthorn \d+\.\d+\.\d+\n$/);
  for (const args of [['help'], ['--help']]) {
    const { code, stdout } = await run(args);
    assert.equal(code, 0);
    for (const command of ['serve', 'dev', 'receive', 'verify']) assert.match(stdout, new RegExp(`posthorn ${command}\\b`));
  }
  for (const args of [['serve', '--help'], ['help', 'serve'], ['serve', '--data', 'x', '--help']]) {
    const { code, stdout } = await run(args);
    assert.equal(code, 0);
    assert.match(stdout, /--listen HOST:PORT/);
  }
});

test('wrong usage ends with status 2 and says what is right', async () => {
  const wrong = [
    [[], /posthorn serve/],
    [['sevre'], /did you mean serve\?/],
    [['help', 'recieve'], /did you mean receive\?/],
    [['serve', '--lisen', 'x'], /did you mean --listen\?/],
    [['dev', '--hlp'], /did you mean --help\?/],
    [['serve', 'surplus'], /unexpected argument surplus/],
    [['verify', '--secrte', SECRET], /did you mean --secret\?/],
    [['verify'], /--secret is missing[^]*--id is missing[^]*--timestamp is missing[^]*--signature is missing/],
    [['verify', '--secret', 'x', '--id', 'i', '--timestamp', '1', '--signature', 's'], /--secret must be whsec_/],
    [['receive', '--listen', 'nowhere'], /--listen nowhere: must be/],
    [['receive', '--secret', 'whsec_x'], /--secret must be whsec_/],
    [['dev', '--data', 'kept'], /dev keeps nothing/],
  ];
  for (const [args, pattern] of wrong) {
    const { code, stderr } = await run(args);
    assert.equal(code, 2, `${args.join(' ')}: ${stderr}`);
    assert.match(stderr, pattern);
  }
});

test('verify tells good signatures from bad ones', async (t) => {
  const folder = await temporaryFolder();
  t.after(() => rm(folder, { recursive: true, force: true }));
  const body = '{"test": 2432232314}';
  const file = join(folder, 'body');
  await writeFile(file, body);
  const verify = (headers, { secret = SECRET, more = [] } = {}) =>
    run(['verify', '--secret', secret, '--id', headers['webhook-id'], '--timestamp', headers['webhook-timestamp'],
      '--signature', headers['webhook-signature'], ...more, file]);

  const good = await verify(signed(body));
  assert.deepEqual([good.code, good.stdout], [0, 'valid\n']);

  const old = signed(body, { at: new Date(Date.now() - 301_000) });
  const bad = [
    [signed(`${body} `), /no signature/],
    [{ ...signed(body), 'webhook-id': 'dlv_2' }, /no signature/],
    [signed(body, { secret: `whsec_${Buffer.alloc(32, 8).toString('base64')}` }), /no signature/],
    [{ ...signed(body), 'webhook-signature': 'v1,' }, /no signature/],
    [{ ...signed(body), 'webhook-timestamp': 'now' }, /webhook-timestamp/],
    [old, /too far off/],
  ];
  for (const [headers, pattern] of bad) {
    const { code, stdout } = await verify(headers);
    assert.equal(code, 1, stdout);
    assert.match(stdout, pattern);
  }
  assert.equal((await verify(old, { more: ['--tolerance', '600'] })).code, 0);
  assert.equal((await verify(old, { more: ['--tolerance=any'] })).code, 0);
  // ed25519, by the public half alone: the vector of Standard Webhooks.
  const vector = {
    'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
    'webhook-timestamp': '1614265330',
    'webhook-signature':
      'v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==',
  };
  const secret = 'whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=';
  assert.equal((await verify(vector, { secret, more: ['--tolerance', 'any'] })).code, 0);
  assert.equal((await verify(vector, { secret })).code, 1);
});

test('receive verifies and prints what it gets', async (t) => {
  const receiver = await start(t, ['receive', '--secret', SECRET]);
  const [, url] = await receiver.said(/receiving on (http:\/\/\S+)/);
  const body = '{"type":"invoice.paid","data":"\u001b[31mred"}';
  const post = (headers, method = 'POST') => fetch(url, { method, headers, body: method === 'GET' ? undefined : body });

  assert.equal((await post(signed(body))).status, 204);
  await receiver.said(/invoice\.paid {2}verified\n {2}webhook-id dlv_1 /);
  assert.ok(!receiver.stdout.includes('\u001b'), 'what comes from outside does not steer the terminal');

  assert.equal((await post(signed(body, { at: new Date(Date.now() - 3_600_000) }))).status, 401);
  assert.equal((await post({ ...signed(body), 'webhook-signature': 'v1,AAAA' })).status, 401);
  assert.equal((await post({})).status, 401);
  await receiver.said(/NOT VERIFIED[^]*NOT VERIFIED[^]*NOT VERIFIED/);
  assert.equal((await post({}, 'GET')).status, 405);

  receiver.child.kill('SIGTERM');
  assert.equal(await receiver.ended, 0);
});

test('dev shows an event on its way to a receiver, and keeps nothing', async (t) => {
  const folder = await temporaryFolder();
  t.after(() => rm(folder, { recursive: true, force: true }));
  const dev = await start(t, ['dev', '--listen', '127.0.0.1:0'], { TMPDIR: folder, POSTHORN_ADMIN_KEY: 'dev-admin-key' });
  await dev.said(/demo\.hello {2}verified\n/);
  const [, data] = await dev.said(/ready .*data=(\S+)/, 'stderr');
  assert.ok(data.startsWith(folder) && existsSync(data));
  assert.ok(!/OpenSSL was in use/.test(dev.stderr), dev.stderr);

  const [url] = await dev.said(/http:\/\/[\d.:]+/, 'stderr');
  const api = new Api({ url, adminKey: 'dev-admin-key' });
  await api.expect(202, 'POST', '/v1/tenants/demo/events', { body: { type: 'invoice.paid', data: {} } });
  await dev.said(/invoice\.paid {2}verified\n/);
  api.agent.destroy();

  dev.child.kill('SIGINT');
  assert.equal(await dev.ended, 0);
  assert.ok(!existsSync(data));
});
