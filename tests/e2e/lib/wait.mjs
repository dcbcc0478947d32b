// Waiting for a condition, with a limit: tests never sleep for luck.

import { inspect } from 'node:util';

/** Far more than anything takes: a machine may be slow, or busy with other things. */
export const LIMIT_MS = 60_000;
/** For thousands of deliveries. */
export const LONG_LIMIT_MS = 180_000;

/**
 * Calls `condition` until it returns something truthy, and returns that. When the limit passes, fails
 * and says what was waited for and what came last. A condition may throw to give up at once.
 */
export async function waitFor(condition, { limit = LIMIT_MS, every = 20, what = String(condition) } = {}) {
  const until = Date.now() + limit;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > until) {
      const waitedFor = typeof what === 'function' ? what() : what;
      throw new Error(`gave up after ${limit} ms waiting for ${waitedFor} (last: ${inspect(value)})`);
    }
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}

/** A promise that someone else settles. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { opened, open };
}
