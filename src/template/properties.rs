//! What holds for every format, context and value.

use std::collections::HashMap;

use chrono::{Datelike, NaiveDate, NaiveDateTime, Timelike};
use proptest::{
    prelude::*,
    sample::{Index, select},
};

use super::{Check, DecodedDate, Origin, RenderContext, Template};
use crate::{
    calendar::{self, FiscalYearStart, Reset},
    counter::SequenceValue,
};

const ENCODINGS: [&str; 6] = ["", ":dec", ":hex", ":base32", ":base36", ":base62"];

const VARIABLES: [&str; 22] = [
    "{prefix}",
    "{year}",
    "{year:2}",
    "{month}",
    "{day}",
    "{hour}",
    "{minute}",
    "{second}",
    "{quarter}",
    "{doy}",
    "{isoyear}",
    "{week}",
    "{fy}",
    "{fy:2}",
    "{datacenter}",
    "{worker}",
    "{rand:1}",
    "{rand:7}",
    "{rand:32}",
    "{check:luhn}",
    "{check:damm}",
    "{check:mod97}",
];

/// A [`RenderContext`] that owns its prefix key.
#[derive(Clone, Debug)]
struct Scene {
    prefix: String,
    local: NaiveDateTime,
    fiscal_year_start: FiscalYearStart,
    origin: Origin,
    seed: [u8; 32],
}

impl Scene {
    fn render(&self, template: &Template, value: u64) -> String {
        let Self { prefix, local, fiscal_year_start, origin, seed } = self.clone();
        let context = RenderContext { prefix: &prefix, local, fiscal_year_start, origin, seed };
        let mut out = String::from("before ");
        template.render(&context, SequenceValue(value), &mut out);
        out.split_off("before ".len())
    }

    /// Every part that a number can tell.
    fn parts(&self) -> DecodedDate {
        let (date, time) = (self.local.date(), self.local.time());
        DecodedDate {
            year: Some(date.year()),
            month: Some(date.month()),
            day: Some(date.day()),
            hour: Some(time.hour()),
            minute: Some(time.minute()),
            second: Some(time.second()),
            quarter: Some(calendar::quarter(date)),
            day_of_year: Some(date.ordinal()),
            iso_year: Some(date.iso_week().year()),
            week: Some(date.iso_week().week()),
            fiscal_year: Some(self.fiscal_year_start.fiscal_year(date)),
        }
    }
}

prop_compose! {
    fn scene()(
        prefix in "[A-Za-z0-9_.-]{1,12}",
        day in 0_u64..36_525,
        second in 0_u32..86_400,
        start in 0_u64..365,
        maxima in (select(vec![0, 9, 31, 1023, u32::MAX]), select(vec![0, 7, 700, 1023, u32::MAX])),
        ids in any::<(u32, u32)>(),
        seed in any::<[u8; 32]>(),
    ) -> Scene {
        let first = |year| NaiveDate::from_ymd_opt(year, 1, 1).expect("a date");
        let start = (first(2001) + chrono::Days::new(start)).format("%m-%d").to_string();
        let below = |id: u32, max: u32| (u64::from(id) % (u64::from(max) + 1)) as u32;
        Scene {
            prefix,
            local: (first(2000) + chrono::Days::new(day)).and_hms_opt(second / 3600, second / 60 % 60, second % 60)
                .expect("a time"),
            fiscal_year_start: FiscalYearStart::parse(&start).expect("a day of every year"),
            origin: Origin {
                datacenter: below(ids.0, maxima.0),
                worker: below(ids.1, maxima.1),
                max_datacenter: maxima.0,
                max_worker: maxima.1,
            },
            seed,
        }
    }
}

/// The zero-fill length and the encoding of `{SEQ}`.
fn sequence() -> impl Strategy<Value = (u8, &'static str)> {
    (1_u8..=20, select(&ENCODINGS[..]))
}

