// Prometheus, and promtool that comes with it: the text of /metrics read, judged and scraped.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

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
