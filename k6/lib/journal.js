// Every number that was answered, written down for the checker (accounts.py), which looks for repeated and missing ones.
//
// A line is a kind and its values, separated by spaces:
//
//   began KEY 1795349521000                when the rule was registered, in ms since 1970
//   answers [{"number": "LOAD-001001", ..}, ..]  as they came: decoding them takes k6 a while
//   primary 1001 1002 1007                 sequence values
//   batch 1001-2000                        a batch, first and last
//   segment 2002@1795349531234             with the time of the answer, where the store was not asked
//   temporary TMP~LOAD~node-1~...@1795349531234
//   failed 503 ...                         what went wrong (a few of them)
//
// k6 writes it (`--console-output FILE --log-format raw`); without that it is shown, so it is off unless JOURNAL=yes.

const on = __ENV.JOURNAL === 'yes';

export function began(key) {
  if (on) console.log(`began ${key} ${Date.now()}`);
}

/** The sequence value in a number whose format ends in `-{SEQ:N}`. */
export function valueOf(number) {
  return number.slice(number.lastIndexOf('-') + 1);
}

/** What one user was answered in one session; one line a session keeps k6 cheap. */
export class Page {
  constructor() {
    this.lines = {};
    this.bodies = [];
  }

  /** An answer as it came. */
  keep(body) {
    if (!on) return;
    if (body.includes('"source":"primary"')) this.bodies.push(body);
    else this.note(JSON.parse(body));
  }

  note(answer) {
    if (!on || answer === null) return;
    const { source, number } = answer;
    if (source === 'primary') this.put('primary', valueOf(number));
    else if (source === 'segment') this.put('segment', `${valueOf(number)}@${Date.now()}`);
    else this.put('temporary', `${number}@${Date.now()}`);
  }

  batch(answer) {
    if (!on || answer === null) return;
    this.put('batch', `${valueOf(answer.numbers[0])}-${valueOf(answer.numbers[answer.numbers.length - 1])}`);
  }

  put(kind, text) {
    (this.lines[kind] = this.lines[kind] || []).push(text);
  }

  close() {
    if (this.bodies.length > 0) console.log(`answers [${this.bodies.join(',')}]`);
    for (const [kind, values] of Object.entries(this.lines)) console.log(`${kind} ${values.join(' ')}`);
  }
}
