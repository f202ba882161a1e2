//! The rules one by one; `tests/models/windows.rs` tries them all together.

use super::*;

const A: Nonce = Nonce([1; 16]);
const B: Nonce = Nonce([2; 16]);
const SETTLING: u64 = Terms::SHARED.settling_ms;
const MARGIN: u64 = Terms::SHARED.margin_ms;
const WINDOW: u64 = 30_000;
const TTL: u64 = 15_000;

/// A store and its circumstances.
struct Bench {
    terms: Terms,
    slots: Slots,
    now: IdMillis,
    server: u64,
    memories: u64,
    company: Company,
}

impl Bench {
    fn exclusive(now: IdMillis) -> Self {
        Self {
            terms: Terms::EXCLUSIVE,
            slots: Slots::default(),
            now,
            server: 1,
            memories: 0,
            company: Company::Alone,
        }
    }

    /// A shared store that has settled.
    fn shared(now: IdMillis) -> Self {
        let mut bench = Self { terms: Terms::SHARED, ..Self::exclusive(now - SETTLING) };
        assert!(matches!(bench.ask(A, 0..0), Acquired::Wait(_)));
        bench.now = now;
        bench
    }

    fn contact(&mut self) -> Contact {
        self.memories += 1;
        let server = ServerId(self.server);
        Contact {
            now: self.now,
            presence_ms: self.now,
            server,
            company: self.company,
            fresh: Generation(self.memories),
        }
    }

    fn ask(&mut self, nonce: Nonce, slots: std::ops::Range<u32>) -> Acquired {
        let contact = self.contact();
        let request = AcquireRequest { nonce, slots, window_ms: WINDOW, ttl_ms: TTL, tenure: Tenure::Lease };
        self.slots.acquire(&self.terms, &request, &contact)
    }

    fn acquire(&mut self, nonce: Nonce) -> Holding {
        let Acquired::Held(holding) = self.ask(nonce, 0..1) else { panic!("no slot") };
        holding
    }

    fn acquire_as(&mut self, nonce: Nonce, tenure: Tenure) -> Holding {
        let contact = self.contact();
        let request = AcquireRequest { nonce, slots: 0..1, window_ms: WINDOW, ttl_ms: TTL, tenure };
        let Acquired::Held(holding) = self.slots.acquire(&self.terms, &request, &contact) else {
            panic!("no slot")
        };
        holding
    }

    fn renew_on(&mut self, holding: &Holding, tenure: Tenure) -> Renewed {
        let contact = self.contact();
        let extension = Extension { carried: self.now, window_ms: WINDOW, ttl_ms: TTL, tenure };
        self.slots.renew(&self.terms, holding, &extension, &contact)
    }

    fn renew_as(&mut self, holding: &Holding, carried: IdMillis) -> Renewed {
        let contact = self.contact();
        let extension = Extension { carried, window_ms: WINDOW, ttl_ms: TTL, tenure: Tenure::Lease };
        self.slots.renew(&self.terms, holding, &extension, &contact)
    }

    /// The mark after a renewal, `None` where the holding is lost.
    fn renew(&mut self, holding: &mut Holding) -> Option<IdMillis> {
        let Renewed::Extended { mark, generation, .. } = self.renew_as(holding, self.now) else {
            return None;
        };
        *holding = Holding { mark, generation, ..*holding };
        Some(mark)
    }

    fn release(&mut self, holding: &Holding, last: IdMillis) {
        let contact = self.contact();
        self.slots.release(&self.terms, holding, last, &contact);
    }
}

#[test]
fn the_next_window_starts_where_the_last_one_ends() {
    let mut bench = Bench::exclusive(100_000);
    let first = bench.acquire(A);
    assert_eq!((first.start, first.mark, first.fence), (0, 130_000, 1));
    bench.now = 200;
    bench.slots.slots.get_mut(&0).unwrap().expires_ms = 0;
    let second = bench.acquire(B);
    assert_eq!(
        (second.start, second.mark, second.fence),
        (130_000, 160_000, 2),
        "even on a clock that stepped back"
    );
    assert_eq!(bench.renew_as(&first, 200), Renewed::Lost, "to B");
}

#[test]
fn a_slot_rests_until_its_mark_has_passed() {
    let mut bench = Bench::shared(100_000);
    let first = bench.acquire(A);
    bench.now = first.mark - 1;
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot, "its holder may be paused");
    bench.now = first.mark;
    assert_eq!(bench.acquire(B).start, first.mark);
}

