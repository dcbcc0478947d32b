// A collector of traces on loopback: takes OTLP over HTTP as JSON, or takes its time.

import { once } from 'node:events';
import http from 'node:http';

/** What attributes say, as an object. */
const attributesOf = (list) => Object.fromEntries(list.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue)]));

export async function startCollector() {
  const collector = new Collector();
  collector.server.listen(0, '127.0.0.1');
  await once(collector.server, 'listening');
  return collector;
}

class Collector {
  /** answer: a status; or null: never. */
  constructor() {
    this.answer = 200;
    this.requests = [];
    this.spans = [];
    this.server = http.createServer((request, response) => this.#take(request, response));
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  async #take(request, response) {
    const chunks = [];
    request.on('error', () => {}); // the sender gave up
    for await (const chunk of request) chunks.push(chunk);
    this.requests.push({ method: request.method, path: request.url, headers: request.headers });
    if (this.answer === null) return;
    if (this.answer === 200) this.#keep(JSON.parse(Buffer.concat(chunks).toString()));
    response.writeHead(this.answer, { 'content-type': 'application/json' }).end('{}');
  }

  #keep({ resourceSpans }) {
    for (const { resource, scopeSpans } of resourceSpans) {
      for (const span of scopeSpans.flatMap(({ spans }) => spans)) {
        this.spans.push({ ...span, attributes: attributesOf(span.attributes), resource: attributesOf(resource.attributes) });
      }
    }
  }

  async close() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}
