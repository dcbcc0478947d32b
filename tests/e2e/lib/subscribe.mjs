import net from 'node:net';

const CONNECTIONS = 64;
const AHEAD = 16; // requests under way on a connection

/** Makes `count` equal subscriptions through the API, over many connections that do not wait for each answer. */
export async function subscribeMany(server, tenantId, count, fields) {
  const body = JSON.stringify(fields);
  const request = [
    `POST /v1/tenants/${tenantId}/subscriptions HTTP/1.1`, 'host: localhost', `authorization: Bearer ${server.adminKey}`,
    'content-type: application/json', `content-length: ${Buffer.byteLength(body)}`, '', body,
  ].join('\r\n');
  const work = { request, left: count };
  await Promise.all(Array.from({ length: CONNECTIONS }, () => subscribeOver(new URL(server.url), work)));
}

function subscribeOver({ hostname, port }, work) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, hostname);
    let underWay = 0;
    let rest = '';
    const ask = () => {
      const more = Math.min(AHEAD - underWay, work.left);
      work.left -= more;
      underWay += more;
      if (more > 0) socket.write(work.request.repeat(more));
      if (underWay === 0) socket.end(resolve);
    };
    socket.on('data', (bytes) => {
      const lines = (rest + bytes.toString('latin1')).split('\r\n');
      rest = lines.pop();
      for (const line of lines) {
        if (/HTTP\/1\.1 201 /.test(line)) underWay--;
        else if (/HTTP\/1\.1 /.test(line)) reject(new Error(`a subscription was answered ${line}`));
      }
      ask();
    });
    socket.on('error', reject);
    socket.on('close', () => underWay && reject(new Error('the server closed a connection')));
    ask();
  });
}
