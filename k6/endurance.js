// A day's work: 500 users for 12 hours at the pace of the baseline, about 6,000 numbers a second.
//
// k6 keeps every measured time until its end, 70 bytes a request: 12 h in one run are 18 GB. So `make load` runs it in slices
// of half an hour (SLICE) against the same service, one after the other, and watches the memory of the service
// all the time: it may be 5 % more at the end than it was when it had warmed up. The short version of 15 s is too short for
// that; it says what it saw, and fails when the memory has grown by half.

import { common, gracefulStop, settings } from './lib/settings.js';
import { register } from './lib/numgen.js';
import { began } from './lib/journal.js';
import { session } from './lib/session.js';
import { summary } from './lib/summary.js';

const { users, duration, pause, p95, key } = settings({
  full: { users: 500, duration: '30m', p95: 50, key: 'DAY' },
  short: { users: 100, duration: '15s', p95: 500, key: 'DAY' },
});

export const options = Object.assign({}, common, {
  scenarios: { endurance: { executor: 'constant-vus', vus: users, duration, gracefulStop } },
  thresholds: {
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

export const handleSummary = summary('endurance');
