//! Pure: small pieces of text that several verbs show: names made harmless, mode strings, times.
//! Nothing in here allocates: a listing has a million lines.

use crate::types::{Kind, WallTime};
use std::fmt::{self, Write};

/// A text of somebody else's making. With `escape`, control characters are written as escapes,
/// so that a file name cannot move the cursor or fake a line.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    text: &'a str,
    escape: bool,
}

impl<'a> Shown<'a> {
    /// As it is for a pipe, escaped for a terminal.
    pub fn new(text: &'a str, terminal: bool) -> Self {
        Shown {
            text,
            escape: terminal,
        }
    }

    /// Escaped in any case.
    pub fn safe(text: &'a str) -> Self {
        Self::new(text, true)
    }
}

/// Characters that change how a terminal shows what follows: controls and the marks that turn
/// the direction of writing.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.escape || !self.text.contains(is_harmful) {
            return f.pad(self.text);
        }
        for c in self.text.chars() {
            if is_harmful(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// `-rw-r--r--`, `drwxr-xr-x`, with the set-id and sticky bits as `ls` shows them.
#[derive(Clone, Copy)]
pub struct ModeString(pub Kind, pub u16);

impl fmt::Display for ModeString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModeString(kind, mode) = *self;
        let mut text = *b"----------";
        if kind == Kind::Dir {
            text[0] = b'd';
        }
        for (index, letter) in b"rwxrwxrwx".iter().enumerate() {
            if mode & (0o400 >> index) != 0 {
                text[index + 1] = *letter;
            }
        }
        // The special bits stand in the place of the execute bits: small where those are set.
        for (special, at, letter) in [(0o4000, 3, b's'), (0o2000, 6, b's'), (0o1000, 9, b't')] {
            if mode & special != 0 {
                let execute = text[at] == b'x';
                text[at] = if execute {
                    letter
                } else {
                    letter.to_ascii_uppercase()
                };
            }
        }
        f.write_str(std::str::from_utf8(&text).expect("the letters are ASCII"))
    }
}

/// RFC 3339 in UTC: with milliseconds for JSON, without for people.
#[derive(Clone, Copy)]
pub struct Time {
    at: WallTime,
    digits: usize,
}

impl Time {
    pub fn exact(at: WallTime) -> Self {
        Time { at, digits: 3 }
    }

    pub fn human(at: WallTime) -> Self {
        Time { at, digits: 0 }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A time outside the years -9999 to 9999 can only come from a damaged clock; it is shown
        // as the nearest that can be written.
        // The last second of either end is left out: its parts are not all in range.
        let min = jiff::Timestamp::MIN.as_second() * 1_000 + 1_000;
        let max = jiff::Timestamp::MAX.as_second() * 1_000 - 1_000;
        let ms = self.at.0.clamp(min, max);
        let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{time:.digits$}", digits = self.digits)
    }
}

/// `1 file`, `2 files`.
#[derive(Clone, Copy)]
pub struct Count(pub u64, pub &'static str, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.0,
            if self.0 == 1 { self.1 } else { self.2 }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modes_look_as_ls_shows_them() {
        for (kind, mode, text) in [
            (Kind::File, 0o644, "-rw-r--r--"),
            (Kind::Dir, 0o755, "drwxr-xr-x"),
            (Kind::Dir, 0o1777, "drwxrwxrwt"),
            (Kind::Dir, 0o1776, "drwxrwxrwT"),
            (Kind::File, 0o4711, "-rws--x--x"),
            (Kind::File, 0o6600, "-rwS--S---"),
            (Kind::File, 0, "----------"),
        ] {
            assert_eq!(ModeString(kind, mode).to_string(), text);
        }
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        let at = WallTime(1_700_000_000_007);
        assert_eq!(Time::exact(at).to_string(), "2023-11-14T22:13:20.007Z");
        assert_eq!(Time::human(at).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(
            Time::exact(WallTime(0)).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
        assert_eq!(
            Time::exact(WallTime(-1)).to_string(),
            "1969-12-31T23:59:59.999Z"
        );
    }

    #[test]
    fn impossible_times_are_shown_as_the_nearest() {
        assert_eq!(
            Time::human(WallTime(i64::MAX)).to_string(),
            "9999-12-30T21:59:59Z"
        );
        assert!(
            Time::exact(WallTime(i64::MIN))
                .to_string()
                .starts_with("-009999")
        );
    }

    #[test]
    fn names_are_escaped_for_terminals_only() {
        let name = "a\x1b[2J\tb\u{202e}";
        assert_eq!(Shown::new(name, false).to_string(), name);
        assert_eq!(
            Shown::new(name, true).to_string(),
            "a\\u{1b}[2J\\tb\\u{202e}"
        );
        assert_eq!(Shown::new("größe", true).to_string(), "größe");
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text in ".*") {
            let shown = Shown::safe(&text).to_string();
            prop_assert!(!shown.contains(is_harmful));
        }
    }
}