#[test]
fn a_wild_clock_moves_the_mark_only_as_far_as_the_holder_believes() {
    let mut bench = Bench::shared(100_000);
    let holding = bench.acquire(A);
    bench.now = 129_000;
    let Renewed::Extended { mark, .. } = bench.renew_as(&holding, 101_000) else { panic!("lost") };
    assert_eq!(mark, 101_000 + 5_000 + WINDOW);
    let Renewed::Extended { mark: after, .. } = bench.renew_as(&holding, 7) else { panic!("lost") };
    assert_eq!(after, mark, "never falls");
}

#[test]
fn a_clock_that_was_set_back_does_not_end_issuing() {
    let mut bench = Bench::shared(10_000_000);
    let holding = bench.acquire(A);
    bench.now = 1_000_000;
    let Renewed::Extended { mark, .. } = bench.renew_as(&holding, 10_020_000) else { panic!("lost") };
    assert_eq!(mark, 10_020_000 + WINDOW, "the holder's clock has gone on");
}

#[test]
fn a_mark_that_has_passed_frees_the_slot() {
    let mut bench = Bench::shared(100_000);
    let mut holding = bench.acquire(A);
    bench.now = holding.mark;
    assert_eq!(bench.renew(&mut holding), None);
    let next = bench.acquire(B);
    assert_eq!(next.start, holding.mark, "what was allowed stays allowed once");
}

#[test]
fn release_gives_back_what_was_not_used() {
    let mut bench = Bench::shared(100_000);
    let holding = bench.acquire(A);
    bench.release(&Holding { nonce: B, ..holding }, 100_001);
    bench.release(&Holding { fence: 7, ..holding }, 100_001);
    bench.release(&Holding { generation: Generation(99), ..holding }, 100_001);
    assert_eq!(bench.slots.slots[&0].mark, holding.mark, "not theirs to release");
    bench.now = 100_010;
    bench.release(&holding, 100_005);
    let next = bench.acquire(B);
    assert_eq!(next.start, 100_005);
    bench.release(&next, 7);
    assert_eq!(bench.slots.slots[&0].mark, 100_005, "never below the start");
}

#[test]
fn an_empty_store_settles_before_anybody_acquires() {
    let mut bench = Bench { terms: Terms::SHARED, ..Bench::exclusive(100_000) };
    assert_eq!(bench.ask(A, 0..1), Acquired::Wait(Duration::from_secs(5)));
    bench.now += SETTLING - 1;
    assert_eq!(bench.ask(B, 0..1), Acquired::Wait(Duration::from_millis(1)), "it binds everybody");
    bench.now = 3_000;
    assert_eq!(bench.ask(B, 0..1), Acquired::Wait(Duration::from_secs(5)), "a clock set back begins anew");
    bench.now += SETTLING;
    assert!(matches!(bench.ask(B, 0..1), Acquired::Held(_)));
    bench.now = 4_000;
    assert!(matches!(bench.ask(A, 1..2), Acquired::Held(_)), "what is settled stays settled");
}

#[test]
fn what_a_store_forgot_is_put_back_and_not_extended_while_it_settles() {
    let mut bench = Bench::shared(100_000);
    let mut holding = bench.acquire(A);
    bench.now += 1_000;
    let before = bench.renew(&mut holding);
    bench.slots = Slots::default();
    bench.now += 1_000;
    assert_eq!(bench.renew(&mut holding), before);
    bench.now += SETTLING - 1;
    assert_eq!(bench.renew(&mut holding), before);
    bench.now += 1;
    assert_eq!(bench.renew(&mut holding), Some(bench.now + WINDOW));
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot);
    assert_eq!((bench.slots.slots[&0].fence, bench.slots.slots[&0].start), (holding.fence, holding.start));
}

#[test]
fn the_later_holding_wins() {
    let mut bench = Bench::shared(1_000_000);
    let mut early = bench.acquire(A);
    let dump = bench.slots.clone();
    bench.now += 10;
    bench.release(&early, 1_000_005);
    let mut late = bench.acquire(B);
    (bench.slots, bench.server) = (dump, 2);
    assert!(bench.renew(&mut late).is_some(), "the dump knows nothing of it");
    assert_eq!(bench.renew(&mut early), None);
    assert!(bench.renew(&mut late).is_some());
}

#[test]
fn a_holding_whose_mark_has_passed_is_not_put_back() {
    let mut bench = Bench::shared(1_000_000);
    let mut holding = bench.acquire(A);
    bench.slots = Slots::default();
    bench.now = holding.mark;
    assert_eq!(bench.renew(&mut holding), None);
}

