//! Pure: sizes, durations, modes and byte ranges as people write them. Called by `config` for
//! files and environment and by `cmd` for arguments, so that one text means one thing
//! everywhere.

use crate::error::{Error, Result};
use std::time::Duration;

/// Units of sizes, smallest first; powers of two, as everywhere in dfs.
const SIZE_UNITS: [(&str, u32); 6] = [
    ("B", 0),
    ("KiB", 10),
    ("MiB", 20),
    ("GiB", 30),
    ("TiB", 40),
    ("PiB", 50),
];

/// Units of durations in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads `64KiB`, `1.5GiB`, `10G` (the same as `10GiB`) or plain bytes.
///
/// # Errors
/// `usage` for anything else, decimal units (`KB`) among it: they would hide a factor of 1.024.
pub fn parse_size(text: &str) -> Result<u64> {
    let refuse = |why: &str| {
        Err(Error::usage(format!("bad size `{}` ({why})", shown(text)))
            .hint("write it as 512, 64KiB, 1.5GiB or 2TiB"))
    };
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let Some(shift) = size_shift(unit) else {
        return match unit.to_ascii_lowercase().as_str() {
            "kb" | "mb" | "gb" | "tb" | "pb" => refuse("units are powers of two"),
            _ => refuse("unknown unit"),
        };
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) {
        return refuse("no number");
    }
    if fraction.len() > 9 || fraction.contains('.') {
        return refuse("not a number");
    }
    let Ok(whole) = whole.parse::<u64>() else {
        return refuse("larger than 2^64 bytes");
    };
    let unit_bytes = 1u128 << shift;
    let part = fraction.parse::<u128>().unwrap_or(0) * unit_bytes
        / 10u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    match u64::try_from(u128::from(whole) * unit_bytes + part) {
        Ok(bytes) => Ok(bytes),
        Err(_) => refuse("larger than 2^64 bytes"),
    }
}

fn size_shift(unit: &str) -> Option<u32> {
    if unit.is_empty() {
        return Some(0);
    }
    SIZE_UNITS
        .iter()
        .find(|(name, shift)| {
            unit.eq_ignore_ascii_case(name) || (*shift > 0 && unit.eq_ignore_ascii_case(&name[..1]))
        })
        .map(|(_, shift)| *shift)
}

/// Writes a size in the largest unit that holds it whole: what [`parse_size`] reads back.
pub fn exact_size(bytes: u64) -> String {
    let (name, shift) = SIZE_UNITS
        .iter()
        .rev()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .unwrap_or(&SIZE_UNITS[0]);
    format!("{}{name}", bytes >> shift)
}

/// Writes a size for people, rounded to one digit behind the point: `1.5GiB`, `17B`.
pub fn human_size(bytes: u64) -> String {
    let (name, shift) = SIZE_UNITS
        .iter()
        .rev()
        .find(|(_, shift)| bytes >> shift > 0)
        .unwrap_or(&SIZE_UNITS[0]);
    let tenths = (u128::from(bytes) * 10 + (1u128 << shift) / 2) >> shift;
    if *shift == 0 || tenths >= 1_000 {
        // 99.96 and more: no digit behind the point. 1,023.9 stays in its unit.
        return format!("{}{name}", (tenths + if *shift == 0 { 0 } else { 5 }) / 10);
    }
    format!("{}.{}{name}", tenths / 10, tenths % 10)
}

/// Reads `500ms`, `30s`, `5m`, `24h`, `30d`, sums of these (`1h30m`) or `0`.
///
/// # Errors
/// `usage` for anything else; a bare number among it, which says no unit.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let refuse = |why: &str| {
        Err(
            Error::usage(format!("bad duration `{}` ({why})", shown(text)))
                .hint("write it as 500ms, 30s, 5m, 24h or 7d"),
        )
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ms = 0u64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if number.is_empty() {
            return refuse("no number");
        }
        if unit.is_empty() && tail.starts_with('.') {
            return refuse("only whole numbers");
        }
        if unit.is_empty() {
            return refuse("no unit");
        }
        let Some((_, unit_ms)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return refuse("unknown unit");
        };
        let sum = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*unit_ms))
            .and_then(|part| total_ms.checked_add(part));
        match sum {
            Some(sum) => total_ms = sum,
            None => return refuse("too long"),
        }
        rest = tail;
    }
    if text.is_empty() {
        return refuse("empty");
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration in the largest unit that holds it whole (milliseconds at least): what
/// [`parse_duration`] reads back.
pub fn exact_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0".into();
    }
    DURATION_UNITS
        .iter()
        .find(|(_, unit_ms)| ms % unit_ms == 0)
        .map(|(name, unit_ms)| format!("{}{name}", ms / unit_ms))
        .expect("every number of milliseconds is a multiple of one")
}

