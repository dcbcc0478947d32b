// Several nodes on one throw-away PostgreSQL: const c = await Cluster.start(3); c.nodes[0].api; await c.remove().

import { Api } from './api.mjs';
import { Postgres } from './postgres.mjs';
import { LOOPBACK_FLAGS, Server } from './server.mjs';
import { waitFor } from './wait.mjs';

const PARTITIONS = 1024;
const TIERS = ['premium', 'standard', 'bulk'];
/** What seals secrets is the same on every node. */
const SECRET_KEY = Buffer.alloc(32, 'a key that tests seal with').toString('base64');

/** Of nodes of which one dies: longer than a busy machine holds up those that live. */
export const LEASE_MS = 6000;
const LONG_LEASE_MS = 60_000; // of those that all live

export class Cluster {
  constructor() {
    this.nodes = [];
  }

  /**
   * flags: of every node; a list of lists: of each, which may then have roles and tiers of their own. standby: the database has one
   * that follows it, 'synchronous' or 'asynchronous'. settings: of postgresql.conf.
   */
  static async start(count, { flags = [], leaseMs = LONG_LEASE_MS, standby, settings } = {}) {
    const cluster = new Cluster();
    cluster.leaseMs = leaseMs;
    try {
      cluster.postgres = await Postgres.start({ settings });
      cluster.url = cluster.postgres.url;
      if (standby) await cluster.follow(standby);
      for (let i = 0; i < count; i++) await cluster.join(Array.isArray(flags[0]) ? flags[i] : flags);
      await cluster.settled();
    } catch (error) {
      await cluster.remove();
      throw error;
    }
    return cluster;
  }

  async follow(standby) {
    this.standby = await this.postgres.standby();
    this.url = Postgres.urlOf('shop', this.postgres, this.standby);
    if (standby === 'synchronous') await this.postgres.waitForStandby();
  }

  /** The primary dies for good, and the standby takes its place. */
  async failOver() {
    await this.postgres.kill();
    await this.standby.promote();
    [this.postgres, this.standby] = [this.standby, this.postgres];
  }

  /** options: of Server; url: how this node comes to the database. */
  async join(flags = [], { url = this.url, ...options } = {}) {
    const name = `node-${this.nodes.length + 1}`;
    const server = new Server({
      flags: [...LOOPBACK_FLAGS, '--store', url, '--node-name', name, '--node-lease-ms', String(this.leaseMs), ...flags],
      env: { POSTHORN_SECRET_KEY: SECRET_KEY },
      ...options,
    });
    server.name = name;
    server.damaged = true; // its store is not in its data folder
    this.nodes.push(server);
    await server.start();
    server.api = new Api(server);
    return server;
  }

  get living() {
    return this.nodes.filter((node) => node.running && !node.frozen);
  }

  /** {premium, standard, bulk} → number of the node, by partition; from the database. */
  async owners() {
    const rows = await this.postgres.sql('select p.tier, p.no, n.name from partitions p left join nodes n on n.no = p.node order by 1, 2');
    const owners = TIERS.map(() => []);
    for (const row of rows.split('\n')) {
      const [tier, no, name] = row.split('|');
      owners[Number(tier)][Number(no)] = name || null;
    }
    return Object.fromEntries(TIERS.map((tier, i) => [tier, owners[i]]));
  }

  /** How many partitions of a tier the node says that it owns. */
  async owned(node, tier = 'standard') {
    const { text } = await node.api.request('GET', '/metrics', { key: null });
    return Number(text.match(new RegExp(`^posthorn_partitions_owned\\{tier="${tier}"\\} (\\d+)`, 'm'))[1]);
  }

  /** Waits until these nodes share all partitions of a tier among them, none more than one above another. */
  async settled(nodes = this.living, tier = 'standard') {
    const delivers = (node) => !node.flags.includes('--roles') || node.flags.includes('deliver');
    const sends = (node) => delivers(node) && (!node.flags.includes('--tiers') || node.flags.join().includes(tier));
    let counts;
    await waitFor(
      async () => {
        counts = await Promise.all(nodes.filter(sends).map((node) => this.owned(node, tier)));
        const sum = counts.reduce((a, b) => a + b, 0);
        return sum === PARTITIONS && Math.max(...counts) - Math.min(...counts) <= 1;
      },
      { every: 50, what: () => `${nodes.map((node) => node.name)} to share the partitions of ${tier}, last ${counts}` },
    );
  }

  /**
   * Waits until what was changed so far in the control plane is in force on every node that lives and serves the API: until two keys, one
   * made after the other, open each of them. A node puts in force what it finds at one look, keys first, before it looks again. (What nodes
   * write down of it themselves comes with their heartbeats, some of which are a third of a long lease away.)
   */
  async agreed() {
    const nodes = this.living.filter((node) => !node.flags.includes('--roles') || node.flags.includes('api'));
    for (let i = 0; i < 2; i++) {
      const { key } = await nodes[0].api.expect(201, 'POST', '/v1/keys', { body: { scopes: ['admin'] } });
      for (const node of nodes) {
        await waitFor(async () => (await node.api.request('GET', '/v1/tenants?limit=1', { key })).status === 200, { what: `${node.name} to know a key` });
      }
    }
  }

  freeze(node) {
    node.frozen = true;
    node.child.kill('SIGSTOP');
  }

  wake(node) {
    node.frozen = false;
    node.child.kill('SIGCONT');
  }

  get log() {
    return this.nodes.map((node) => `---- ${node.name}\n${node.saidSince(0)}`).join('\n');
  }

  async remove() {
    for (const node of this.nodes) {
      if (node.frozen && node.running) this.wake(node);
      node.api?.agent.destroy();
      await node.remove();
    }
    await this.postgres?.remove();
    await this.standby?.remove();
  }
}
