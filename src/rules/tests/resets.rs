//! Changes of the reset scheme: no date and value may be printed twice, and later periods start afresh.

use std::time::Duration;

use super::*;

const MONTHLY: &str = r#"{"format":"{year}{month}{day}-{SEQ:4}","reset":"monthly"}"#;
const DAILY: &str = r#"{"format":"{year}{month}{day}-{SEQ:4}","reset":"daily"}"#;
const NEVER: &str = r#"{"format":"{year}{month}{day}-{SEQ:4}","reset":"never"}"#;
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn periods_that_had_begun_start_above_and_later_ones_afresh() {
    let desk = Desk::new();
    desk.put("A", MONTHLY).await.expect("saved");
    for _ in 0..3 {
        desk.issue("A").await;
    }
    desk.put("A", DAILY).await.expect("changed");
    assert_eq!(desk.issue("A").await, "20261122-0004");
    assert_eq!(desk.issue_on("A", "2026-11-01").await, "20261101-0004");
    desk.clock.advance(DAY);
    assert_eq!(desk.issue("A").await, "20261123-0001");
}

/// The records come back from the copies of the nodes, counters that nobody draws from do not.
#[tokio::test]
async fn counters_that_were_lost_do_not_lower_a_floor() {
    let mut desk = Desk::new();
    desk.put("A", MONTHLY).await.expect("saved");
    for _ in 0..3 {
        desk.issue("A").await;
    }
    desk.put("A", DAILY).await.expect("changed");
    desk.clock.advance(DAY * 2);
    assert_eq!(desk.issue("A").await, "20261124-0001", "and the floor of the days before is settled");
    desk.lose_counters().await;
    desk.clock.advance(DAY);
    assert_eq!(desk.issue("A").await, "20261125-0001", "the only counter that is known now");
    desk.put("A", NEVER).await.expect("changed");
    assert_eq!(desk.issue_on("A", "2026-11-22").await, "20261122-0004");
}

#[tokio::test]
async fn a_counter_without_reset_began_before_everything() {
    let desk = Desk::new();
    desk.put("A", DAILY).await.expect("saved");
    desk.issue("A").await;
    desk.issue("A").await;
    desk.issue_on("A", "2026-11-20").await;
    desk.put("A", NEVER).await.expect("changed");
    assert_eq!(desk.issue("A").await, "20261122-0003");
    assert_eq!(desk.issue_on("A", "2030-01-01").await, "20300101-0004");
}

#[tokio::test]
async fn back_and_forth() {
    let desk = Desk::new();
    desk.put("A", MONTHLY).await.expect("saved");
    assert_eq!(desk.issue("A").await, "20261122-0001");
    desk.put("A", NEVER).await.expect("changed");
    assert_eq!(desk.issue("A").await, "20261122-0002");
    desk.put("A", MONTHLY).await.expect("changed back");
    assert_eq!(desk.issue("A").await, "20261122-0003");
    // A change that no number saw is none.
    desk.put("A", DAILY).await.expect("changed");
    desk.put("A", MONTHLY).await.expect("changed back");
    assert_eq!(desk.issue_on("A", "2026-12-01").await, "20261201-0001");
    assert_eq!(desk.issue("A").await, "20261122-0004");
}

#[tokio::test]
async fn a_document_date_ahead_of_the_change_is_remembered() {
    let desk = Desk::new();
    desk.put("A", NEVER).await.expect("saved");
    desk.issue("A").await;
    assert_eq!(desk.issue_on("A", "2027-02-03").await, "20270203-0002");
    desk.put("A", DAILY).await.expect("changed");
    let restarted = desk.another().await;
    let usable = restarted
        .ensure_used(restarted.get("A").expect("there"), Moment::Document(date("2027-02-03")))
        .await
        .expect("usable");
    assert_eq!(desk.draw(&usable).await, "20270203-0003");
    assert_eq!(desk.issue_on("A", "2027-02-04").await, "20270204-0001", "no number was dated so late");
}

#[tokio::test]
async fn a_clock_that_was_wrong_is_remembered_too() {
    let desk = Desk::new();
    desk.put("A", NEVER).await.expect("saved");
    let now = desk.clock.now();
    desk.clock.step_to(now.plus(DAY * 30));
    assert_eq!(desk.issue("A").await, "20261222-0001");
    desk.clock.step_to(now);
    desk.put("A", DAILY).await.expect("changed");
    assert_eq!(desk.issue("A").await, "20261122-0002");
    desk.clock.step_to(now.plus(DAY * 30));
    assert_eq!(desk.issue("A").await, "20261222-0002");
}

