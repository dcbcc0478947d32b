// A store that stands still.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

/** Holds the store's write lock as another program would: what a disk that stalls looks like. Answers how to let go. */
export async function stallStore(server) {
  const child = spawn('sqlite3', ['-cmd', '.timeout 20000', join(server.data, 'posthorn.db')], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.write("BEGIN IMMEDIATE;\nSELECT 'held';\n");
  await once(child.stdout, 'data');
  return async () => {
    child.stdin.end('ROLLBACK;\n');
    await once(child, 'close');
  };
}
