// What most users do: ask for a number, pause, ask for the next.

import { draw, issued, pause } from './numgen.js';
import { Page } from './journal.js';

/** Requests of a session: an iteration of k6 is one session, and counts and writes once. A session that is cut off would not. */
const REQUESTS = 20;

/** `phase`, if given, says in which part of the run a request falls. */
export function session(path, pauses, phase = () => '', requests = REQUESTS) {
  const page = new Page();
  let numbers = 0;
  // Users arrive one after the other, too.
  pause({ least: 0, most: pauses.most });
  for (let sent = 0; sent < requests; sent += 1) {
    const answer = draw(path, phase());
    if (answer !== null) numbers += 1;
    page.note(answer);
    pause(pauses);
  }
  issued.add(numbers);
  page.close();
}