#[test]
fn who_comes_after_somebody_else_was_let_in_is_lost() {
    let mut bench = Bench::shared(1_000_000);
    let mut early = bench.acquire(A);
    early.fence = 9;
    bench.slots = Slots::default();
    assert!(matches!(bench.ask(B, 0..1), Acquired::Wait(_)));
    bench.now += SETTLING;
    let mut late = bench.acquire(B);
    assert_eq!(bench.renew(&mut early), None, "it has missed the settling");
    assert!(bench.renew(&mut late).is_some());
}

#[test]
fn another_server_may_have_forgotten_the_end_of_a_mark() {
    let mut bench = Bench::shared(1_000_000);
    let holding = bench.acquire(A);
    bench.server = 2;
    bench.now = holding.mark;
    assert!(matches!(bench.ask(B, 0..1), Acquired::Wait(_)));
    bench.now = holding.mark + MARGIN - 1;
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot);
    bench.now += 1;
    assert_eq!(bench.acquire(B).start, holding.mark + MARGIN);
}

#[test]
fn a_server_that_its_replicas_have_just_left_hands_nothing_out() {
    let mut bench = Bench::shared(1_000_000);
    let mut early = bench.acquire(A);
    bench.company = Company::Followed;
    assert!(bench.renew(&mut early).is_some());
    bench.company = Company::Alone;
    bench.now += Terms::SHARED.deserted_ms - 1;
    assert_eq!(bench.ask(B, 1..2), Acquired::Wait(Duration::from_millis(1)));
    assert_eq!(bench.ask(A, 0..1), Acquired::Wait(Duration::from_millis(1)), "perhaps it was not confirmed");
    assert!(bench.renew(&mut early).is_some(), "who holds something goes on");
    bench.now += 1;
    assert!(matches!(bench.ask(B, 1..2), Acquired::Held(_)));
    bench.now -= 500_000;
    assert!(matches!(bench.ask(B, 1..2), Acquired::Held(_)), "a clock that is set back does not draw it out");
}

#[test]
fn who_was_promoted_needs_no_follower() {
    let mut bench = Bench::shared(1_000_000);
    bench.company = Company::Followed;
    bench.acquire(A);
    (bench.company, bench.server) = (Company::Alone, 2);
    assert_eq!(bench.ask(B, 1..2), Acquired::Wait(Duration::from_millis(SETTLING)));
    bench.now += SETTLING;
    assert!(matches!(bench.ask(B, 1..2), Acquired::Held(_)));
}

#[test]
fn a_memory_that_was_left_is_not_heeded_until_nothing_is_left_to_issue() {
    let mut bench = Bench::shared(1_000_000);
    let mut holder = Holder::new(A);
    holder.acquired(&Terms::SHARED, A, bench.ask(A, 0..1), 0);
    let before = holder.held().expect("held");
    let behind = Bench { slots: bench.slots.clone(), ..Bench::shared(1_000_000) };
    bench.server = 2;
    let answer = bench.renew_as(&before, bench.now);
    assert!(
        matches!(holder.renewed(&Terms::SHARED, &before, answer, 0, B), Next::Issue(_)),
        "the new master"
    );
    let held = holder.held().expect("held");
    assert_ne!(held.generation, before.generation);
    bench = behind;
    bench.now += 10;
    let answer = bench.renew_as(&held, bench.now);
    let Renewed::Extended { mark, .. } = answer else { panic!("the old master knows it") };
    assert!(mark > held.mark);
    assert_eq!(holder.renewed(&Terms::SHARED, &held, answer, 0, B), Next::Ignore);
    assert_eq!(holder.held(), Some(held), "its mark is what the new master knows");
    bench.now = held.mark;
    let answer = bench.renew_as(&held, bench.now);
    assert_eq!(holder.renewed(&Terms::SHARED, &held, answer, 0, B), Next::Stop, "nobody else answers");
    assert_eq!((holder.held(), holder.nonce()), (None, B));
}

#[test]
fn an_old_answer_is_dropped_and_the_nonce_asked_again() {
    let mut bench = Bench::shared(1_000_000);
    let mut holder = Holder::new(A);
    let answer = bench.ask(A, 0..1);
    assert_eq!(holder.acquired(&Terms::SHARED, A, answer, 1_001), Next::Ignore);
    assert_eq!(holder.acquired(&Terms::SHARED, B, answer, 0), Next::Ignore, "sent for another holding");
    let again = bench.ask(holder.nonce(), 0..1);
    assert_eq!(again, answer);
    assert!(matches!(holder.acquired(&Terms::SHARED, A, again, 1_000), Next::Issue(_)));
}

