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
