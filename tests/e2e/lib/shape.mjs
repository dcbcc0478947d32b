// The shapes that the contract promises: ids, times, field sets, problem documents.

import assert from 'node:assert/strict';

const CROCKFORD = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

/** A prefix and 26 characters of Crockford base32 that hold a UUIDv7 of about now. */
export function assertId(id, prefix) {
  assert.match(id, new RegExp(`^${prefix}_[${CROCKFORD}]{26}$`));
  let bits = 0n;
  for (const letter of id.slice(prefix.length + 1)) bits = (bits << 5n) | BigInt(CROCKFORD.indexOf(letter));
  assert.ok(bits >> 128n === 0n, `${id} holds more than 128 bits`);
  assert.equal((bits >> 76n) & 0xfn, 7n, `${id} holds a UUID of another version`);
  assert.equal((bits >> 62n) & 0b11n, 0b10n, `${id} holds a UUID of another variant`);
  assertRecent(Number(bits >> 80n), `the time in ${id}`);
}

/** RFC 3339, UTC, milliseconds. */
export function assertTime(text) {
  assert.match(text, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assertRecent(Date.parse(text), text);
}

function assertRecent(at, what) {
  assert.ok(Math.abs(Date.now() - at) < 3_600_000, `${what} is not of about now`);
}

/** Exactly these fields, no more and no fewer. */
export function assertFields(object, fields) {
  assert.deepEqual(Object.keys(object).sort(), [...fields].sort());
}

/** RFC 9457. `fields`: each must be named by an entry of `errors` (a part of its name will do). */
export function assertProblem(response, status, fields = []) {
  assert.equal(response.status, status, `answered ${response.status}: ${response.text.slice(0, 1000)}`);
  assert.match(response.headers['content-type'], /^application\/problem\+json\b/);
  const problem = response.json;
  assert.match(problem.type, /^urn:posthorn:problem:[a-z0-9_-]+$/);
  assert.equal(typeof problem.title, 'string');
  assert.notEqual(problem.title, '');
  assert.equal(problem.status, status);
  assert.equal(typeof problem.detail, 'string');
  if (status === 422) assert.equal(problem.type, 'urn:posthorn:problem:validation');
  for (const field of fields) {
    const named = (problem.errors ?? []).map((error) => error.field);
    assert.ok(named.some((name) => name.includes(field)), `"${field}" is not among the errors: ${JSON.stringify(problem)}`);
  }
  for (const error of problem.errors ?? []) {
    assert.equal(typeof error.field, 'string');
    assert.equal(typeof error.message, 'string');
  }
}

/** The states a delivery went through. */
export const states = (delivery) => delivery.timeline.map((step) => step.to);
