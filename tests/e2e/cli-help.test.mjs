// What is made of the table of commands beside help: completion and man pages.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';

import { cleanEnvironment, run } from './lib/server.mjs';
import { test } from './lib/suite.mjs';

const env = cleanEnvironment();
const has = (program) => spawnSync(program, ['--version']).status === 0;
/** Without what its user has set up: with a socket on its standard input bash takes itself for a remote shell and reads .bashrc. */
const bash = (args) => spawnSync('bash', ['--norc', '--noprofile', ...args], { encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'pipe'] });
const scriptOf = async (shell) => {
  const { code, stdout } = await run(['completion', shell]);
  assert.equal(code, 0);
  return stdout;
};

/** What is completed at the end of these words, and what should be among it; `exactly` nothing else. */
const CASES = [
  { words: ['t'], exactly: ['tenant'] },
  { words: ['tenant', ''], exactly: ['create', 'list', 'get', 'update', 'delete'] },
  { words: ['tenant', 'create', '--ti'], exactly: ['--tier'] },
  { words: ['tenant', 'create', 'x', '--tier', ''], exactly: ['premium', 'standard', 'bulk'] },
  { words: ['key', 'create', '--scope', 'ev'], exactly: ['events:write', 'events:read'] },
  { words: ['completion', 'z'], exactly: ['zsh'] },
  { words: ['help', 'sub'], exactly: ['subscription'] },
  { words: ['serve', '--lis'], exactly: ['--listen'] },
  { words: ['audit', '--te'], exactly: ['--tenant'] },
];

test('bash completes', async () => {
  const script = await scriptOf('bash');
  for (const { words, exactly } of CASES) {
    const typed = ['posthorn', ...words];
    const { stdout, stderr } = bash(['-c',
      `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _posthorn; printf '%s\\n' "\${COMPREPLY[@]}"`, 'bash', ...typed]);
    assert.equal(stderr, '');
    assert.deepEqual(stdout.trim().split('\n').toSorted(), exactly.toSorted(), typed.join(' '));
  }
  // As bash splits events:w; what is completed takes the place of the w alone.
  const split = bash(['-c', `${script}\nCOMP_WORDS=(posthorn key create --scope events : w); COMP_CWORD=6; _posthorn; echo "\${COMPREPLY[@]}"`]);
  assert.equal(split.stdout, 'write\n');
});

test('fish completes', { skip: !has('fish') && 'there is no fish' }, async () => {
  const script = await scriptOf('fish');
  for (const { words, exactly } of CASES) {
    const { stdout } = spawnSync('fish', ['--no-config', '-c', `${script}\ncomplete -C '${['posthorn', ...words].join(' ')}'`], { encoding: 'utf8', env });
    assert.deepEqual(stdout.trim().split('\n').map((line) => line.split('\t')[0]).toSorted(), exactly.toSorted(), words.join(' '));
  }
});

test('zsh reads its script', { skip: !has('zsh') && 'there is no zsh' }, async () => {
  const { status, stderr } = spawnSync('zsh', ['-n'], { input: await scriptOf('zsh'), encoding: 'utf8', env });
  assert.deepEqual([status, stderr], [0, '']);
});

test('a shell that is not known', async () => {
  const { code, stderr } = await run(['completion', 'bsh']);
  assert.equal(code, 2);
  assert.match(stderr, /did you mean bash\?/);
});

test('man pages tell every verb and flag, without warnings', { skip: !has('man') && 'there is no man' }, async () => {
  const { stdout: overview } = await run(['help']);
  const commands = [...overview.matchAll(/^ {2}posthorn (\w+)/gm)].map((match) => match[1]);
  assert.ok(commands.includes('subscription') && commands.includes('serve'));
  for (const words of [[], ...commands.map((name) => [name])]) {
    const { stdout: page } = await run(['help', ...words, '--man']);
    const { status, stdout, stderr } = spawnSync('man', ['--warnings', '-E', 'UTF-8', '-l', '-'], {
      input: page, encoding: 'utf8', env: cleanEnvironment({ MANWIDTH: '200' }),
    });
    assert.deepEqual([status, stderr], [0, ''], words[0]);
    const text = stdout.replace(/.\u0008/g, '').replace(/\u001b\[[\d;]*m/g, '');
    const { stdout: help } = await run(words.length ? ['help', ...words] : ['help']);
    for (const [, flag] of help.matchAll(/^ {2}(--[a-z-]+)/gm)) assert.ok(text.includes(flag), `${words[0]} ${flag}`);
    for (const [, verb] of help.matchAll(/^ {2}([a-z-]+) (?:[A-Z[]| )/gm)) assert.ok(text.includes(verb), `${words[0]} ${verb}`);
  }
});