fn pieces() -> impl Strategy<Value = String> {
    let literal = prop_oneof![
        "[A-Za-z0-9 _./:#+@()-]{1,6}",
        "[0-9]{1,4}",
        select(vec!["{{", "}}", "发票", "é", "हिन्दी", "٣", "한"]).prop_map(str::to_owned),
    ];
    let piece = prop_oneof![literal, select(&VARIABLES[..]).prop_map(str::to_owned)];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// What stands before and after `{SEQ}`; together short enough for any `{SEQ:N:enc}` between.
fn around() -> impl Strategy<Value = (String, String)> {
    (pieces(), pieces()).prop_filter("too long", |(head, tail)| {
        head.len() + tail.len() + "{SEQ:20:base62}".len() <= Template::MAX_LEN
    })
}

fn parsed((head, tail): &(String, String), (width, encoding): (u8, &str)) -> Template {
    let format = format!("{head}{{SEQ:{width}{encoding}}}{tail}");
    Template::parse(&format, None).unwrap_or_else(|error| panic!("{format}: {error}"))
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..2000, any::<u64>(), (0_u32..64).prop_map(|bits| u64::MAX >> bits)]
}

/// The names of the parts that were decoded as something else.
fn differing(decoded: DecodedDate, expected: DecodedDate) -> Vec<&'static str> {
    fn differs<T: PartialEq>(
        name: &'static str,
        decoded: Option<T>,
        expected: Option<T>,
    ) -> Option<&'static str> {
        (decoded.is_some() && decoded != expected).then_some(name)
    }
    [
        differs("year", decoded.year, expected.year),
        differs("month", decoded.month, expected.month),
        differs("day", decoded.day, expected.day),
        differs("hour", decoded.hour, expected.hour),
        differs("minute", decoded.minute, expected.minute),
        differs("second", decoded.second, expected.second),
        differs("quarter", decoded.quarter, expected.quarter),
        differs("day of year", decoded.day_of_year, expected.day_of_year),
        differs("ISO year", decoded.iso_year, expected.iso_year),
        differs("week", decoded.week, expected.week),
        differs("fiscal year", decoded.fiscal_year, expected.fiscal_year),
    ]
    .into_iter()
    .flatten()
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn parsing_never_panics(
        text in prop_oneof![".{0,140}", "[{}:sSeEqQyear0-9<é\u{301}\u{202E} ]{0,24}", "(\\{SEQ|\\{\\{|:4|\\}|x|\u{301}){0,9}"],
        seq_length in any::<Option<u8>>(),
    ) {
        match Template::parse(&text, seq_length) {
            Ok(template) => prop_assert!((1..=20).contains(&template.seq_width())),
            Err(error) => {
                let characters = text.chars().count();
                prop_assert!(error.position().is_none_or(|at| (1..=characters + 1).contains(&at)), "{}", error);
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }

    #[test]
    fn decoding_never_panics(around in around(), sequence in sequence(), scene in scene(), text in ".{0,30}") {
        let template = parsed(&around, sequence);
        if let Err(error) = template.decode(&scene.prefix, scene.origin, &text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.position), "{}", error);
        }
    }

    #[test]
    fn decoding_gives_back_what_was_rendered(
        around in around(), sequence in sequence(), scene in scene(), value in value(),
    ) {
        let template = parsed(&around, sequence);
        let text = scene.render(&template, value);
        let decoded = template.decode(&scene.prefix, scene.origin, &text);
        let Ok(decoded) = decoded else {
            return Err(TestCaseError::fail(format!("{}: {text}: {decoded:?}", template.text())));
        };
        prop_assert_eq!(decoded.sequence.0, value);
        prop_assert_eq!(decoded.check, if template.text().contains("{check") { Check::Valid } else { Check::None });
        let Origin { datacenter, worker, .. } = scene.origin;
        prop_assert_eq!(decoded.datacenter, template.uses_datacenter().then_some(datacenter));
        prop_assert_eq!(decoded.worker, template.text().contains("{worker}").then_some(worker));
        for reset in Reset::ALL {
            let period = reset.period_of(scene.local.date(), scene.fiscal_year_start);
            let told = decoded.period(reset, scene.fiscal_year_start);
            prop_assert_eq!(told.is_some(), template.reveals_period(reset), "{} {}", reset, template.text());
            let is_confused = reset == Reset::Fiscal
                && template.confuses_fiscal_years()
                && scene.fiscal_year_start.fiscal_year(scene.local.date()) == 1999;
            prop_assert!(told.is_none_or(|told| (told == period) != is_confused), "{} of {}", reset, text);
        }
        if scene.local.year() > 2000 {
            prop_assert_eq!(differing(decoded.date, scene.parts()), Vec::<&str>::new());
        }
    }

    /// Whatever can be decoded would be rendered again, so that no number has two spellings.
    #[test]
    fn only_what_is_rendered_can_be_decoded(
        scene in scene(), value in value(), sequence in sequence(), at in any::<Index>(), byte in 0x20_u8..0x7F,
        how in select(vec!["replace", "insert", "remove"]),
    ) {
        let around = ("{year}-{month}{day}".into(), "{hour}{minute}{second}{datacenter}/{worker}{check:mod97}".into());
        let template = parsed(&around, sequence);
        let mut text = scene.render(&template, value).into_bytes();
        let at = at.index(text.len());
        match how {
            "replace" => text[at] = byte,
            "insert" => text.insert(at, byte),
            _ => drop(text.remove(at)),
        }
        let text = String::from_utf8(text).expect("ASCII");
        let Ok(decoded) = template.decode(&scene.prefix, scene.origin, &text) else { return Ok(()) };
        if decoded.check == Check::Valid {
            let date = decoded.date;
            let time = date.hour.zip(date.minute).zip(date.second);
            let local = date.date().zip(time).and_then(|(day, ((hour, minute), second))| day.and_hms_opt(hour, minute, second));
            let mut again = scene;
            again.local = local.expect("a moment");
            again.origin.datacenter = decoded.datacenter.expect("a data centre");
            again.origin.worker = decoded.worker.expect("a worker");
            prop_assert_eq!(again.render(&template, decoded.sequence.0), text);
        }
    }

    #[test]
    fn zero_fill_alone_never_makes_values_meet(
        around in around(), encoding in select(&ENCODINGS[..]), widths in (1_u8..=20, 1_u8..=20),
        one_scene in scene(), other_scene in scene(), value in 0_u64..1000, factor in select(vec![1, 10, 16, 32, 36, 62, 100]),
    ) {
        let (one, other) = (parsed(&around, (widths.0, encoding)), parsed(&around, (widths.1, encoding)));
        prop_assert!(one.same_pieces(&other) && other.same_pieces(&one));
        let Scene { local, seed, .. } = one_scene.clone();
        for scene in [one_scene, Scene { local, seed, ..other_scene }] {
            let (one, other) = (scene.render(&one, value), scene.render(&other, value * factor + factor - 1));
            prop_assert!(factor == 1 || one != other, "{} twice", one);
        }
    }

    #[test]
    fn a_number_that_two_formats_render_is_foreseen(
        around in around(), sequence in sequence(), scene in scene(), value in value(),
        start in any::<Index>(), choices in prop::collection::vec(any::<u8>(), 64),
    ) {
        let template = parsed(&around, sequence);
        let text = scene.render(&template, value);
        let Some(cover) = cover(&text, start, &choices) else { return Ok(()) };
        let Ok(other) = Template::parse(&cover, None) else { return Ok(()) };
        if other.decode("OTHER", scene.origin, &text).is_ok() {
            let found = template.common_text(&scene.prefix, &other, "OTHER", scene.origin);
            prop_assert!(found.is_some(), "{} and {} both give {}", template.text(), cover, text);
            let found = other.common_text("OTHER", &template, &scene.prefix, scene.origin);
            prop_assert!(found.is_some(), "{} and {} both give {}", cover, template.text(), text);
        }
    }
}

