// What most users do: ask for a number, pause, ask for the next.

import { ask, issued, pause } from './numgen.js';
import { Page } from './journal.js';

/** Requests of a session: an iteration of k6 is one session, and counts and writes once. A session that is cut off would not. */
const REQUESTS = 20;

/** `phase`, if given, says in which part of the run a request falls. */
export function session(path, pauses, phase = null, requests = REQUESTS) {
  // k6 looks an imported name up by its text, each time.
  const [page, one, rest] = [new Page(), ask, pause];
  let numbers = 0;
  // Users arrive one after the other, too.
  rest({ least: 0, most: pauses.most });
  for (let sent = 0; sent < requests; sent += 1) {
    const body = one(path, phase === null ? '' : phase());
    if (body !== null) {
      numbers += 1;
      page.keep(body);
    }
    rest(pauses);
  }
  issued.add(numbers);
  page.close();
}
