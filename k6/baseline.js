// The everyday load: 1,000 users for 5 minutes, who pause 40 to 120 ms at random, on a continuous prefix on Redis.
//
//   k6 run -e BASE_URL=http://127.0.0.1:8080 -e TOKEN=$(numgen token --scope admin) k6/baseline.js
//
// The 10,000 requests a second belong to a machine that does nothing else, so the short version leaves them out. What it
// keeps: nothing fails, no number is there twice (the journal), and a latency that only a service in trouble exceeds.

import { common, gracefulStop, settings } from './lib/settings.js';
import { register } from './lib/numgen.js';
import { began } from './lib/journal.js';
import { session } from './lib/session.js';
import { summary } from './lib/summary.js';

const { users, duration, pause, p95, rate, key } = settings({
  full: { users: 1000, duration: '5m', p95: 50, rate: 10000, key: 'LOAD' },
  short: { users: 200, duration: '15s', p95: 500, rate: 500, key: 'LOAD' },
});

export const options = Object.assign({}, common, {
  scenarios: { baseline: { executor: 'constant-vus', vus: users, duration, gracefulStop } },
  thresholds: {
    http_reqs: [`rate>=${rate}`],
    failed: ['rate<0.001'],
    http_req_duration: [`p(95)<${p95}`],
  },
});

export function setup() {
  register(key, { format: `${key}-{SEQ:6}` });
  began(key);
}

export default function () {
  session(`/numbers/${key}`, pause);
}

export const handleSummary = summary('baseline');