#[test]
fn a_late_answer_does_not_revive_a_holding() {
    let mut bench = Bench::shared(1_000_000);
    let mut holder = Holder::new(A);
    holder.acquired(&Terms::SHARED, A, bench.ask(A, 0..1), 0);
    let held = holder.held().expect("held");
    let late = bench.renew_as(&held, bench.now);
    assert_eq!(holder.give_up(B), Some(held));
    assert_eq!(holder.renewed(&Terms::SHARED, &held, late, 0, A), Next::Ignore);
    assert_eq!((holder.held(), holder.nonce()), (None, B));
    let next = bench.ask(B, 1..2);
    holder.acquired(&Terms::SHARED, B, next, 0);
    assert_eq!(
        holder.renewed(&Terms::SHARED, &held, Renewed::Lost, 0, A),
        Next::Ignore,
        "the one before was lost, not this"
    );
}

#[test]
fn a_late_request_does_not_vouch_for_the_mark_that_it_puts_back() {
    let mut bench = Bench::shared(1_000_000);
    let mut holding = bench.acquire(A);
    let late = holding;
    bench.now += 1_000;
    let believed = bench.renew(&mut holding).expect("renewed");
    bench.slots = Slots::default();
    assert!(matches!(bench.renew_as(&late, bench.now), Renewed::Extended { .. }));
    bench.now = late.mark;
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot, "the holder believes in {believed}");
    bench.now = late.mark + MARGIN;
    assert_eq!(bench.acquire(B).start, late.mark + MARGIN);
}

/// A fixed holder goes on for as long as the store is away, so no time is long enough.
#[test]
fn no_lease_follows_a_fixed_holder_that_has_not_given_up() {
    let mut bench = Bench::shared(1_000_000);
    let mut fixed = bench.acquire_as(A, Tenure::Fixed);
    bench.now = fixed.mark + 10 * MARGIN;
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot);
    let contact = bench.contact();
    assert_eq!(bench.slots.free(&Terms::SHARED, 0..1, &contact), 0);
    assert_eq!(bench.renew_on(&fixed, Tenure::Fixed), Renewed::Lost, "its mark has passed");
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot, "and yet it issues");
    fixed = bench.acquire_as(A, Tenure::Fixed);
    // As one who confirms does, and refuses.
    bench.release(&fixed, bench.now);
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot, "handed back, not given up");
    fixed = bench.acquire_as(A, Tenure::Fixed);
    assert!(matches!(bench.renew_on(&fixed, Tenure::Lease), Renewed::Extended { .. }));
    let last = bench.now + 10;
    bench.release(&fixed, last);
    bench.now = last;
    assert_eq!(bench.acquire(B).start, last);
}

#[test]
fn a_fixed_holder_whose_mark_has_passed_can_give_up() {
    let mut bench = Bench::shared(1_000_000);
    let fixed = bench.acquire_as(A, Tenure::Fixed);
    bench.now = fixed.mark;
    assert_eq!(bench.renew_on(&Holding { fence: 7, ..fixed }, Tenure::Lease), Renewed::Lost);
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot, "that was not its word");
    assert_eq!(bench.renew_on(&fixed, Tenure::Lease), Renewed::Lost);
    assert_eq!(bench.acquire(B).start, fixed.mark);
}

#[test]
fn a_fixed_holder_that_is_put_back_is_fixed() {
    let mut bench = Bench::shared(1_000_000);
    let fixed = bench.acquire_as(A, Tenure::Fixed);
    bench.slots = Slots::default();
    assert!(matches!(bench.renew_on(&fixed, Tenure::Fixed), Renewed::Extended { .. }));
    bench.now = fixed.mark + 10 * MARGIN;
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot);
}

/// The next process in a data directory has the nonce of the one before.
#[test]
fn what_a_fixed_holder_says_late_does_not_give_up_the_next_one() {
    let mut bench = Bench::shared(1_000_000);
    let before = bench.acquire_as(A, Tenure::Fixed);
    let after = bench.acquire_as(A, Tenure::Fixed);
    assert_eq!((after.slot, after.start, after.mark), (before.slot, before.start, before.mark));
    assert_eq!(bench.renew_on(&before, Tenure::Lease), Renewed::Lost);
    bench.release(&before, bench.now);
    bench.now = after.mark + MARGIN;
    assert_eq!(bench.ask(B, 0..1), Acquired::NoSlot);
    assert_eq!(bench.acquire_as(A, Tenure::Fixed).fence, after.fence + 1);
}
