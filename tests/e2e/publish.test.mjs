// Publishing: bytes kept verbatim, the three formats, deliver_at.

import assert from 'node:assert/strict';

import { assertProblem, assertTime } from './lib/shape.mjs';
import { suite } from './lib/suite.mjs';

/** JSON that every rewriting library would change. */
const VERBATIM = [
  '1.0', '1e5', '1E+05', '-0', '0.1000', '12345678901234567890', '3.141592653589793238462643383279502884197',
  '"\\u00e9\\u20AC\\ud83d\\ude00"', '"é€😀"', '"\\/\\b\\f\\n\\r\\t\\"\\\\"', '"</script>&\\u0000"', '"\u2028\u007f"',
  '{"z":1,"a":2,"m":{"b":[],"a":{}}}', '{ "spaced" :\t[ 1 ,\n 2 ] }', '{"a":1,"a":2}', '{"data":{"data":"}"}}', '[]', '{}', '""', 'null', 'true', 'false',
  '"a\\\\\\"}"', '[[[[[[]]]]]]',
];

suite('publish', ({ test }) => {
  test('envelope: the payload’s bytes are what came in', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { secret } = await tenant.subscribe(shop.url());
    for (const [i, data] of VERBATIM.entries()) {
      const event = await tenant.publishText(`{"type":"a.b","data":${data}}`);
      const request = (await shop.received(i + 1))[i];
      assert.equal(
        request.text,
        `{"id":"${event.id}","type":"a.b","timestamp":"${event.created_at}","tenant_id":"${tenant.id}","schema_version":"1","data":${data}}`,
      );
      request.verify(secret);
      const stored = await tenant.request('GET', `/events/${event.id}`);
      assert.ok(stored.text.includes(data), `the stored event lost ${data}: ${stored.text}`);
    }
  });

  test('raw: the payload’s bytes and nothing else', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { secret } = await tenant.subscribe(shop.url(), { format: 'raw' });
    for (const [i, data] of VERBATIM.entries()) {
      await tenant.publishText(`{"type":"a.b","data":${data}}`);
      const request = (await shop.received(i + 1))[i];
      assert.equal(request.text, data);
      assert.equal(request.headers['content-type'], 'application/json');
      assert.ok(request.headers['posthorn-event-id']);
      request.verify(secret);
    }
  });

  test('cloudevents: a structured CloudEvents 1.0 event', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { secret } = await tenant.subscribe(shop.url(), { format: 'cloudevents' });
    const data = '{"z":1.0,"a":12345678901234567890}';
    const event = await tenant.publishText(`{"type":"invoice.paid","ordering_key":"in_1","data":${data}}`);
    const [request] = await shop.received();
    request.verify(secret);
    assert.match(request.headers['content-type'], /^application\/cloudevents\+json\b/);
    assert.ok(request.text.includes(`"data":${data}`));
    const { specversion, id, source, type, subject, time, datacontenttype = 'application/json' } = request.json;
    assert.deepEqual(
      { specversion, id, source, type, subject, time, datacontenttype },
      {
        specversion: '1.0', id: event.id, source: `/tenants/${tenant.id}`, type: 'invoice.paid', subject: 'in_1',
        time: event.created_at, datacontenttype: 'application/json',
      },
    );
    for (const name of Object.keys(request.json)) assert.match(name, /^[a-z0-9]{1,20}$/, 'CloudEvents attribute names');

    await tenant.publish('invoice.paid', 2);
    const [, second] = await shop.received(2);
    assert.ok(!('subject' in second.json), 'no ordering key, no subject');
  });

  test('the same bytes for every subscriber and every attempt', async ({ tenant, receiver }) => {
    const shops = [await receiver([500, 200]), await receiver([200])];
    for (const shop of shops) await tenant.subscribe(shop.url());
    await tenant.publish('a.b', { n: 1 });
    const [first, retried] = await shops[0].received(2);
    const [other] = await shops[1].received();
    assert.equal(retried.text, first.text);
    assert.equal(other.text, first.text);
    assert.equal(retried.id, first.id);
    assert.notEqual(other.id, first.id);
    assert.deepEqual([first.attempt, retried.attempt], [1, 2]);
  });

  test('the fields may come in any order, with any white space', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url(), { format: 'raw' });
    await tenant.publishText(' \n{ "schema_version" : "2" ,\t"data"  :  { "a" : 1 }  , "t\\u0079pe" :"a.b" } \r\n');
    const [request] = await shop.received();
    assert.equal(request.text, '{ "a" : 1 }');
  });

  test('schema_version and ordering_key are kept', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url());
    const { id } = await tenant.publish('a.b', 1, { schema_version: '2026-01', ordering_key: 'käy “1”' });
    const [request] = await shop.received();
    assert.equal(request.json.schema_version, '2026-01');
    const event = await tenant.event(id);
    assert.equal(event.schema_version, '2026-01');
    assert.equal(event.ordering_key, 'käy “1”');
  });

  test('a large event arrives whole', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const { secret } = await tenant.subscribe(shop.url(), { format: 'raw' });
    const data = JSON.stringify('0123456789'.repeat(100_000));
    await tenant.publishText(`{"type":"a.b","data":${data}}`);
    const [request] = await shop.received();
    assert.equal(request.text, data);
    request.verify(secret);
  });

  test('a body in chunks is a body', async ({ tenant }) => {
    await tenant.expect(202, 'POST', '/events', {
      body: Buffer.from('{"type":"a.b","data":1}'),
      headers: { 'content-length': undefined, 'transfer-encoding': 'chunked' },
    });
  });

  test('deliver_at: not before its time', async ({ tenant, receiver }) => {
    const shop = await receiver();
    await tenant.subscribe(shop.url());
    const at = new Date(Date.now() + 6000);
    const event = await tenant.publish('a.b', 'later', { deliver_at: at.toISOString() });
    assert.equal((await tenant.event(event.id)).deliver_at, at.toISOString());
    const waiting = await tenant.waitDelivery(event, 'PENDING');
    assert.equal(waiting.next_attempt_at, at.toISOString());
    assert.equal(waiting.attempt_count, 0);

    await tenant.publish('a.b', 'now');
    const [first, second] = await shop.received(2);
    assert.equal(first.json.data, 'now');
    assert.equal(second.json.data, 'later');
    assert.ok(second.at >= at.getTime() - 10, `came ${at.getTime() - second.at} ms early`);
    assert.equal(second.json.timestamp, event.created_at, 'the timestamp is created_at');
  });

  test('deliver_at: up to 30 days ahead, with any offset', async ({ tenant }) => {
    const days = (n) => new Date(Date.now() + n * 86_400_000).toISOString();
    assertProblem(await tenant.request('POST', '/events', { body: { type: 'a.b', data: 1, deliver_at: days(30.1) } }), 422, ['deliver_at']);
    await tenant.publish('a.b', 1, { deliver_at: days(29.9) });
    const instant = new Date(Math.floor(Date.now() / 1000) * 1000 + 3_600_000);
    const offset = new Date(instant.getTime() + 7_200_000).toISOString().replace('.000Z', '+02:00');
    const { id } = await tenant.publish('a.b', 1, { deliver_at: offset });
    assert.equal((await tenant.event(id)).deliver_at, instant.toISOString());
    for (const bad of ['2026-11-24', 'tomorrow', 1790000000, '2026-02-30T00:00:00Z', '']) {
      assertProblem(await tenant.request('POST', '/events', { body: { type: 'a.b', data: 1, deliver_at: bad } }), 422, ['deliver_at']);
    }
  });

  test('types: exact names, a trailing .*, and all', async ({ tenant, receiver }) => {
    const shop = await receiver();
    const patterns = { all: [], exact: ['invoice.paid'], star: ['invoice.*'], two: ['invoice.paid.*', 'user.created'], none: ['invoice'] };
    for (const [name, event_types] of Object.entries(patterns)) await tenant.subscribe(shop.url(`/${name}`), { event_types });
    const expected = {
      'invoice': ['all', 'none'],
      'invoice.paid': ['all', 'exact', 'star'],
      'invoice.paid.late': ['all', 'star', 'two'],
      'invoices.paid': ['all'],
      'Invoice.paid': ['all'],
      'user.created': ['all', 'two'],
    };
    let count = 0;
    for (const [type, names] of Object.entries(expected)) {
      const event = await tenant.publish(type, type);
      assert.equal((await tenant.event(event.id)).fanout.deliveries, names.length, type);
      await shop.received((count += names.length));
      const came = shop.requests.filter((request) => request.json.data === type).map((request) => request.path.slice(1));
      assert.deepEqual(came.sort(), names.sort(), type);
    }
  });

  test('an event that nobody wants is kept, and done', async ({ tenant }) => {
    const { id } = await tenant.publish('a.b', 1);
    const event = await tenant.event(id);
    assertTime(event.created_at);
    assert.deepEqual(event.fanout, { state: 'done', deliveries: 0 });
  });
});
