// Numbers by the thousand: snowflakes and consecutive ones, without pauses.
//
// Of the snowflakes only the first and last are looked at, by the text of the answer: decoding it all would measure k6. Of the
// consecutive ones each batch has to be consecutive in itself, and the journal shows whether any two overlap.
// Objective: 1,000,000 numbers a second, with k6 on the same cores (a snowflake worker can do 4,096,000).

import { Counter, Rate } from 'k6/metrics';
import { common, gracefulStop, settings } from './lib/settings.js';
import { counted, fetch, register } from './lib/numgen.js';
import { Page, began, valueOf } from './lib/journal.js';
import { summary } from './lib/summary.js';

const COUNT = 1000;
const { users, duration, rate, p95, key } = settings({
  full: { users: 8, duration: '1m', rate: 1000000, p95: 50, key: 'BATCH' },
  short: { users: 4, duration: '8s', rate: 50000, p95: 1000, key: 'BATCH' },
});
const snowflakes = `${key}.IDS`;

/** Numbers that were answered, by mode. */
const numbers = new Counter('numbers');
/** Batches that are what was asked for. */
const whole = new Rate('whole');

const scenario = (exec, startTime) => ({ executor: 'constant-vus', vus: users, duration, startTime, gracefulStop, exec });

export const options = Object.assign({}, common, {
  scenarios: { snowflake: scenario('snowflake', '0s'), consecutive: scenario('consecutive', duration) },
  thresholds: {
    // Over the whole run, of which each scenario has half.
    'numbers{mode:snowflake}': [`rate>=${rate / 2}`],
    'numbers{mode:consecutive}': [`count>=${COUNT}`],
    failed: ['rate<0.001'],
    whole: ['rate==1'],
    http_req_duration: [`p(95)<${p95}`],
  },
});

export function setup() {
  register(snowflakes, { format: `${snowflakes}-{SEQ:19}` });
  register(key, { format: `${key}-{SEQ:9}` });
  began(key);
}

const first = new RegExp(`^\\{"numbers":\\["${snowflakes}-(\\d{19})"`);
const last = new RegExp(`"${snowflakes}-(\\d{19})"\\],"source":"primary"\\}$`);

export function snowflake() {
  const response = fetch(`/numbers/${snowflakes}?count=${COUNT}`);
  if (!counted(response)) return;
  const from = first.exec(response.body.slice(0, 80));
  const to = last.exec(response.body.slice(-80));
  whole.add(from !== null && to !== null && from[1] < to[1]);
  numbers.add(COUNT, { mode: 'snowflake' });
}

export function consecutive() {
  const response = fetch(`/numbers/${key}?count=${COUNT}`);
  if (!counted(response)) return;
  const answer = JSON.parse(response.body);
  const values = answer.numbers.map((number) => Number(valueOf(number)));
  whole.add(values.length === COUNT && values.every((value, at) => value === values[0] + at));
  numbers.add(COUNT, { mode: 'consecutive' });
  const page = new Page();
  page.batch(answer);
  page.close();
}

export const handleSummary = summary('batch');
