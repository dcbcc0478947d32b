// With POSTHORN_E2E_STORE, the URL of a PostgreSQL (tests/tools/postgres), each server's store is a database of its own there
// instead of a file in its data folder: the same tests on the other store.

import pg from 'pg';

const ADMIN = process.env.POSTHORN_E2E_STORE;

export const onSharedStore = ADMIN !== undefined;

/** For `skip`: what is true of a store that is a file of one process, and cannot be of a shared one. */
export const ONLY_A_FILE = onSharedStore && 'this store is no file of one process';

/** 'postgres://postgres@/postgres?host=/tmp/x' with another database. */
function urlOf(name) {
  return ADMIN.replace(/^(postgres(?:ql)?:\/\/[^/]*\/)[^?]*/, `$1${name}`);
}

async function administer(...statements) {
  const { searchParams, username } = new URL(ADMIN.replace('@/', '@localhost/'));
  const client = new pg.Client({ host: searchParams.get('host'), user: username, database: 'postgres' });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

/** The database that goes with a data folder: it is made when it is missing. */
export class SharedStore {
  static async of(folder) {
    if (!onSharedStore) return null;
    const store = new SharedStore();
    store.name = `e2e_${folder.replace(/[^A-Za-z0-9]/g, '_').slice(-50).toLowerCase()}`;
    store.url = urlOf(store.name);
    try {
      await administer(`CREATE DATABASE ${store.name}`);
    } catch (error) {
      if (error.code !== '42P04') throw error; // it is there already: a restart
    }
    return store;
  }

  async remove() {
    await administer(`DROP DATABASE IF EXISTS ${this.name} WITH (FORCE)`);
  }
}