/// Another format that may render `text`: a run of digits becomes `{SEQ}`, other parts become variables or stay.
fn cover(text: &str, start: Index, choices: &[u8]) -> Option<String> {
    let starts: Vec<usize> =
        text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric()).map(|(at, _)| at).collect();
    let start = *starts.get(start.index(starts.len().max(1)))?;
    let run = text[start..].bytes().take(11).take_while(u8::is_ascii_alphanumeric).count();
    let mut choices = choices.iter().cycle().map(|choice| usize::from(*choice));
    let run = choices.next()? % run + 1;
    let (mut format, mut at) = (String::new(), 0);
    while let Some(character) = text[at..].chars().next() {
        if at == start {
            let width = if text[at..].starts_with('0') { run } else { choices.next()? % run + 1 };
            format += &format!("{{SEQ:{width}{}}}", ENCODINGS[choices.next()? % ENCODINGS.len()]);
            at += run;
            continue;
        }
        let (piece, width) = match choices.next()? % 16 {
            0 => ("{year}", 4),
            1 => ("{month}", 2),
            2 => ("{day}", 2),
            3 => ("{doy}", 3),
            4 => ("{check:mod97}", 2),
            5 => ("{check:luhn}", 1),
            6 => ("{quarter}", 1),
            7 => ("{rand:3}", 3),
            8 => ("{week}", 2),
            _ => ("", 0),
        };
        let covered =
            text.get(at..at + width).filter(|part| at + width <= start || at > start && !part.is_empty());
        if covered.is_some_and(|part| width > 0 && part.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            format += piece;
            at += width;
        } else {
            match character {
                '{' => format += "{{",
                '}' => format += "}}",
                other => format.push(other),
            }
            at += character.len_utf8();
        }
    }
    Some(format)
}

