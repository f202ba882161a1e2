#!/usr/bin/env python3
"""Looks through the journals of a run (lib/journal.js) for numbers that are there twice, or missing.

    accounts.py --url http://127.0.0.1:8080 --token TOKEN JOURNAL ...                 a continuous counter
    accounts.py --mode strict --url ... --token ... JOURNAL ...                       a ledger
    accounts.py --back 1795349531234 --within 30 --url ... --token ... JOURNAL ...    also: how soon it was normal again

The key must have been fresh when the first journal began. Of a continuous counter each value up to `last_value` has to have been
answered once, or to be held by a node, or to be a hole with a reason; none that was answered may be in a hole that
says it went to nobody. Temporary numbers have to be different, and listed. Exit code 1 where something does not hold.
"""

import argparse
import json
import sys
import time
import urllib.request

# What `GET /sequences` says of values that may, for all that the service knows, have reached a caller.
PERHAPS_ISSUED = {"skipped", "unconfirmed"}
# Of a restart that lost nothing, with every node there, no more than this may be left over.
HARMLESS = {"returned", "unconfirmed", "pending"}


class Journal:
    """The answers of all users. A counter begins at 1, so a byte for each value is enough."""

    def __init__(self, paths):
        self.key = None
        self.times_answered = bytearray(1)
        self.repeated = []
        self.answered = 0
        self.temporary = []
        self.degraded_ms = []
        self.complaints = []
        for path in paths:
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    self.read(line.rstrip("\n"))

    def read(self, line):
        kind, _, rest = line.partition(" ")
        if kind == "primary":
            for value in rest.split():
                self.add(int(value))
        elif kind == "answers":
            for answer in json.loads(rest):
                self.add(int(answer["number"].rpartition("-")[2]))
        elif kind == "batch":
            for batch in rest.split():
                first, last = batch.split("-")
                for value in range(int(first), int(last) + 1):
                    self.add(value)
        elif kind == "segment":
            for value, at_ms in self.timed(rest):
                self.add(int(value))
                self.degraded_ms.append(at_ms)
        elif kind == "temporary":
            for number, at_ms in self.timed(rest):
                self.temporary.append(number)
                self.degraded_ms.append(at_ms)
        elif kind == "began":
            self.key = rest.split()[0]
        else:
            self.complaints.append(line)

    @staticmethod
    def timed(rest):
        for item in rest.split():
            value, _, at_ms = item.rpartition("@")
            yield value, int(at_ms)

    def add(self, value):
        if value >= len(self.times_answered):
            self.times_answered.extend(bytes(max(value + 1 - len(self.times_answered), 1 << 20)))
        if self.times_answered[value]:
            self.repeated.append(value)
        self.times_answered[value] = 1
        self.answered += 1

    def has(self, value):
        return value < len(self.times_answered) and self.times_answered[value] == 1


class Service:
    def __init__(self, url, token):
        self.url, self.token = url, token

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def temporary_numbers(self):
        after = ""
        while after is not None:
            page = self.get(f"/temporary-numbers?status=open&limit=1000{'&after=' + after if after else ''}")
            yield from (row["number"] for row in page["rows"])
            after = page.get("next")


class Findings:
    def __init__(self):
        self.held = True

    def say(self, holds, text):
        print(f"  {'ok    ' if holds else 'FAILED'} {text}")
        self.held = self.held and holds


def some(values):
    return ", ".join(map(str, values[:10])) + (" ..." if len(values) > 10 else "")


def check_continuous(journal, service, findings, allowed):
    counters = service.get(f"/sequences/{journal.key}")["counters"]
    if len(counters) != 1:
        findings.say(False, f"{journal.key} has {len(counters)} counters, not 1")
        return
    counter = counters[0]
    last = int(counter["last_value"])
    # What became of a value that nobody was answered: `explained` holds the reason of each.
    explained, contradicted, reasons = {}, [], {}
    for hole in counter["holes"]:
        for value in range(int(hole["from"]), int(hole["to"]) + 1):
            explained[value] = hole["reason"]
            reasons[hole["reason"]] = reasons.get(hole["reason"], 0) + 1
            if hole["reason"] not in PERHAPS_ISSUED and journal.has(value):
                contradicted.append(value)
    ahead = set()
    for segment in counter["segments"]:
        values = range(int(segment["from"]), int(segment["to"]) + 1)
        ahead.update(values)
        if segment["state"] != "used":
            explained.update((value, segment["state"]) for value in values)
    missing = [value for value in range(1, last + 1) if not journal.has(value) and value not in explained]
    beyond = [value for value in range(last + 1, len(journal.times_answered)) if journal.has(value) and value not in ahead]
    findings.say(not missing, f"up to {last} each value was answered, is held or is a hole: {len(missing)} are not {some(missing)}")
    findings.say(not beyond, f"above it only values of segments were answered: {len(beyond)} others {some(beyond)}")
    findings.say(not contradicted, f"{len(contradicted)} answered values are listed as issued to nobody {some(contradicted)}")
    unexpected = sorted(set(reasons) - allowed)
    findings.say(not unexpected, f"holes: {reasons or 'none'}")