#[tokio::test]
async fn moving_the_fiscal_year_is_a_change_of_reset_only_where_it_resets() {
    let fiscal = |start: &str, reset: &str| {
        format!(
            r#"{{"format":"{{year}}{{month}}{{day}}-{{SEQ:4}}","reset":"{reset}","fiscal_year_start":"{start}"}}"#
        )
    };
    let desk = Desk::new();
    desk.put("A", &fiscal("04-01", "fiscal")).await.expect("saved");
    assert_eq!(desk.issue_on("A", "2026-05-01").await, "20260501-0001");
    // 1 May now lies in FY2025, whose counter has not begun.
    desk.put("A", &fiscal("07-01", "fiscal")).await.expect("changed");
    assert_eq!(desk.issue_on("A", "2026-05-01").await, "20260501-0002");

    desk.put("B", &fiscal("04-01", "yearly")).await.expect("saved");
    desk.issue("B").await;
    desk.put("B", &fiscal("07-01", "yearly")).await.expect("changed");
    assert_eq!(desk.issue_on("B", "2025-01-01").await, "20250101-0001", "another year, no floor");
}

/// Of all that is printed, only the name of a fiscal year depends on the rule.
#[tokio::test]
async fn a_fiscal_year_of_the_same_name_is_no_later_one() {
    for (before, mode) in [("never", "continuous"), ("fiscal", "continuous"), ("never", "strict")] {
        let rule = |reset: &str, start: &str| {
            format!(
                r#"{{"format":"{{fy}}-{{SEQ:4}}","mode":"{mode}","reset":"{reset}","fiscal_year_start":"{start}"}}"#
            )
        };
        let desk = Desk::new();
        desk.put("A", &rule(before, "01-01")).await.expect("saved");
        assert_eq!(desk.issue("A").await, "2026-0001");
        // The new FY2026 begins after the only number, which is of another year of that name.
        desk.put("A", &rule("fiscal", "12-01")).await.expect("changed");
        assert_eq!(desk.issue_on("A", "2026-12-15").await, "2026-0002");
        assert_eq!(desk.issue("A").await, "2025-0002");
        assert_eq!(desk.issue_on("A", "2027-12-15").await, "2027-0001", "no number has that name");
    }
}

#[tokio::test]
async fn fiscal_years_that_look_alike_are_not_both_issued() {
    let desk = Desk::new();
    let rule = |reset: &str, format: &str| {
        format!(
            r#"{{"format":"{format}","mode":"continuous","reset":"{reset}","fiscal_year_start":"04-01"}}"#
        )
    };
    let last = Moment::Document(date("2000-03-31"));
    for (key, reset, in_2099) in [("F", "fiscal", "99-0001"), ("N", "never", "99-0002")] {
        desk.put(key, &rule(reset, "{fy:2}-{SEQ:4}")).await.expect("saved");
        let refused = desk.enter(key, last).await.expect_err("99, as in 2099");
        assert!(refused.to_string().contains("must be 2000-04-01 or later"), "{refused}");
        assert!(refused.localized(Language::Chinese).contains("2000-04-01"));
        assert!(desk.registry.use_at_once(&desk.rule(key), last).is_none());
        assert_eq!(desk.issue_on(key, "2000-04-01").await, "00-0001");
        assert_eq!(desk.issue_on(key, "2099-04-01").await, in_2099);
    }
    for (key, format) in [("A", "{fy}-{SEQ:4}"), ("B", "{year:2}/{fy:2}-{SEQ:4}")] {
        desk.put(key, &rule("fiscal", format)).await.expect("saved");
        assert!(desk.enter(key, last).await.is_ok(), "{format}");
    }
}

#[tokio::test]
async fn a_change_counts_from_the_day_it_was_made() {
    let desk = Desk::new();
    desk.put("A", MONTHLY).await.expect("saved");
    desk.issue("A").await;
    desk.put("A", DAILY).await.expect("changed");
    desk.clock.advance(DAY * 5);
    desk.put("A", r#"{"format":"{year}{month}{day}-{SEQ:5}","reset":"daily"}"#).await.expect("wider");
    assert_eq!(desk.issue_on("A", "2026-11-23").await, "20261123-00001", "began after the change");
    assert_eq!(desk.issue_on("A", "2026-11-22").await, "20261122-00002");
}

#[tokio::test]
async fn a_time_zone_that_goes_back_a_day_repeats_nothing() {
    let desk = Desk::new();
    let zoned = |zone: &str| {
        format!(r#"{{"format":"{{year}}{{month}}{{day}}-{{SEQ:4}}","reset":"daily","timezone":"{zone}"}}"#)
    };
    desk.put("A", &zoned("Pacific/Kiritimati")).await.expect("saved");
    assert_eq!(desk.issue("A").await, "20261123-0001");
    desk.put("A", &zoned("Pacific/Pago_Pago")).await.expect("changed");
    assert_eq!(desk.issue("A").await, "20261122-0001");
    desk.clock.advance(DAY);
    assert_eq!(desk.issue("A").await, "20261123-0002");
}
