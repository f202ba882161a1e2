//! Modes, defaults, and fields that do not fit together.

use super::*;
use crate::{calendar::Reset, rule::OnOutage};

#[tokio::test]
async fn a_rule_is_a_snowflake_unless_it_must_count() {
    for (json, expected) in [
        (r#"{"format":"EVT-{SEQ:19}"}"#, Mode::Snowflake),
        (r#"{"format":"EVT-{SEQ:18}"}"#, Mode::Continuous),
        (r#"{"format":"TEST-{SEQ:4}"}"#, Mode::Continuous),
        (r#"{"format":"EVT-{SEQ:13:base32}"}"#, Mode::Snowflake),
        (r#"{"format":"EVT-{SEQ:12:base32}"}"#, Mode::Continuous),
        (r#"{"format":"EVT-{SEQ:13:base36}"}"#, Mode::Snowflake),
        (r#"{"format":"EVT-{SEQ:12:base36}"}"#, Mode::Continuous),
        (r#"{"format":"EVT-{SEQ:11:base62}"}"#, Mode::Snowflake),
        (r#"{"format":"EVT-{SEQ:10:base62}"}"#, Mode::Continuous),
        (r#"{"format":"EVT-{SEQ:16:hex}"}"#, Mode::Snowflake),
        (r#"{"format":"EVT-{SEQ:15:hex}"}"#, Mode::Continuous),
        (r#"{"format":"EVT-{SEQ}","seq_length":19}"#, Mode::Snowflake),
        (r#"{"format":"EVT-{SEQ:19}","initial_seq":0}"#, Mode::Continuous),
        (r#"{"format":"EVT-{SEQ:19}","initialSeq":"1000"}"#, Mode::Continuous),
        (r#"{"format":"EVT-{year}-{SEQ:19}","reset":"yearly"}"#, Mode::Continuous),
        (r#"{"format":"EVT-{SEQ:19}","reset":"never"}"#, Mode::Snowflake),
        (r#"{"format":"EVT-{SEQ:4}","mode":"snowflake"}"#, Mode::Snowflake),
        (r#"{"format":"EVT-{SEQ:19}","mode":"strict"}"#, Mode::Strict),
    ] {
        let saved = Desk::new().post("EVT", json).await.expect(json);
        assert_eq!(saved.rule.rule().mode, expected, "{json}");
    }
}

#[tokio::test]
async fn every_default_is_explicit() {
    let saved = Desk::new().post("ORDERS", r#"{"format":"ORD-{SEQ:6}"}"#).await.expect("saved");
    assert_eq!(
        saved.rule.rule().to_json(),
        r#"{"prefix_key":"ORDERS","format":"ORD-{SEQ:6}","seq_length":6,"initial_seq":"0","mode":"continuous","reset":"never","timezone":"UTC","fiscal_year_start":"01-01","overflow":"grow","max_seq":"18446744073709551615","on_outage":"temporary"}"#
    );
    let strict = r#"{"format":"ORD-{SEQ:6}","mode":"strict","on_outage":"temporary"}"#;
    let saved = Desk::new().post("ORDERS", strict).await.expect("saved");
    assert_eq!(saved.rule.rule().on_outage, OnOutage::Fail, "strict rules always fail");
}

#[tokio::test]
async fn errors_of_formats_and_fields() {
    for (json, expected) in [
        (r#"{"format":"INV-2024"}"#, "Missing {SEQ} tag"),
        (r#"{"format":"INVALID"}"#, "Missing {SEQ} tag"),
        (r#"{"format":"'; DROP TABLE users;--"}"#, "Missing {SEQ} tag"),
        (r#"{"format":""}"#, "Missing {SEQ} tag"),
        (r#"{"format":"X-{SEQ}"}"#, "InvalidFormat"),
        (r#"{"format":"X-{SEQ:0}"}"#, "InvalidLength"),
        (r#"{"format":"X-{SEQ:21}"}"#, "InvalidLength"),
        (r#"{"format":"X-{SEQ}","seq_length":0}"#, "InvalidLength"),
        (r#"{"format":"X-{SEQ}","seq_length":21}"#, "InvalidLength"),
        (r#"{"format":"X-{SEQ:6}","seq_length":7}"#, "Validation"),
        (r#"{"format":"X-{SEQ:6}","seq_length":6}"#, "registered"),
        ("{}", "Validation"),
        (r#"{"format":null}"#, "Validation"),
        (r#"{"format":"X-{SEQ:6}","prefix_key":"OTHER"}"#, "Validation"),
        (r#"{"format":"X-{SEQ:6}","prefixKey":"X"}"#, "registered"),
        (r#"{"format":"X-{SEQ:6}","initial_seq":10,"max_seq":10}"#, "Validation"),
        (r#"{"format":"X-{SEQ:6}","initial_seq":9,"max_seq":10}"#, "registered"),
        (r#"{"format":"X-{SEQ:6}","max_seq":0}"#, "Validation"),
        (r#"{"format":"X-{SEQ:6}","initial_seq":"18446744073709551615"}"#, "Validation"),
        (r#"{"format":"X-{SEQ:6}","initial_seq":"18446744073709551614"}"#, "registered"),
        (r#"{"format":"X-{SEQ:19}","mode":"snowflake","initial_seq":0}"#, "Validation"),
        (r#"{"format":"X-{year}-{SEQ:19}","mode":"snowflake","reset":"yearly"}"#, "Validation"),
        (r#"{"format":"X-{SEQ:19}","mode":"snowflake","reset":"never"}"#, "registered"),
    ] {
        assert_eq!(outcome(Desk::new().post("X", json).await), expected, "{json}");
    }
}

#[tokio::test]
async fn a_period_must_be_readable_from_the_number() {
    for (format, reset, expected) in [
        ("{SEQ:4}", Reset::Yearly, "Validation"),
        ("{year}-{SEQ:4}", Reset::Yearly, "registered"),
        ("{year:2}-{SEQ:4}", Reset::Yearly, "registered"),
        ("{year}-{SEQ:4}", Reset::Monthly, "Validation"),
        ("{month}-{SEQ:4}", Reset::Monthly, "Validation"),
        ("{year}{month}-{SEQ:4}", Reset::Monthly, "registered"),
        ("{year}-{quarter}-{SEQ:4}", Reset::Quarterly, "registered"),
        ("{year}{month}-{SEQ:4}", Reset::Quarterly, "registered"),
        ("{year}-{SEQ:4}", Reset::Quarterly, "Validation"),
        ("{isoyear}W{week}-{SEQ:4}", Reset::Weekly, "registered"),
        ("{year}W{week}-{SEQ:4}", Reset::Weekly, "Validation"),
        ("{year}{month}{day}-{SEQ:4}", Reset::Weekly, "registered"),
        ("{year}{doy}-{SEQ:4}", Reset::Daily, "registered"),
        ("{year}{month}-{SEQ:4}", Reset::Daily, "Validation"),
        ("{fy}-{SEQ:4}", Reset::Fiscal, "registered"),
        ("{year}-{SEQ:4}", Reset::Fiscal, "Validation"),
        ("{year}{month}{day}-{SEQ:4}", Reset::Fiscal, "registered"),
        ("{SEQ:4}", Reset::Never, "registered"),
    ] {
        let json = format!(r#"{{"format":"{format}","reset":"{reset}"}}"#);
        let result = Desk::new().post("X", &json).await;
        if let Err(error) = &result {
            assert!(error.to_string().starts_with("reset: a "), "{error}");
        }
        assert_eq!(outcome(result), expected, "{json}");
    }
}

#[tokio::test]
async fn several_data_centres_need_to_be_told_apart() {
    let desk = Desk::with(Settings { datacenters: 2, ..SETTINGS });
    for (json, expected) in [
        (r#"{"format":"X-{SEQ:6}"}"#, "Validation"),
        (r#"{"format":"X-{SEQ:6}","mode":"strict"}"#, "Validation"),
        (r#"{"format":"X-{SEQ:19}"}"#, "registered"),
        (r#"{"format":"Y{datacenter}-{SEQ:6}","mode":"continuous"}"#, "updated"),
    ] {
        assert_eq!(outcome(desk.put("X", json).await), expected, "{json}");
    }
    let error = desk.put("Z", r#"{"format":"Z-{SEQ:6}"}"#).await.expect_err("refused");
    let said = error.to_string();
    assert!(said.contains("needs {datacenter}: there are 2 data centres (NUMGEN_DATACENTERS)"), "{said}");
    assert!(
        said.contains("only profile full"),
        "on one PostgreSQL their counters may well be the same: {said}"
    );
}

#[tokio::test]
async fn strict_names_the_setting_that_it_lacks() {
    let desk = Desk::with(Settings { strict: Some("NUMGEN_DATABASE_URL"), ..SETTINGS });
    let error = desk.post("X", r#"{"format":"X-{SEQ:6}","mode":"strict"}"#).await.expect_err("refused");
    assert!(error.to_string().contains("NUMGEN_DATABASE_URL"), "{error}");
    assert!(desk.registry.get("X").is_none());
}

#[tokio::test]
async fn no_error_shows_where_a_counter_starts() {
    let desk = Desk::new();
    desk.put("X", r#"{"format":"X-{SEQ:4}","initial_seq":777001}"#).await.expect("saved");
    desk.issue("X").await;
    for json in [
        r#"{"format":"X-{SEQ:4}","initial_seq":777002}"#,
        r#"{"format":"X-{SEQ:4}","initial_seq":777003,"max_seq":5}"#,
        r#"{"format":"X-{SEQ:4}","initial_seq":777004,"mode":"snowflake"}"#,
        r#"{"format":"X-{year}{SEQ:4}"}"#,
    ] {
        let error = desk.put("X", json).await.expect_err(json);
        for text in
            [error.localized(Language::English), error.localized(Language::Chinese), format!("{error:?}")]
        {
            assert!(!text.contains("77700"), "{text}");
        }
    }
    let rule = desk.rule("X");
    assert!(!format!("{rule:?}").contains("77700"));
}

#[tokio::test]
async fn periods_follow_the_local_date() {
    let desk = Desk::new();
    let json = r#"{"format":"{year}{month}{day}-{SEQ:4}","reset":"daily","timezone":"Asia/Shanghai"}"#;
    desk.put("X", json).await.expect("saved");
    let late: DateTime<chrono::Utc> = "2026-11-22T17:30:00Z".parse().expect("a moment");
    assert_eq!(desk.issue_at("X", Moment::Now(late.into())).await, "20261123-0001");
    // A document date is not shifted.
    assert_eq!(desk.issue_on("X", "2026-11-22").await, "20261122-0001");
    assert_eq!(desk.rule("X").period_of(date("2026-11-23")).as_str(), "2026-11-23");
}

#[tokio::test]
async fn bounds_are_the_narrower_of_limit_and_width() {
    let desk = Desk::new();
    let max = |json: &'static str| {
        let desk = &desk;
        async move { desk.put("X", json).await.expect("saved").rule.bounds(date("2026-11-22")).max.0 }
    };
    assert_eq!(max(r#"{"format":"X-{SEQ:4}"}"#).await, u64::MAX);
    assert_eq!(max(r#"{"format":"X-{SEQ:4}","overflow":"reject"}"#).await, 9_999);
    assert_eq!(max(r#"{"format":"X-{SEQ:4}","overflow":"reject","max_seq":50}"#).await, 50);
    assert_eq!(max(r#"{"format":"X-{SEQ:4}","max_seq":"12345"}"#).await, 12_345);
}
