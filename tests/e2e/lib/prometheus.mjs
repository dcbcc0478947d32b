// Prometheus, and promtool that comes with it: the text of /metrics read, judged and scraped.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { closedPort } from './receiver.mjs';
import { temporaryFolder } from './server.mjs';
import { waitFor } from './wait.mjs';

/** Runs promtool to its end, with `input` on its standard input; answers {code, output}. */
export async function promtool(args, input = '') {
  const child = spawn('promtool', args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  child.stdin.on('error', () => {}); // it may end before it has read all
  child.stdin.end(input);
  const [code] = await once(child, 'close');
  return { code, output };
}

/** The samples of a text: a map from `name` or `name{labels}` as written to the number. */
export function samplesOf(text) {
  const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
}

/** What a server tells now. */
export async function scrape(server) {
  const response = await fetch(`${server.url}/metrics`);
  const text = await response.text();
  if (response.status !== 200) throw new Error(`/metrics answered ${response.status}: ${text}`);
  return { text, type: response.headers.get('content-type'), samples: samplesOf(text) };
}

const READY_LIMIT_MS = 60_000;
const PORTS_TRIED = 5;

/**
 * Debian's Prometheus on a port of its own and a folder that is removed, scraping `target` (host:port) as the job
 * posthorn, several times a second; `rules` is the text of its rule file.
 */
export class Prometheus {
  static async start(target, rules) {
    const prometheus = new Prometheus();
    try {
      await prometheus.#start(target, rules);
    } catch (error) {
      await prometheus.remove();
      throw error;
    }
    return prometheus;
  }

  async #start(target, rules) {
    this.folder = await temporaryFolder();
    await writeFile(join(this.folder, 'rules.yml'), rules);
    await writeFile(join(this.folder, 'prometheus.yml'), [
      'global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}',
      'rule_files: [rules.yml]',
      'scrape_configs:',
      `  - {job_name: posthorn, static_configs: [{targets: ['${target}']}]}`,
    ].join('\n'));
    // The port is free only for the moment: another program may be faster.
    for (let tries = 1; !(await this.#listen(`127.0.0.1:${await closedPort()}`)); tries++) {
      if (tries === PORTS_TRIED || !/address already in use/.test(this.log)) throw new Error(`Prometheus ended: ${this.log}`);
    }
  }

  /** Waits until it is ready; false when it ended instead. */
  async #listen(address) {
    this.url = `http://${address}`;
    this.child = spawn('prometheus', [
      `--config.file=${join(this.folder, 'prometheus.yml')}`, `--storage.tsdb.path=${join(this.folder, 'data')}`,
      `--web.listen-address=${address}`, '--log.level=warn',
    ], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.exited = once(this.child, 'close');
    this.log = '';
    this.child.stderr.setEncoding('utf8').on('data', (text) => (this.log += text));
    const ended = () => this.child.exitCode !== null;
    const ready = async () => ended() || (await fetch(`${this.url}/-/ready`).catch(() => null))?.ok;
    await waitFor(ready, { limit: READY_LIMIT_MS, what: () => `Prometheus to be ready: ${this.log}` });
    if (ended()) await this.exited;
    return !ended();
  }

  /** The vector that a query gives now; an error when the query is none. */
  async query(expr) {
    const response = await fetch(`${this.url}/api/v1/query?${new URLSearchParams({ query: expr })}`);
    const answer = await response.json();
    if (answer.status !== 'success') throw new Error(`${expr}: ${answer.error}`);
    return answer.data.result;
  }

  /** The names of the alerts that fire now. */
  async firing() {
    const { data } = await (await fetch(`${this.url}/api/v1/alerts`)).json();
    return data.alerts.filter(({ state }) => state === 'firing').map(({ labels }) => labels.alertname);
  }

  async remove() {
    if (this.child) {
      this.child.kill('SIGKILL');
      await this.exited;
    }
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
  }
}
