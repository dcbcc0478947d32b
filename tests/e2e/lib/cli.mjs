// The program's clients as a user runs them, against a test's server and tenant.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';

import { BINARY, cleanEnvironment, run } from './server.mjs';
import { waitFor } from './wait.mjs';

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

const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

/**
 * Starts a command that goes on until it is told to end. terminal: on a terminal of its own, whose stdout and stderr are one; stdout: a
 * descriptor in place of a pipe that is read. said(…) waits for a pattern; ctrlC() interrupts as one types it (without a terminal: by the
 * signal); end() waits for the exit status.
 */
export function startCli(words, { env = {}, terminal = false, stdout = 'pipe' } = {}) {
  // Ctrl-C goes to all that is in front of the terminal: a shell that stayed there, as dash does, would die of it and its status be told.
  const command = `exec ${[BINARY, ...words].map(quoted).join(' ')}`;
  const [program, args] = terminal ? ['script', ['-qec', command, '/dev/null']] : [BINARY, words];
  const environment = cleanEnvironment({ SHELL: '/bin/sh', TERM: 'xterm', ...env });
  const child = spawn(program, args, { env: environment, stdio: ['pipe', stdout, 'pipe'] });
  const ended = new Promise((resolve) => child.once('close', resolve));
  const started = { child, stdout: '', stderr: '' };
  child.stdin.on('error', () => {});
  for (const name of ['stdout', 'stderr']) child[name]?.setEncoding('utf8').on('data', (text) => (started[name] += text));
  started.said = (pattern, name = 'stdout') =>
    waitFor(() => started[name].match(pattern), { what: () => `${pattern} in:\n${started.stdout}\n${started.stderr}` });
  started.ctrlC = () => (terminal ? child.stdin.write('\x03') : child.kill('SIGINT'));
  started.end = () => ended;
  started.remove = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  return started;
}
