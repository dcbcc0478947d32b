// docs/subscribers.md: each of its programs, taken from the page as it stands, against deliveries of the real server. A language
// that the machine lacks is skipped.

import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { dirname, join } from 'node:path';
import { after, before, describe } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Webhook } from 'standardwebhooks';

import { Api } from './lib/api.mjs';
import { closedPort, startReceiver } from './lib/receiver.mjs';
import { cleanEnvironment, Server, temporaryFolder } from './lib/server.mjs';
import { test } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const page = readFileSync(join(root, 'docs/subscribers.md'), 'utf8');
const FORGED_SECRET = `whsec_${Buffer.alloc(32, 3).toString('base64')}`;
const COMPILE_LIMIT_MS = 120_000;

function block(language) {
  const found = [...page.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].filter(([, name]) => name === language);
  assert.equal(found.length, 1, `one block of ${language}`);
  return found[0][2];
}

const found = (...candidates) => candidates.find((path) => path.startsWith('/') ? existsSync(path) : which(path));
function which(name) {
  try {
    return execFileSync('sh', ['-c', `command -v ${name}`]).length > 0;
  } catch {
    return false;
  }
}

/** A subscriber that is a program with a listener of its own. */
class Process {
  constructor(command, args, environment) {
    this.handled = '';
    this.errors = '';
    this.child = spawn(command, args, { env: cleanEnvironment(environment), stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout.setEncoding('utf8').on('data', (text) => (this.handled += text));
    this.child.stderr.setEncoding('utf8').on('data', (text) => (this.errors += text));
    this.url = `http://127.0.0.1:${environment.PORT}/hook`;
  }

  async ready() {
    const answers = () => fetch(this.url, { method: 'POST' }).then(({ status }) => status === 401, () => false);
    await waitFor(answers, { what: 'the program to listen and to refuse what is not signed', limit: COMPILE_LIMIT_MS });
  }

  async close() {
    const ended = this.child.exitCode === null ? once(this.child, 'close') : null;
    this.child.kill('SIGKILL');
    await ended;
  }
}

/** A CGI program behind a web server: this one. */
class Cgi {
  constructor(program, environment) {
    Object.assign(this, { program, environment, handled: '' });
  }

  async ready() {
    this.receiver = await startReceiver((request) => this.#run(request));
    this.url = this.receiver.url();
  }

  async #run({ headers, body }) {
    const variables = Object.fromEntries(Object.entries(headers).map(([name, value]) => [`HTTP_${name.toUpperCase().replaceAll('-', '_')}`, value]));
    const child = spawn(this.program, { env: cleanEnvironment({ ...this.environment, ...variables }) });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text) => (output += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (this.handled += text));
    child.stdin.on('error', () => {}).end(body);
    await once(child, 'close');
    return Number(output.match(/^Status: (\d+) /)[1]);
  }

  async close() {
    await this.receiver?.close();
  }
}

async function compileC(folder) {
  await writeFile(join(folder, 'hook.c'), block('c'));
  const built = [process.env.POSTHORN_BIN, join(root, 'build/posthorn')].filter(Boolean).map((binary) => join(dirname(binary), 'lib'));
  const libraries = [...built, join(root, 'build/lib')].find((path) => existsSync(join(path, 'libposthorn-verify.a')));
  await promisify(execFile)('cc', ['-Wall', '-Wextra', '-Werror', `-I${join(root, 'include')}`, '-o', join(folder, 'hook'), join(folder, 'hook.c'),
    join(libraries, 'libposthorn-verify.a'), '-lcrypto', '-lsqlite3'], { timeout: COMPILE_LIMIT_MS });
  return join(folder, 'hook');
}

const go = found('go', '/usr/lib/go-1.19/bin/go');
const LANGUAGES = {
  python: {
    there: which('python3'),
    async make(folder, environment) {
      await writeFile(join(folder, 'hook.py'), block('python'));
      return new Process('python3', [join(folder, 'hook.py')], environment);
    },
  },
  javascript: {
    there: true,
    async make(folder, environment) {
      await writeFile(join(folder, 'hook.mjs'), block('javascript'));
      return new Process(process.execPath, [join(folder, 'hook.mjs')], environment);
    },
  },
  go: {
    there: Boolean(go),
    async make(folder, environment) {
      await writeFile(join(folder, 'hook.go'), block('go'));
      const env = cleanEnvironment({ GOCACHE: join(folder, 'cache'), GOPATH: join(folder, 'path'), GO111MODULE: 'off' });
      await promisify(execFile)(go, ['vet', join(folder, 'hook.go')], { env, timeout: COMPILE_LIMIT_MS });
      await promisify(execFile)(go, ['build', '-o', join(folder, 'hook'), join(folder, 'hook.go')], { env, timeout: COMPILE_LIMIT_MS });
      return new Process(join(folder, 'hook'), [], environment);
    },
  },
  c: {
    there: which('cc') && existsSync('/usr/include/sqlite3.h'),
    async make(folder, environment) {
      return new Cgi(await compileC(folder), environment);
    },
  },
};

/** What a stranger, or a duplicate, is answered; headers changes what a good webhook would have. */
async function post(url, secret, { body = '{"id":"evt_x","type":"forged"}', at = new Date(), headers = {} } = {}) {
  const signature = new Webhook(secret).sign('dlv_forged', at, body);
  const response = await fetch(url, {
    method: 'POST', body,
    headers: { 'webhook-id': 'dlv_forged', 'webhook-timestamp': String(Math.floor(at / 1000)), 'webhook-signature': signature, ...headers },
  });
  return response.status;
}

/** Says that so much will come, sends less, and goes away: that must end nobody's service. */
async function breakOff(url, length) {
  const { hostname, port } = new URL(url);
  const socket = net.connect(port, hostname);
  await once(socket, 'connect');
  socket.on('error', () => {});
  await new Promise((sent) => socket.write(`POST / HTTP/1.1\r\nhost: x\r\ncontent-length: ${length}\r\n\r\nabc`, sent));
  socket.resetAndDestroy();
}

describe('the programs of docs/subscribers.md', { concurrency: false }, () => {
  let server;
  let api;
  before(async () => {
    server = await Server.start();
    api = new Api(server);
  });
  after(async () => {
    api?.agent.destroy();
    await server?.remove();
  });

  for (const [language, { there, make }] of Object.entries(LANGUAGES)) {
    test(`${language}: takes what is genuine, once, and refuses the rest`, { skip: !there && `no ${language} here`, timeout: COMPILE_LIMIT_MS * 2 }, async () => {
      const folder = await temporaryFolder();
      const tenant = await api.createTenant();
      const secret = `whsec_${Buffer.from(tenant.id.padEnd(32, 'x')).toString('base64')}`;
      const environment = { WEBHOOK_SECRET: secret, WEBHOOK_DB: join(folder, 'seen.db'), PORT: String(await closedPort()) };
      const subscriber = await make(folder, environment);
      try {
        await subscriber.ready();
        await tenant.subscribe(subscriber.url, { secret });
        const event = await tenant.publish('invoice.paid', { text: 'żółć \u2028 1e400', n: 1.0 });
        const delivery = await tenant.waitDelivery(event);
        const times = (text) => subscriber.handled.split(text).length - 1;
        const name = language === 'c' ? delivery.id : event.id;
        await waitFor(() => times(name) > 0, { what: () => `${name} to be handled: ${subscriber.handled}` });
        assert.equal(times(name), 1, subscriber.handled);

        // The same webhook-id again.
        await tenant.expect(202, 'POST', `/deliveries/${delivery.id}/replay`);
        await waitFor(async () => (await tenant.delivery(delivery.id)).attempt_count === 2, { what: 'the replay' });
        assert.equal((await tenant.waitDelivery(delivery.id)).last_status_code, 204);
        assert.equal(times(name), 1, subscriber.handled);

        // While the secret is rotated both sign: the old one still verifies.
        const [subscription] = await tenant.all('/subscriptions');
        await tenant.expect(200, 'POST', `/subscriptions/${subscription.id}/rotate-secret`, { body: { overlap_seconds: 3600 } });
        const next = await tenant.waitDelivery(await tenant.publish('invoice.paid', {}));
        assert.equal(next.last_status_code, 204);

        const { url } = subscriber;
        assert.equal(await post(url, FORGED_SECRET), 401);
        assert.equal(await post(url, secret, { at: new Date(Date.now() - 310_000) }), 401);
        assert.equal(await post(url, secret, { at: new Date(Date.now() + 310_000) }), 401);
        assert.equal(await post(url, secret, { headers: { 'webhook-id': 'dlv_other' } }), 401);
        assert.equal(await post(url, secret, { headers: { 'webhook-timestamp': 'now' } }), 401);
        assert.equal(await post(url, secret, { headers: { 'webhook-signature': 'v1,' } }), 401);
        if (language !== 'c') for (const length of ['100', '-1', 'x', '99999999999']) await breakOff(url, length);
        assert.equal(times('evt_x') + times('dlv_forged'), 0, subscriber.handled);
        assert.equal(await post(url, secret), 204);
        await waitFor(() => times('evt_x') + times('dlv_forged') === 1, { what: () => `one more to be handled: ${subscriber.handled}` });
      } catch (error) {
        console.error(`---- the program said ----\n${subscriber.errors ?? ''}\n---- end ----`);
        throw error;
      } finally {
        await subscriber.close();
        await rm(folder, { recursive: true, force: true });
      }
    });
  }
});
