// The service as its callers see it: rules, numbers, and what counts as a failure.

import http from 'k6/http';
import exec from 'k6/execution';
import { sleep } from 'k6';
import { Counter, Rate } from 'k6/metrics';
import { bases, token } from './settings.js';

// What failed is counted below, where it is known what a limit refused.
http.setResponseCallback(null);

/** Requests that had no good answer, but for those that a limit refused. */
export const failed = new Rate('failed');
/** Requests that a limit refused: 429, or 503 `Overloaded`. */
export const refused = new Counter('refused');
/** Numbers that were answered. */
export const issued = new Counter('issued');

// An imported name is looked up by its text each time that it is used.
const { get, request } = http;
const [tell, wait, { parse }, { random }] = [failed.add.bind(failed), sleep, JSON, Math];

const authorized = { Authorization: `Bearer ${token}` };
const headers = Object.assign({ 'Content-Type': 'application/json' }, authorized);

let ownNode;
/** The node that this user talks to: each user has the variables of this file to itself. */
export function home() {
  return ownNode || (ownNode = bases[exec.vu.idInTest % bases.length]);
}

/** Waits as a person does: equal pauses would march in step. */
export function pause({ least, most }) {
  wait((least + random() * (most - least)) / 1000);
}

/** Registers a rule, and waits until every node has it. */
export function register(key, rule) {
  const answer = http.put(`${bases[0]}/prefix-configs/${key}`, JSON.stringify(rule), { headers });
  if (answer.status !== 200) {
    exec.test.abort(`PUT /prefix-configs/${key} was answered ${answer.status}: ${answer.body}`);
  }
  for (const base of bases) {
    for (let tries = 0; http.get(`${base}/prefix-configs/${key}`, { headers }).status !== 200; tries += 1) {
      if (tries === 100) exec.test.abort(`${base} has not taken in the rule ${key} within 10 s`);
      sleep(0.1);
    }
  }
}

/** Asks for numbers by any path, which is only tagged by its scenario. Returns the answer of k6. */
export function fetch(path) {
  return get(home() + path, readingIn(''));
}

/** A request with all that it takes; `body` is JSON already. Returns the decoded answer, or null. */
export function call(method, path, { body = null, extra = null } = {}) {
  const sent = { headers: extra === null ? headers : Object.assign({}, headers, extra) };
  return judge(request(method, home() + path, body, sent));
}

/** Where `ask` asks, and what it sends, by phase: made once, since a thousand users ask ten thousand times a second. */
const targets = {};
const reading = {};
function readingIn(phase) {
  return reading[phase] || (reading[phase] = phase ? { headers: authorized, tags: { phase } } : { headers: authorized });
}

/** The hot path: one number. `phase` tags what is measured. Returns a good answer as it was sent, or null. */
export function ask(path, phase = '') {
  const sent = readingIn(phase);
  const target = targets[path] || (targets[path] = http.url([home() + path]));
  const response = get(target, sent);
  return counted(response, sent.tags) ? response.body : null;
}

/** The same, decoded. */
export function draw(path, phase) {
  const body = ask(path, phase);
  return body === null ? null : parse(body);
}

/** Counts an answer. True if it is a good one. */
export function counted(response, tags) {
  // Each look at a response is a call out of JavaScript.
  const { status } = response;
  if (status === 200) {
    tell(false, tags);
    return true;
  }
  const limited = status === 429 || (status === 503 && /"code":"Overloaded"/.test(response.body));
  tell(!limited, tags);
  if (limited) refused.add(1, tags);
  else complain(response);
  return false;
}

/** Counts an answer, and decodes a good one. */
function judge(response, tags) {
  return counted(response, tags) ? parse(response.body) : null;
}

let complaints = 0;
/** Says what went wrong, three times for each user: the rest is more of the same. */
function complain(response) {
  complaints += 1;
  if (complaints <= 3) {
    console.warn(`failed ${response.status} ${response.error || ''} ${String(response.body).slice(0, 300)}`);
  }
}