def check_strict(journal, service, findings):
    certificate = service.get(f"/ledger/{journal.key}/certificate")
    first, last, count = int(certificate["first"]), int(certificate["last"]), int(certificate["count"])
    findings.say(first == 1 and count == last and not certificate["holes"],
                 f"the ledger has {count} rows for {first} to {last}, holes {certificate['holes']}")
    findings.say(sum(certificate["states"].values()) == count, f"states add up: {certificate['states']}")
    beyond = [value for value in range(last + 1, len(journal.times_answered)) if journal.has(value)]
    findings.say(not beyond, f"{len(beyond)} answered values have no row {some(beyond)}")
    print(f"         {count - journal.answered} rows belong to answers that no user has seen")


def check_temporary(journal, service, findings):
    findings.say(len(set(journal.temporary)) == len(journal.temporary),
                 f"{len(journal.temporary)} temporary numbers, all different")
    if journal.temporary:
        # Nodes hand them over by and by.
        for _ in range(10):
            unlisted = set(journal.temporary) - set(service.temporary_numbers())
            if not unlisted:
                break
            time.sleep(1)
        findings.say(not unlisted, f"{len(unlisted)} of them are not listed {some(sorted(unlisted))}")


def check_return(journal, back_ms, within_s, findings):
    if not journal.degraded_ms:
        findings.say(False, "no answer came from elsewhere than the counter: Redis was not away")
        return
    seconds = (max(journal.degraded_ms) - back_ms) / 1000
    findings.say(seconds <= within_s, f"the last number from elsewhere came {seconds:.1f} s after Redis was back (bound: {within_s:g} s)")


def answers_in(figures):
    """What k6 has counted: a line of the journal that got lost would look like a number that is missing."""
    with open(figures, encoding="utf-8") as text:
        metrics = json.load(text)["metrics"]
    counter = metrics.get("numbers{mode:consecutive}") or metrics["issued"]
    return int(counter["values"]["count"])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("journals", nargs="+", metavar="JOURNAL")
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--token", required=True)
    arguments.add_argument("--mode", choices=["continuous", "strict"], default="continuous")
    arguments.add_argument("--figures", action="append", metavar="JSON", help="the summaries of k6 that belong to the journals")
    arguments.add_argument("--back", type=int, metavar="MS", help="when Redis was back, in ms since 1970")
    arguments.add_argument("--within", type=float, default=30, metavar="S")
    given = arguments.parse_args()
    journal = Journal(given.journals)
    if journal.key is None or journal.answered == 0:
        sys.exit("accounts.py: the journal is empty: was k6 run with JOURNAL=yes?")
    service = Service(given.url, given.token)
    findings = Findings()
    print(f"accounts of {journal.key}: {journal.answered} answered values")
    if given.figures:
        counted = sum(answers_in(path) for path in given.figures)
        written = journal.answered + len(journal.temporary)
        findings.say(counted == written, f"k6 counted {counted} numbers, the journal has {written}")
    findings.say(not journal.repeated, f"{len(journal.repeated)} were answered twice {some(journal.repeated)}")
    if given.mode == "strict":
        check_strict(journal, service, findings)
    else:
        check_continuous(journal, service, findings, HARMLESS)
    check_temporary(journal, service, findings)
    if given.back is not None:
        check_return(journal, given.back, given.within, findings)
    for complaint in journal.complaints[:10]:
        print(f"         {complaint}")
    sys.exit(0 if findings.held else 1)


if __name__ == "__main__":
    main()
