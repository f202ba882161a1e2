// Redis is restarted under load, and nobody may notice but by `source`.
//
// Whoever runs this restarts Redis (tests/stages/load.sh does): AWAY_AT seconds after the line `began` it is stopped,
// and AWAY_FOR seconds later it is back. From then on the service has `bound` seconds to be normal again, which means that every
// number comes from the counter (`source` is `primary`). All along every request is answered with a number: from a
// segment, or a temporary one. That no number was there twice or is missing, the journal shows.
//
// With several nodes in BASE_URL the users of all of them draw from one counter.

import exec from 'k6/execution';
import { Rate } from 'k6/metrics';
import { common, gracefulStop, settings } from './lib/settings.js';
import { draw, issued, pause as rest, register } from './lib/numgen.js';
import { Page, began } from './lib/journal.js';
import { summary } from './lib/summary.js';

const { users, pause, p95, key, bound, after } = settings({
  full: { users: 500, p95: 50, key: 'RECOVERY', bound: 30, after: 60 },
  short: { users: 50, p95: 500, key: 'RECOVERY', bound: 20, after: 5 },
});
const awayAt = Number(__ENV.AWAY_AT || 5);
const awayFor = Number(__ENV.AWAY_FOR || 2);
const normalAt = awayAt + awayFor + bound;

/** Numbers that came from the counter itself. */
const primary = new Rate('primary');

export const options = Object.assign({}, common, {
  scenarios: { recovery: { executor: 'constant-vus', vus: users, duration: `${normalAt + after}s`, gracefulStop } },
  thresholds: {
    failed: ['rate<0.001'],
    'primary{phase:before}': ['rate==1'],
    // Without this the restart may not have happened.
    'primary{phase:away}': ['rate<1'],
    'primary{phase:after}': ['rate==1'],
    'http_req_duration{phase:before}': [`p(95)<${p95}`],
    'http_req_duration{phase:after}': [`p(95)<${p95}`],
  },
});

function phase() {
  const at = (Date.now() - exec.scenario.startTime) / 1000;
  if (at < awayAt - 1) return 'before';
  return at < normalAt ? 'away' : 'after';
}

export function setup() {
  register(key, { format: `${key}-{SEQ:6}`, on_outage: 'temporary' });
  began(key);
}

export default function () {
  const page = new Page();
  for (let sent = 0; sent < 20; sent += 1) {
    const now = phase();
    const answer = draw(`/numbers/${key}`, now);
    if (answer !== null) {
      issued.add(1);
      primary.add(answer.source === 'primary', { phase: now });
    }
    page.note(answer);
    rest(pause);
  }
  page.close();
}

export const handleSummary = summary('recovery');
