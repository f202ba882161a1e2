// Invoices: 1,000 users draw gapless numbers from one counter on PostgreSQL, with a key, as callers should.
//
// Of ten numbers one is asked for twice (the answer got lost, say), one is reserved and confirmed, one reserved and voided. The
// second answer has to be the first. At the end the ledger has to have exactly one row for each integer; the journal shows
// whether every number that was answered is in it once. Objectives: 850 numbers a second, p95 below 120 ms.

import { Rate } from 'k6/metrics';
import exec from 'k6/execution';
import { common, gracefulStop, settings } from './lib/settings.js';
import { call, issued, pause as rest, register } from './lib/numgen.js';
import { Page, began } from './lib/journal.js';
import { summary } from './lib/summary.js';

const { users, duration, pause, p95, rate, key } = settings({
  full: { users: 1000, duration: '5m', p95: 120, rate: 850, key: 'INVOICES' },
  short: { users: 50, duration: '15s', p95: 2000, rate: 25, key: 'INVOICES' },
});

/** Retries that were answered with the number of the first time; what was not answered has `failed`. */
const repeated = new Rate('repeated');
/** Steps of reservations that the ledger took. */
const settled = new Rate('settled');

export const options = Object.assign({}, common, {
  scenarios: { strict: { executor: 'constant-vus', vus: users, duration, gracefulStop } },
  thresholds: {
    issued: [`rate>=${rate}`],
    failed: ['rate<0.001'],
    repeated: ['rate==1'],
    settled: ['rate==1'],
    http_req_duration: [`p(95)<${p95}`],
  },
});

export function setup() {
  register(key, { format: `${key}-{SEQ:6}`, mode: 'strict' });
  began(key);
}

// k6 numbers its iterations from 0 in each run, so a run is part of the key, too.
const run = __ENV.RUN || String(Date.now());

const [ISSUE, RESERVE, CONFIRM, VOID] = [
  { prefix_key: key },
  { prefix_key: key, reserve_seconds: 600 },
  {},
  { reason: 'customer left' },
].map((body) => JSON.stringify(body));

export default function () {
  const page = new Page();
  // Looked up once: each look leaves JavaScript, and there are thousands a second.
  const session = `${run}-${exec.vu.idInTest}-${exec.vu.iterationInInstance}`;
  let numbers = 0;
  rest({ least: 0, most: pause.most });
  for (let sent = 0; sent < 20; sent += 1) {
    const lot = sent % 10;
    const reserve = lot === 4 || lot === 8;
    const body = reserve ? RESERVE : ISSUE;
    const extra = { 'Idempotency-Key': `${session}-${sent}` };
    const answer = call('POST', '/numbers', { body, extra });
    if (answer !== null) {
      numbers += 1;
      page.note(answer);
      if (lot === 2) {
        const again = call('POST', '/numbers', { body, extra });
        if (again !== null) repeated.add(again.number === answer.number);
      }
      if (reserve) {
        const step = lot === 4 ? ['confirm', CONFIRM] : ['void', VOID];
        const row = call('POST', `/numbers/${key}/${answer.number}/${step[0]}`, { body: step[1] });
        const state = lot === 4 ? 'issued' : 'void';
        if (row !== null) settled.add(row.number === answer.number && row.state === state);
      }
    }
    rest(pause);
  }
  issued.add(numbers);
  page.close();
}

export const handleSummary = summary('strict');
