// What most users do: ask for a number, pause, ask for the next.

import { draw, issued, pause } from './numgen.js';
import { Page } from './journal.js';

/** Requests of a session: an iteration of k6 is one session, and counts and writes once. A session that is cut off would not. */
const REQUESTS = 20;

/** `phase`, if given, says in which part of the run a request falls. */
export function session(path, pauses, phase = null, requests = REQUESTS) {
  // k6 looks an imported name up by its text, each time.
  const [page, ask, rest] = [new Page(), draw, pause];
  let numbers = 0;
  // Users arrive one after the other, too.
  rest({ least: 0, most: pauses.most });
  for (let sent = 0; sent < requests; sent += 1) {
    const answer = ask(path, phase === null ? '' : phase());
    if (answer !== null) {
      numbers += 1;
      page.note(answer);
    }
    rest(pauses);
  }
  issued.add(numbers);
  page.close();
}
