// A name server on loopback whose answers are a function: for names that rebind.

import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';

const TYPES = { A: 1, CNAME: 5, AAAA: 28 };
const ANSWER = 0x8180; // a response, recursion wanted and available
const NXDOMAIN = 3;
const RECEIVE_BYTES = 200 * 1024; // for bursts of questions

/**
 * zone(name): what a name has now: an array of addresses of either family and of {cname}, after which the addresses belong
 * to that name; null: there is no such name. ttl: of every record.
 */
export async function startNameServer(zone, { ttl = 0 } = {}) {
  const server = new NameServer(zone, ttl);
  server.socket.bind(0, '127.0.0.1');
  await once(server.socket, 'listening');
  return server;
}

class NameServer {
  constructor(zone, ttl) {
    Object.assign(this, { zone, ttl, asked: new Map() });
    this.socket = dgram.createSocket({ type: 'udp4', recvBufferSize: RECEIVE_BYTES }, (question, from) => {
      this.socket.send(this.#answer(question), from.port, from.address, () => {}); // who asked may be gone
    });
  }

  get address() {
    return `127.0.0.1:${this.socket.address().port}`;
  }

  /** How often a name's IPv4 addresses were asked for. */
  lookups(name) {
    return this.asked.get(name) ?? 0;
  }

  #answer(question) {
    const { name, type, end } = readQuestion(question);
    if (type === TYPES.A) this.asked.set(name, this.lookups(name) + 1);
    const found = this.zone(name);
    const records = (found ?? []).map((one) => record(one, this.ttl)).filter((one) => one.type === type || one.type === TYPES.CNAME);
    let owner = 12;
    const out = [question.subarray(0, 2), u16(ANSWER | (found ? 0 : NXDOMAIN)), u16(1), u16(records.length), u16(0), u16(0), question.subarray(12, end)];
    for (const one of records) {
      const head = [u16(0xc000 | owner), u16(one.type), u16(1), u32(one.ttl), u16(one.data.length)];
      // What follows a CNAME belongs to the name it gives.
      if (one.type === TYPES.CNAME) owner = out.concat(head).reduce((n, part) => n + part.length, 0);
      out.push(...head, one.data);
    }
    return Buffer.concat(out);
  }

  async close() {
    await new Promise((resolve) => this.socket.close(resolve));
  }
}

function readQuestion(bytes) {
  const labels = [];
  let at = 12;
  for (; bytes[at]; at += bytes[at] + 1) labels.push(bytes.toString('latin1', at + 1, at + 1 + bytes[at]));
  return { name: labels.join('.').toLowerCase(), type: bytes.readUInt16BE(at + 1), end: at + 5 };
}

function record(one, ttl) {
  if (typeof one === 'object') {
    const labels = one.cname.split('.').map((label) => Buffer.from(`${String.fromCharCode(label.length)}${label}`, 'latin1'));
    return { type: TYPES.CNAME, ttl, data: Buffer.concat([...labels, Buffer.from([0])]) };
  }
  return net.isIPv4(one) ? { type: TYPES.A, ttl, data: Buffer.from(one.split('.').map(Number)) } : { type: TYPES.AAAA, ttl, data: ipv6(one) };
}

/** The 16 bytes of an address, of which the last four may be written as IPv4. */
function ipv6(text) {
  const [head, tail = null] = text.split('::');
  const words = (part) => part.split(':').filter(Boolean).flatMap((word) =>
    word.includes('.') ? [...word.split('.').map(Number)] : [parseInt(word, 16) >> 8, parseInt(word, 16) & 255]);
  const [front, back] = [words(head), tail === null ? [] : words(tail)];
  return Buffer.from([...front, ...Array(16 - front.length - back.length).fill(0), ...back]);
}

const u16 = (n) => Buffer.from([n >> 8, n & 255]);
const u32 = (n) => Buffer.from([n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255]);
