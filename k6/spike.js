// A sudden crowd: 100 users become 5,000 within 5 s, stay, and go again.
//
// Nothing may fail that a limit did not refuse. 10 s after the crowd has come, and 10 s after it has gone, the service has to be
// as quick as it was before it. Users pause 0.4 to 1.2 s: at the pace of the baseline 5,000 of them would ask for 62,500
// numbers a second, and one k6 on the cores of the service would be what is measured (PAUSE_MS=40-120, where there are cores).

import exec from 'k6/execution';
import { common, gracefulStop, profile, settings } from './lib/settings.js';
import { register } from './lib/numgen.js';
import { began } from './lib/journal.js';
import { session } from './lib/session.js';
import { summary } from './lib/summary.js';

const { users, pause, p95, key, calm, crowd } = settings({
  full: { users: 5000, calm: 30, crowd: 60, p95: 50, key: 'SPIKE', pause: '400-1200' },
  short: { users: 1000, calm: 4, crowd: 6, p95: 500, key: 'SPIKE', pause: '400-1200' },
});
const few = Math.min(100, users);
/** How long the service may take to get used to it. */
const settling = profile === 'short' ? 3 : 10;
const rise = 5;

// Where each phase ends, in seconds after the start; what lies between them is only counted.
const come = calm + rise;
const gone = come + crowd + 1;
const phases = [
  ['before', 0, calm],
  ['crowd', come + settling, come + crowd],
  ['after', gone + settling, Infinity],
];

function phase() {
  const at = (Date.now() - exec.scenario.startTime) / 1000;
  const now = phases.find(([, from, to]) => at >= from && at < to);
  return now ? now[0] : 'change';
}

export const options = Object.assign({}, common, {
  scenarios: {
    spike: {
      executor: 'ramping-vus',
      startVUs: few,
      stages: [
        { duration: `${calm}s`, target: few },
        { duration: `${rise}s`, target: users },
        { duration: `${crowd}s`, target: users },
        { duration: '1s', target: few },
        { duration: `${settling + calm}s`, target: few },
      ],
      gracefulRampDown: '60s',
      gracefulStop,
    },
  },
  thresholds: {
    failed: ['rate==0'],
    'http_req_duration{phase:before}': [`p(95)<${p95}`],
    'http_req_duration{phase:crowd}': [`p(95)<${p95}`],
    'http_req_duration{phase:after}': [`p(95)<${p95}`],
    'http_reqs{phase:crowd}': ['count>0'],
    'http_reqs{phase:after}': ['count>0'],
  },
});

export function setup() {
  register(key, { format: `${key}-{SEQ:6}` });
  began(key);
}

export default function () {
  // Short sessions: the crowd has to be able to go.
  session(`/numbers/${key}`, pause, phase, 3);
}

export const handleSummary = summary('spike');
