// Certificates for tests, signed by themselves.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** Writes NAME.crt and NAME.key into a folder, for 127.0.0.1 and localhost; answers their paths. */
export async function makeCertificate(folder, name, { days = 2 } = {}) {
  const certificate = join(folder, `${name}.crt`);
  const key = join(folder, `${name}.key`);
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', `${days}`];
  const names = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
  await execute('openssl', [...request, ...names, '-out', certificate, '-keyout', key]);
  return { certificate, key };
}