/// Small formats, all of their numbers, all pairs: what `common_text` says is then exactly right.
#[test]
fn small_formats_meet_just_where_they_say_so() {
    const ORIGIN: Origin = Origin { datacenter: 0, worker: 0, max_datacenter: 0, max_worker: 0 };
    let mut templates = Vec::new();
    for head in ["", "0", "1", "A", "10", "{quarter}", "1{quarter}"] {
        for sequence in ["{SEQ:1}", "{SEQ:2}", "{SEQ:3}", "{SEQ:1:hex}", "{SEQ:2:hex}"] {
            for tail in ["", "0", "1", "A", "0A", "{quarter}"] {
                let format = format!("{head}{sequence}{tail}");
                // That both quarters are the same is more than `common_text` looks at.
                if format.matches("quarter").count() > 1 {
                    continue;
                }
                templates.push(Template::parse(&format, None).expect(&format));
            }
        }
    }
    let mut renderers: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, template) in templates.iter().enumerate() {
        for (value, month) in (0..300).flat_map(|value| [1, 4, 7, 10].map(|month| (value, month))) {
            let context = RenderContext {
                prefix: "P",
                local: NaiveDate::from_ymd_opt(2026, month, 1).expect("a date").into(),
                fiscal_year_start: FiscalYearStart::default(),
                origin: ORIGIN,
                seed: [0; 32],
            };
            let mut text = String::new();
            template.render(&context, SequenceValue(value), &mut text);
            let indices = renderers.entry(text).or_default();
            if indices.last() != Some(&index) {
                indices.push(index);
            }
        }
    }
    let mut meeting = vec![vec![false; templates.len()]; templates.len()];
    for indices in renderers.values() {
        for &one in indices {
            for &other in indices {
                meeting[one][other] = true;
            }
        }
    }
    let (mut disjoint, mut shared) = (0, 0);
    for (one, row) in templates.iter().zip(&meeting) {
        for (other, &meet) in templates.iter().zip(row) {
            match one.common_text("P", other, "P", ORIGIN) {
                None => {
                    disjoint += 1;
                    assert!(!meet, "{} and {} meet", one.text(), other.text());
                }
                Some(text) => {
                    shared += 1;
                    for template in [one, other] {
                        let decoded = template.decode("P", ORIGIN, &text);
                        assert!(decoded.is_ok(), "{} cannot give {text}: {decoded:?}", template.text());
                    }
                }
            }
        }
    }
    assert!(disjoint > 1000 && shared > 1000, "{disjoint} disjoint, {shared} shared: the test tests both");
}
