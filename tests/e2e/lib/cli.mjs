// The program's clients as a user runs them, against a test's server and tenant.

import assert from 'node:assert/strict';

import { run } from './server.mjs';

/** What a shell that is set up for this server and tenant has in its environment. */
export const shellOf = (server, tenant) => ({
  POSTHORN_URL: server.url, POSTHORN_KEY: server.adminKey, ...(tenant ? { POSTHORN_TENANT: tenant.id } : {}),
});

/**
 * cli(…) runs a command and answers how it ended; done(…) asserts status 0 and answers stdout; json(…) adds --json and parses. A last
 * argument that is an object holds options: input, env.
 */
export function cliOf(server, tenant) {
  const cli = (...words) => {
    const options = typeof words.at(-1) === 'object' ? words.pop() : {};
    return run(words, { ...options, env: { ...shellOf(server, tenant), ...options.env } });
  };
  const done = async (...words) => {
    const { code, stdout, stderr } = await cli(...words);
    assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
    return stdout;
  };
  const json = async (...words) => {
    const options = typeof words.at(-1) === 'object' ? [words.pop()] : [];
    const text = await done(...words, '--json', ...options);
    return text ? JSON.parse(text) : undefined;
  };
  return { cli, done, json };
}
