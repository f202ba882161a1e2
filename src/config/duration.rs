//! Durations as people write them: `24h`, `1h30m`, `90s`, `500ms`.

use std::time::Duration;

/// Units and their length in milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads whole numbers with units (`d`, `h`, `m`, `s`, `ms`), longest unit first: `1h30m`. A bare number has no unit
/// and is refused, but for `0`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total_ms = 0_u64;
    let mut shortest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(letters);
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
        if *unit_ms >= shortest {
            return None;
        }
        shortest = *unit_ms;
        total_ms = total_ms.checked_add(number.parse::<u64>().ok()?.checked_mul(*unit_ms)?)?;
        rest = next;
    }
    Some(Duration::from_millis(total_ms))
}

/// Writes a duration so that `parse_duration` reads it again; below a millisecond is cut off.
pub(super) fn print_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        if left >= unit_ms {
            text.push_str(&format!("{}{unit}", left / unit_ms));
            left %= unit_ms;
        }
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, ms) in [
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("90s", 90_000),
            ("500ms", 500),
            ("2d", 172_800_000),
            ("0", 0),
            ("1m1ms", 60_001),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for wrong in [
            "",
            "90",
            "h",
            "1x",
            "-1s",
            "1.5h",
            "30m1h",
            "1h1h",
            "99999999999999999999s",
            "999999999999999d",
            "1 h",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn prints_what_it_reads(ms in 0_u64..=10_000_000_000) {
            let duration = Duration::from_millis(ms);
            proptest::prop_assert_eq!(parse_duration(&print_duration(duration)), Some(duration));
        }
    }
}
