//! Pure: the name patterns of `find --name`: `*`, `?`, `[a-z]`, `[!a-z]`, `\` before a character
//! that stands for itself. A pattern matches the whole name, case counts.

use crate::error::{Error, Result};

/// A pattern, checked when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Any,
    /// `[…]`: inclusive ranges, and whether they are the ones not meant.
    Class(Vec<(char, char)>, bool),
}

impl Glob {
    /// # Errors
    /// `usage` for a class without an end, a range backwards, or nothing behind the last `\`.
    pub fn parse(text: &str) -> Result<Glob> {
        let refuse = |why: &str| {
            Err(Error::usage(format!("bad pattern `{text}` ({why})"))
                .hint("use *, ?, [a-z] and \\ before a character that stands for itself"))
        };
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' if tokens.last() == Some(&Token::Any) => continue,
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => match chars.next() {
                    Some(c) => Token::Char(c),
                    None => return refuse("nothing behind the last `\\`"),
                },
                '[' => {
                    let rest = chars.as_str();
                    let Some((class, used)) = parse_class(rest) else {
                        return refuse("a class without an end or with a range backwards");
                    };
                    chars = rest[used..].chars();
                    class
                }
                c => Token::Char(c),
            });
        }
        Ok(Glob(tokens))
    }

    /// Time grows with name length times pattern length at worst: only the last `*` is ever
    /// tried again.
    pub fn matches(&self, name: &str) -> bool {
        let mut rest = name.chars();
        let mut at = 0;
        // Behind the last `*`: its token, and what it has not swallowed yet.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            let mut ahead = rest.clone();
            match (self.0.get(at), ahead.next()) {
                (None, None) => return true,
                (Some(Token::Any), _) => {
                    at += 1;
                    retry = Some((at, rest.clone()));
                    continue;
                }
                (Some(token), Some(c)) if token.takes(c) => {
                    at += 1;
                    rest = ahead;
                    continue;
                }
                _ => {}
            }
            let Some((token, unswallowed)) = &mut retry else {
                return false;
            };
            if unswallowed.next().is_none() {
                return false;
            }
            (at, rest) = (*token, unswallowed.clone());
        }
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Token::Char(own) => *own == c,
            Token::One | Token::Any => true,
            Token::Class(ranges, not) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *not
            }
        }
    }
}

/// Reads a class behind its `[`; the token and the bytes used, the `]` included.
fn parse_class(text: &str) -> Option<(Token, usize)> {
    let not = text.starts_with(['!', '^']);
    let mut chars = text.char_indices().skip(usize::from(not)).peekable();
    let mut ranges = Vec::new();
    while let Some((at, c)) = chars.next() {
        // A `]` at the very beginning stands for itself.
        if c == ']' && !ranges.is_empty() {
            return Some((Token::Class(ranges, not), at + 1));
        }
        let from = if c == '\\' { chars.next()?.1 } else { c };
        let mut ahead = chars.clone();
        let to = match (ahead.next(), ahead.next()) {
            (Some((_, '-')), Some((_, to))) if to != ']' => {
                chars = ahead;
                to
            }
            _ => from,
        };
        if to < from {
            return None;
        }
        ranges.push((from, to));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in [
            ("*.txt", "a.txt"),
            ("*", ""),
            ("a*b*c", "a-b-b-c"),
            ("?at", "cat"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[a-]", "-"),
            ("\\*", "*"),
            ("gr?ße", "größe"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.txt", "a.txt.gz"),
            ("a", "A"),
            ("?", ""),
            ("?", "ab"),
            ("[a-c]x", "dx"),
            ("\\*", "a"),
            ("a*b*c", "acb"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["[", "[a", "[z-a]", "a\\", "[]"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
        assert!(!matches("*a*a*a*a*a*a*a*a*b", &"a".repeat(255)));
    }

    /// The definition, exponential: `*` takes nothing or one more.
    fn model(pattern: &[char], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some('*'), first) => {
                model(&pattern[1..], name) || (first.is_some() && model(pattern, &name[1..]))
            }
            (Some('?'), Some(_)) => model(&pattern[1..], &name[1..]),
            (Some(p), Some(c)) if p == c => model(&pattern[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(matches(&pattern, &name), model(&p, &n));
        }

        #[test]
        fn any_pattern_is_judged_without_panic(pattern in ".{0,20}", name in ".{0,20}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                glob.matches(&name);
            }
        }
    }
}
