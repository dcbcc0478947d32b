// Authorities and certificates for tests, made with openssl in a folder that is removed afterwards.

import { execFile, spawnSync } from 'node:child_process';
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { temporaryFolder } from './server.mjs';

const openssl = (...args) => promisify(execFile)('openssl', args);
const NEW_KEY = ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** An authority: `file` is its certificate's path, `pem` the text, `issue(name)` makes {cert, key} for a name and 127.0.0.1. */
export async function authority(name) {
  const folder = await temporaryFolder();
  const at = (file) => join(folder, file);
  await openssl(...NEW_KEY, '-x509', '-days', '2', '-subj', `/CN=${name}`, '-keyout', at('ca.key'), '-out', at('ca.pem'));
  const issue = async (subject, { days = 2 } = {}) => {
    await openssl(...NEW_KEY, '-subj', `/CN=${subject}`, '-keyout', at(`${subject}.key`), '-out', at(`${subject}.csr`));
    await writeFile(at('san'), `subjectAltName=DNS:${subject},IP:127.0.0.1\n`);
    await openssl('x509', '-req', '-days', String(days), '-in', at(`${subject}.csr`), '-CA', at('ca.pem'), '-CAkey', at('ca.key'),
      '-CAcreateserial', '-extfile', at('san'), '-out', at(`${subject}.pem`));
    return { cert: await readFile(at(`${subject}.pem`), 'utf8'), key: await readFile(at(`${subject}.key`), 'utf8') };
  };
  return { file: at('ca.pem'), pem: await readFile(at('ca.pem'), 'utf8'), issue, remove: () => rm(folder, { recursive: true }) };
}

const SYSTEM = '/etc/ssl/certs'; // where Debian's libcurl looks, in the file and by the names that are hashes
const STAND_IN = ['unshare', '-Urm', 'sh', '-c', `mount --bind "$0" ${SYSTEM} && exec "$@"`];

/** Whether inPlaceOfSystem works here. */
export const CAN_STAND_IN = spawnSync(STAND_IN[0], [...STAND_IN.slice(1), '/tmp', 'true']).status === 0;

/** Makes this authority the only one that the system knows, for a server that runs `within`. */
export async function inPlaceOfSystem({ file }) {
  const folder = await temporaryFolder();
  const { stdout } = await openssl('x509', '-subject_hash', '-noout', '-in', file);
  for (const name of [`${stdout.trim()}.0`, 'ca-certificates.crt']) await copyFile(file, join(folder, name));
  return { within: [...STAND_IN, folder], remove: () => rm(folder, { recursive: true }) };
}
