// A programmable subscriber on loopback: records what it gets, and answers well or badly, as its script says.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

import { Webhook } from 'standardwebhooks';

import { waitFor } from './wait.mjs';

/**
 * script: what to answer to the first, second, … request; the last one repeats. Each is
 *   - a status code,
 *   - {status, headers, body, delay_ms},
 *   - a function of (request, response, receiver), such as those below, that answers itself or returns one of the above.
 * A function in place of the list is asked every time. keep: whether `requests` remembers what came. tls: what node's
 * tls.createServer takes, and `http2: true` to offer HTTP/2.
 */
export async function startReceiver(script = [204], { keep = true, host = '127.0.0.1', port = 0, tls = null } = {}) {
  const receiver = new Receiver(script, keep, tls);
  receiver.server.listen(port, host);
  await once(receiver.server, 'listening');
  return receiver;
}

function createServer(tls, take) {
  if (tls?.http2) return http2.createSecureServer({ ...tls, allowHTTP1: true }, take);
  if (tls) return https.createServer(tls, take);
  return http.createServer({ maxHeaderSize: 256 * 1024 }, take);
}

class Receiver {
  constructor(script, keep, tls) {
    this.script = script;
    this.keep = keep;
    this.tls = tls;
    this.requests = [];
    this.inFlight = 0;
    this.connections = 0;
    this.closing = new AbortController();
    this.server = createServer(tls, (request, response) => this.#take(request, response));
    this.server.keepAliveTimeout = 0; // never closes an idle connection by itself
    this.sockets = new Set();
    this.server.on('connection', (socket) => {
      this.connections++;
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
      socket.on('error', () => {}); // senders give up; that is what some tests are about
    });
  }

  url(path = '/hook') {
    return `${this.tls ? 'https' : 'http'}://127.0.0.1:${this.server.address().port}${path}`;
  }

  async #take(incoming, response) {
    const request = new Received(incoming);
    request.concurrency = ++this.inFlight;
    response.on('close', () => this.inFlight--);
    const chunks = [];
    try {
      for await (const chunk of incoming) chunks.push(chunk);
    } catch {
      return; // the sender died in the middle of its body
    }
    request.body = Buffer.concat(chunks);
    if (this.keep) this.requests.push(request);
    const turn = Math.min(this.requests.length, this.script.length || 1) - 1;
    try {
      await this.#answer(typeof this.script === 'function' ? this.script : this.script[turn], request, response);
    } catch (error) {
      if (!this.closing.signal.aborted) request.failure = error;
    }
  }

  async #answer(answer, request, response) {
    if (typeof answer === 'function') answer = await answer(request, response, this);
    if (answer === undefined) return; // it answered by itself
    const { status, headers = {}, body = '', delay_ms = 0 } = typeof answer === 'number' ? { status: answer } : answer;
    if (delay_ms) await delay(delay_ms, null, { signal: this.closing.signal });
    response.writeHead(status, headers).end(body);
  }

  /** Waits until `count` requests have come, and returns them. */
  async received(count = 1, options = {}) {
    await waitFor(() => this.requests.length >= count, {
      what: () => `${count} requests at the receiver (it got ${this.requests.length})`, ...options,
    });
    return this.requests;
  }

  async close() {
    this.closing.abort();
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

/** One request as it came: headers by lower-case name, and the body's bytes. */
class Received {
  constructor(incoming) {
    this.at = Date.now();
    this.method = incoming.method;
    this.path = incoming.url;
    this.version = incoming.httpVersion;
    this.headers = incoming.headers;
    this.rawHeaders = incoming.rawHeaders;
    this.socket = incoming.socket;
    this.body = null;
  }

  get id() {
    return this.headers['webhook-id'];
  }

  get attempt() {
    return Number(this.headers['posthorn-attempt']);
  }

  get text() {
    return this.body.toString();
  }

  get json() {
    return JSON.parse(this.text);
  }

  /** Checks the signature as a subscriber would; throws when it is wrong. */
  verify(secret) {
    return new Webhook(secret).verify(this.body, this.headers);
  }
}

// ---- well-behaved answers ----

export const retryAfter = (status, value) => ({ status, headers: { 'retry-after': String(value) } });

export const redirect = (to, status = 302) => ({ status, headers: { location: to } });

/** Answers once `opened` resolves. */
export const when = (opened, answer = 204) => async () => (await opened, answer);

// ---- nasty ones: they write to the socket itself ----

/** A black hole: takes the request and never answers. */
export const hang = () => () => {};

/** Closes the connection without a byte of an answer. */
export const closeWithoutAnswer = () => (request) => void request.socket.end();

/** Writes these bytes and then resets the connection (RST). */
export const resetAfter = (bytes = '') => (request) => {
  if (!bytes) return void request.socket.resetAndDestroy();
  request.socket.write(bytes, () => request.socket.resetAndDestroy());
};

/** Writes exactly these bytes, whatever they are, and closes. */
export const raw = (bytes) => (request) => void request.socket.end(bytes);

/** Writes `start`, and then `drop` again and again, until the sender goes away. */
const stream = (start, drop, every_ms) => async (request, response, receiver) => {
  const { socket } = request;
  socket.write(start);
  while (!socket.destroyed && !receiver.closing.signal.aborted) {
    if (!socket.write(drop)) await Promise.race([once(socket, 'drain'), once(socket, 'close')]);
    await delay(every_ms, null, { signal: receiver.closing.signal });
  }
};

/** The status line itself never ends. */
export const dripStatusLine = () => stream('HTTP/1.1 ', ' ', 20);

/** A whole status line, and headers that never end. */
export const dripHeaders = (status = 200) => stream(`HTTP/1.1 ${status} Slow\r\n`, 'x-drop: 1\r\n', 20);

/** Whole headers, and a body that comes a byte at a time. */
export const dripBody = (status = 200) =>
  stream(`HTTP/1.1 ${status} Slow\r\ncontent-length: 1000000\r\n\r\n`, '.', 20);

/** A body without end, as fast as it is taken. */
export const endlessBody = (status = 200, letter = 'x') =>
  stream(`HTTP/1.1 ${status} Endless\r\nconnection: close\r\n\r\n`, letter.repeat(16 * 1024), 0);

/** Headers of about this many bytes. */
export const hugeHeaders = (bytes, status = 200) => raw(
  `HTTP/1.1 ${status} Huge\r\n${`x-filler: ${'h'.repeat(1000)}\r\n`.repeat(bytes / 1000)}content-length: 0\r\n\r\n`,
);

const PORTS_FROM = 10_000;
const PORTS_TRIED = 100;

/** The first of the ports that the system gives to who asks for any, and to clients. */
const handedOutFrom = () => Number(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split('\t')[0]);

/** A port on which nobody listens, and which the system gives nobody: another test's listener or client is not there a moment later. */
export async function closedPort() {
  const room = handedOutFrom() - PORTS_FROM;
  for (let tries = 1; ; tries++) {
    const server = net.createServer().listen(room > 0 ? PORTS_FROM + Math.floor(Math.random() * room) : 0, '127.0.0.1');
    try {
      await once(server, 'listening');
    } catch (error) {
      if (error.code !== 'EADDRINUSE' || tries === PORTS_TRIED) throw error;
      continue;
    }
    const { port } = server.address();
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}