/// Writes a duration for people, in its two largest units, cut to seconds: `2d3h`, `59m10s`, `0s`.
pub fn human_duration(duration: Duration) -> String {
    let mut left = duration.as_secs();
    let mut text = String::new();
    let mut parts = 0;
    for (name, seconds) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        // The unit right behind the largest one, and no other, even if that is 0 of it.
        if left >= seconds || parts > 0 {
            if parts < 2 && left >= seconds {
                text.push_str(&format!("{}{name}", left / seconds));
            }
            parts += 1;
        }
        left %= seconds;
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Reads octal permission bits: `755`, `0644`, `1777`.
///
/// # Errors
/// `usage` for anything else; symbolic modes among it.
pub fn parse_mode(text: &str) -> Result<u16> {
    let octal = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u16::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o7777 => Ok(mode),
        _ => Err(
            Error::usage(format!("bad mode `{}` (not an octal number)", shown(text)))
                .hint("write permission bits as 755 or 0644"),
        ),
    }
}

/// A range of bytes as `--range` takes it: both ends belong to it, as in HTTP and curl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    pub start: u64,
    /// The last byte; `None`: to the end of the file.
    pub last: Option<u64>,
}

/// Reads `START-END` (both included) or `START-`.
///
/// # Errors
/// `usage` for anything else and for a range that ends before it begins.
pub fn parse_range(text: &str) -> Result<ByteRange> {
    let refuse = |why: &str| {
        Err(Error::usage(format!("bad range `{}` ({why})", shown(text)))
            .hint("write it as START-END, both included, or START-; 0-99 is the first 100 bytes"))
    };
    let Some((start, last)) = text.split_once('-') else {
        return refuse("no `-`");
    };
    let Ok(start) = start.parse::<u64>() else {
        return refuse("the start is not a number");
    };
    if last.is_empty() {
        return Ok(ByteRange { start, last: None });
    }
    match last.parse::<u64>() {
        Ok(last) if last >= start => Ok(ByteRange {
            start,
            last: Some(last),
        }),
        Ok(_) => refuse("it ends before it begins"),
        Err(_) => refuse("the end is not a number"),
    }
}

/// What a user typed, cut so that an endless argument does not fill the screen.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use proptest::prelude::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 64 << 10),
            ("64kib", 64 << 10),
            ("64K", 64 << 10),
            ("1.5GiB", 3 << 29),
            ("10GiB", 10 << 30),
            ("2TiB", 2 << 40),
            ("1PiB", 1 << 50),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn bad_sizes_say_why() {
        for (text, why) in [
            ("", "no number"),
            ("KiB", "no number"),
            ("1.KiB", "no number"),
            ("1.2.3", "not a number"),
            ("-1", "unknown unit"),
            ("5MB", "units are powers of two"),
            ("5 MiB", "unknown unit"),
            ("16384PiB", "larger than 2^64 bytes"),
            ("99999999999999999999", "larger than 2^64 bytes"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(error.message.contains(why), "{text}: {}", error.message);
        }
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            (100 << 10, "100KiB"),
            (10 << 30, "10.0GiB"),
            ((1 << 20) - 1, "1024KiB"),
            (u64::MAX, "16384PiB"),
        ] {
            assert_eq!(human_size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn durations_for_people_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_661, "1h1m"),
            (3_601, "1h"),
            (86_399, "23h59m"),
            (86_400 * 3 + 59, "3d"),
            (86_400 * 30 + 7_300, "30d2h"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn durations_as_people_write_them() {
        for (text, ms) in [
            ("0", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("30d", 2_592_000_000),
            ("1h30m", 5_400_000),
        ] {
            assert_eq!(
                parse_duration(text).unwrap(),
                Duration::from_millis(ms),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_durations_say_why() {
        for (text, why) in [
            ("", "empty"),
            ("30", "no unit"),
            ("s", "no number"),
            ("1.5s", "only whole numbers"),
            ("3 s", "no unit"),
            ("3w", "unknown unit"),
            ("99999999999999999999s", "too long"),
            ("18446744073709551615h", "too long"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(error.message.contains(why), "{text}: {}", error.message);
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("755").unwrap(), 0o755);
        assert_eq!(parse_mode("0644").unwrap(), 0o644);
        assert_eq!(parse_mode("7777").unwrap(), 0o7777);
        for bad in ["", "u+x", "888", "10000", "+7", "-1"] {
            assert_eq!(parse_mode(bad).unwrap_err().code, Code::Usage, "{bad}");
        }
    }

    #[test]
    fn ranges_include_both_ends() {
        let range = |start, last| ByteRange { start, last };
        assert_eq!(parse_range("0-99").unwrap(), range(0, Some(99)));
        assert_eq!(parse_range("7-7").unwrap(), range(7, Some(7)));
        assert_eq!(parse_range("100-").unwrap(), range(100, None));
        for bad in ["", "5", "-5", "9-8", "a-b", "1-2-3"] {
            assert_eq!(parse_range(bad).unwrap_err().code, Code::Usage, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn sizes_go_both_ways(number: u64, shift in 0u32..60) {
            let bytes = number >> shift << (shift / 2);
            prop_assert_eq!(parse_size(&exact_size(bytes)).unwrap(), bytes);
        }

        #[test]
        fn durations_go_both_ways(ms in 0u64..1 << 50, unit in 0usize..5) {
            let ms = ms / DURATION_UNITS[unit].1 * DURATION_UNITS[unit].1;
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&exact_duration(duration)).unwrap(), duration);
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".{0,40}") {
            let _ = (parse_size(&text), parse_duration(&text), parse_mode(&text), parse_range(&text));
        }
    }
}
