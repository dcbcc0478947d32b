// posthorn tenant, subscription, event, delivery, key and audit, as one types them.

import assert from 'node:assert/strict';
import http from 'node:http';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { cliOf } from './lib/cli.mjs';
import { closedPort } from './lib/receiver.mjs';
import { temporaryFolder } from './lib/server.mjs';
import { suite } from './lib/suite.mjs';
import { waitFor } from './lib/wait.mjs';

const rowsOf = (text) => text.trimEnd().split('\n').map((line) => line.split(/ {2,}/));
const recordOf = (text) => Object.fromEntries(text.trimEnd().split('\n').map((line) => line.split(/ {2,}/)));

suite('clients of the API', ({ test }) => {
  test('tenants from creation to deletion', async ({ server, tenant }) => {
    const { cli, done, json } = cliOf(server);
    const id = `${tenant.id}.cli`;
    const made = recordOf(await done('tenant', 'create', id, '--name', 'Müller & Söhne', '--tier=premium', '--events-per-second', '7'));
    assert.deepEqual([made.id, made.name, made.tier, made['limits.events_per_second']], [id, 'Müller & Söhne', 'premium', '7']);

    const again = await cli('tenant', 'create', id);
    assert.deepEqual([again.code, again.stdout], [1, '']);
    assert.match(again.stderr, /exists already.*\(409\)/);

    const [titles, ...rows] = rowsOf(await done('tenant', 'list', '--all'));
    assert.deepEqual(titles.slice(0, 3), ['ID', 'NAME', 'TIER']);
    assert.deepEqual(rows.find((row) => row[0] === id).slice(0, 3), [id, 'Müller & Söhne', 'premium']);

    const changed = await json('tenant', 'update', id, '--unset', 'limits.events_per_second,name', '--allow-http');
    assert.ok(changed.limits.events_per_second > 7 && changed.allow_http && changed.name !== 'Müller & Söhne');
    assert.deepEqual(await json('tenant', 'get', id), changed);
    assert.equal(await done('tenant', 'delete', id), `${id} deleted\n`);
    assert.equal((await cli('tenant', 'get', id)).code, 1);
  });

  test('a subscription from creation to deletion', async ({ server, tenant, receiver }) => {
    const { cli, done, json } = cliOf(server, tenant);
    const endpoint = await receiver();
    const made = await json('subscription', 'create', endpoint.url(), '--type', 'invoice.*,order.paid', '--type', 'x', '--metadata', 'team=a=b',
      '--header', 'X-Team=billing', '--ordering', 'key', '--retry-schedule', '0,1', '--filter', '{"data":{"amount":[1]}}', '--receipts');
    assert.deepEqual(made.event_types, ['invoice.*', 'order.paid', 'x']);
    assert.deepEqual([made.metadata, made.headers, made.ordering], [{ team: 'a=b' }, { 'X-Team': 'billing' }, 'key']);
    assert.deepEqual([made.policy.retry.schedule_seconds, made.filter, made.receipts], [[0, 1], { data: { amount: [1] } }, true]);
    assert.match(made.secret, /^whsec_/);

    const { id } = made;
    assert.equal((await json('subscription', 'get', id)).url, endpoint.url());
    assert.equal(rowsOf(await done('subscription', 'list', '--status', 'active'))[1][0], id);
    const changed = await json('subscription', 'update', id, '--receipts=false', '--unset', 'filter', '--unset', 'policy.retry',
      '--endpoint', endpoint.url('/new'), '--timeout-ms', '700');
    assert.deepEqual([changed.receipts, changed.filter, changed.url, changed.policy.timeout_ms], [false, null, endpoint.url('/new'), 700]);
    assert.equal(changed.policy.retry.initial_seconds, 5);
    assert.equal((await json('subscription', 'pause', id)).status, 'paused');
    assert.equal((await json('subscription', 'resume', id)).status, 'active');

    const rotated = await cli('subscription', 'rotate-secret', id, '--overlap-seconds', '60');
    assert.match(rotated.stdout, /^secret +whsec_/m);
    assert.match(rotated.stderr, /shown this once/);
    assert.equal(rowsOf(await done('subscription', 'secrets', id)).length, 3);

    const { delivery_id: delivery } = await json('subscription', 'test', id);
    await tenant.waitDelivery(delivery);
    assert.match(await done('subscription', 'stats', id), /^breaker +closed$/m);
    assert.equal(await done('subscription', 'delete', id), `${id} deleted\n`);
    assert.equal((await json('subscription', 'list')).data.length, 0);
  });

  test('a body from a file, with flags laid over it', async ({ server, tenant }) => {
    const { json, cli } = cliOf(server, tenant);
    const folder = await temporaryFolder();
    const file = join(folder, 'subscription.json');
    await writeFile(file, JSON.stringify({ url: 'https://example.com/a', description: 'from the file', policy: { max_attempts: 3 } }));
    const made = await json('subscription', 'create', 'https://example.com/b', '--body', `@${file}`, '--timeout-ms', '900');
    assert.deepEqual([made.url, made.description, made.policy.max_attempts, made.policy.timeout_ms], ['https://example.com/b', 'from the file', 3, 900]);
    const piped = await json('subscription', 'create', '--body', '-', { input: '{"url":"https://example.com/c"}' });
    assert.equal(piped.url, 'https://example.com/c');
    for (const [body, why] of [['[]', /must be an object/], ['{', /not JSON/], [`@${folder}/none`, /cannot be read/]]) {
      const { code, stderr } = await cli('subscription', 'create', '--body', body);
      assert.equal(code, 2);
      assert.match(stderr, why);
    }
    await rm(folder, { recursive: true });
  });

  test('an event, from its argument, a file or standard input; its bytes stay as they are', async ({ server, tenant, receiver }) => {
    const { cli, done, json } = cliOf(server, tenant);
    const endpoint = await receiver();
    await tenant.subscribe(endpoint.url(), { format: 'raw' });
    const data = '{"amount": 1.10, "big": 123456789012345678901234567890}';
    const folder = await temporaryFolder();
    const file = join(folder, 'data.json');
    await writeFile(file, data);
    const published = [
      await json('event', 'publish', 'invoice.paid', data, '--idempotency-key', 'k 1', '--ordering-key', 'o"1'),
      await json('event', 'publish', 'invoice.paid', `@${file}`),
      await json('event', 'publish', 'invoice.paid', { input: data }),
    ];
    await rm(folder, { recursive: true });
    await waitFor(() => endpoint.requests.length === 3);
    for (const request of endpoint.requests) assert.equal(request.body.toString(), data);

    const repeated = await json('event', 'publish', 'invoice.paid', data, '--idempotency-key', 'k 1', '--ordering-key', 'o"1');
    assert.deepEqual([repeated.id, repeated.duplicate], [published[0].id, true]);
    assert.equal((await cli('event', 'publish', 'invoice.paid', '1', '--idempotency-key', 'k 1')).code, 1);

    const [first] = published;
    assert.match(await done('event', 'get', first.id), /123456789012345678901234567890/);
    assert.ok((await done('event', 'get', first.id, '--json')).includes(data), 'as it came');
    assert.ok((await done('event', 'list', '--ordering-key', 'o"1', '--json')).includes(data), 'as it came');
    assert.equal(rowsOf(await done('event', 'list', '--type', 'invoice.paid', '--since', '1h')).length, 4);
    assert.equal(rowsOf(await done('event', 'list', '--until', '1h')).length, 1);
    assert.match(await done('event', 'timeline', first.id), / ATTEMPTING +DELIVERED /);
    for (const bad of ['{', '1,"type":"y"', '']) {
      const { code, stderr } = await cli('event', 'publish', 'x', bad);
      assert.deepEqual([code, /not JSON/.test(stderr)], [2, true], bad);
    }
  });

  test('events are listed and shown, however deep their data', async ({ server, tenant }) => {
    const { done } = cliOf(server, tenant);
    const deep = `${'{"a":'.repeat(64)}1${'}'.repeat(64)}`;
    const { id } = await tenant.publishText(`{"type":"a.b","data":${deep}}`);
    assert.equal(rowsOf(await done('event', 'list'))[1][0], id);
    for (const verb of [['list'], ['get', id]]) assert.ok((await done('event', ...verb, '--json')).includes(deep), verb[0]);
  });

  test('many events from a file, in as many requests as it takes', async ({ server, tenant }) => {
    const { cli, json, done } = cliOf(server, tenant);
    const lines = Array.from({ length: 1203 }, (_, i) => JSON.stringify({ type: 'row.read', data: i, idempotency_key: `row ${i}` }));
    const { data } = await json('event', 'batch', { input: `${lines.join('\n\n')}` });
    assert.equal(new Set(data.map(({ id }) => id)).size, 1203);
    const listed = await json('event', 'list', '--limit', '1100');
    assert.equal(listed.data.length, 1100);
    assert.deepEqual(listed.data.slice(0, 2).map((event) => event.data), [1202, 1201]);
    const rest = await json('event', 'list', '--all', '--cursor', listed.next_cursor);
    assert.deepEqual([rest.data.length, rest.next_cursor], [103, null]);
    assert.equal(rowsOf(await done('event', 'list', '--all')).length, 1204);

    lines[1100] = '{"type":"posthorn.reserved","data":1}';
    const refused = await cli('event', 'batch', { input: lines.join('\n') });
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /refused: The request is not valid \(422\)\n {2}\[100\]\.type: .*\n[^]*the 1000 events before it are published/);
    assert.equal((await cli('event', 'batch', { input: '\n \n' })).code, 2);
    const missing = await cli('event', 'batch', '/nonexistent/events.ndjson');
    assert.deepEqual([missing.code, /cannot be read: No such file or directory$/m.test(missing.stderr)], [2, true]);
  });

  test('deliveries: searched, looked into, counted, replayed', async ({ server, tenant, receiver }) => {
    const { cli, done, json } = cliOf(server, tenant);
    const endpoint = await receiver([404]);
    const { id: subscription } = await tenant.subscribe(endpoint.url());
    const event = await tenant.publish();
    const { id } = await tenant.waitDelivery(event, 'DLQ');

    const [titles, row] = rowsOf(await done('delivery', 'list', '--state', 'dlq', '--subscription', subscription, '--status-code', '404'));
    assert.deepEqual([titles[0], row[0], row[1], row[3]], ['ID', id, 'DLQ', '404']);
    assert.equal((await json('delivery', 'list', '--state', 'delivered')).data.length, 0);
    const shown = await done('delivery', 'get', id);
    assert.match(shown, /^state +DLQ$/m);
    assert.match(shown, /^Attempts\nNUMBER +STARTED/m);
    assert.match(shown, /^Timeline\nAT +FROM/m);
    assert.equal((await json('delivery', 'get', id)).attempts.length, 1);
    assert.equal((await json('delivery', 'attempts', id)).data[0].status_code, 404);
    assert.match(await done('delivery', 'counts'), /^total +1$/m);
    assert.equal((await json('delivery', 'replay', id)).state, 'REPLAYING');
    await waitFor(() => endpoint.requests.length === 2);
    assert.equal((await cli('delivery', 'get', 'dlv_00000000000000000000000000')).code, 1);
  });

  test('a receipt needs its token and no key', async ({ server, tenant, receiver }) => {
    const { done } = cliOf(server, tenant);
    const endpoint = await receiver();
    await tenant.subscribe(endpoint.url(), { receipts: true });
    const { id } = await tenant.waitDelivery(await tenant.publish());
    await done('delivery', 'receipt', id, '--token', endpoint.requests[0].headers['posthorn-receipt-token'], '--status', 'processed',
      { env: { POSTHORN_KEY: '' } });
    assert.equal((await tenant.delivery(id)).receipt.status, 'processed');
  });

  test('keys and the audit trail', async ({ server, tenant }) => {
    const { cli, done, json } = cliOf(server, tenant);
    const made = await json('key', 'create', '--scope', 'events:read,events:write', '--tenant', tenant.id, '--expires-at', '2d');
    assert.deepEqual([made.scopes.toSorted(), made.tenant_id], [['events:read', 'events:write'], tenant.id]);
    const days = (new Date(made.expires_at) - Date.now()) / 86_400_000;
    assert.ok(days > 1.9 && days <= 2, made.expires_at);
    await done('event', 'list', '--key', made.key);
    const forbidden = await cli('tenant', 'list', '--key', made.key);
    assert.deepEqual([forbidden.code, /\(403\)/.test(forbidden.stderr)], [1, true]);
    assert.match(await done('key', 'list'), new RegExp(`^${made.id} `, 'm'));
    assert.equal(await done('key', 'revoke', made.id), `${made.id} revoked\n`);
    const unknown = await cli('event', 'list', '--key', made.key);
    assert.deepEqual([unknown.code, /\(401\)[^]*POSTHORN_KEY/.test(unknown.stderr)], [1, true]);
    assert.match(await done('audit', '--tenant', tenant.id), / key\.delete /);
    assert.equal((await json('audit', '--limit', '1')).data.length, 1);
  });

  test('a refusal says every field that is wrong, and nothing steers the terminal', async ({ server, tenant }) => {
    const { cli, done } = cliOf(server, tenant);
    const { code, stdout, stderr } = await cli('subscription', 'create', 'ftp://example.com', '--ordering', 'sorted', '--status', 'x');
    assert.deepEqual([code, stdout], [1, '']);
    for (const field of ['url', 'ordering', 'status']) assert.match(stderr, new RegExp(`^  ${field}: `, 'm'));
    await tenant.subscribe('https://example.com/', { description: 'a\u001b[31mred\u009b5m\nline' });
    const shown = await done('subscription', 'list') + await done('subscription', 'get', (await tenant.all('/subscriptions'))[0].id);
    assert.ok(!/[\u001b\u009b]/.test(shown));
    assert.match(shown, /^description +a\\x1b\[31mred\\x9b5m\\nline$/m);
  });

  test('wrong usage and servers that are not there', async ({ server, tenant }) => {
    const { cli } = cliOf(server, tenant);
    const wrong = [
      [['tenant'], /Verbs[^]*create ID/],
      [['tenants', 'list'], /did you mean tenant\?/],
      [['event', 'pubish', 'x'], /did you mean publish\?/],
      [['tenant', '--json', 'list'], /first comes what to do/],
      [['tenant', 'list', '--jsn'], /did you mean --json\?/],
      [['tenant', 'get'], /ID is missing/],
      [['tenant', 'get', ''], /must not be empty/],
      [['tenant', 'get', 'a', 'b'], /unexpected argument b/],
      [['tenant', 'create', 'a', '--events-per-second', 'many'], /--events-per-second many: must be a number/],
      [['subscription', 'create', 'https://x', '--header', 'X'], /--header X: must be NAME=VALUE/],
      [['tenant', 'update', 'a'], /there is nothing to change/],
      [['tenant', 'list', '--limit', '0'], /--limit 0: must be/],
      [['tenant', 'list', '--limit', '5', '--all'], /exclude each other/],
      [['tenant', 'list', '--url', 'example.com'], /must begin with http/],
      [['tenant', 'list', '--key', 'a\nb'], /visible ASCII/],
      [['tenant', 'list', { env: { POSTHORN_KEY: '' } }], /there is no key: set POSTHORN_KEY/],
      [['event', 'list', { env: { POSTHORN_TENANT: '' } }], /there is no tenant: give --tenant/],
      [['help', 'tenant', 'crate'], /did you mean create\?/],
    ];
    for (const [words, why] of wrong) {
      const { code, stdout, stderr } = await cli(...words);
      assert.deepEqual([code, stdout], [2, ''], `${JSON.stringify(words)}: ${stderr}`);
      assert.match(stderr, why);
    }
    const away = await cli('tenant', 'list', '--url', `http://127.0.0.1:${await closedPort()}`);
    assert.deepEqual([away.code, away.stdout], [3, '']);
    assert.match(away.stderr, /cannot be reached/);

    const stranger = http.createServer((_, response) => response.writeHead(502).end('<b>Bad Gateway</b>')).listen(0, '127.0.0.1');
    await new Promise((resolve) => stranger.once('listening', resolve));
    const strange = await cli('tenant', 'list', '--url', `http://127.0.0.1:${stranger.address().port}`);
    stranger.close();
    assert.equal(strange.code, 1);
    assert.match(strange.stderr, /answered 502, and not as posthorn does: <b>Bad Gateway/);
  });

  test('help of every command and verb has a usage line and a flag for the server', async ({ server }) => {
    const { done } = cliOf(server);
    for (const command of ['tenant', 'subscription', 'event', 'delivery', 'replay', 'key']) {
      const text = await done(command, '--help');
      const verbs = [...text.matchAll(/^ {2}([a-z-]+)(?: [A-Z[].*?)? {2,}/gm)].map((match) => match[1]);
      assert.ok(verbs.includes('list'), text);
      for (const verb of verbs) {
        const help = await done(command, verb, '--help');
        assert.match(help, new RegExp(`^usage: posthorn ${command} ${verb}`));
        assert.match(help, /--url URL/);
        assert.equal(await done('help', command, verb), help);
      }
    }
  });
});
