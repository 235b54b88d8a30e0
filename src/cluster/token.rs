//! Join tokens: one word that proves the cluster to whoever joins and him to the cluster. Made and
//! judged by `node`, typed into `cmd`. May not decide what a token is good for, or how long: that
//! is the cluster's record of it.
//!
//! ```text
//! dfs1- and the hexadecimal form of:
//! pin 16 │ id u64 big-endian │ secret 16 │ check 4
//! ```
//! *pin* is the beginning of the BLAKE3 of the CA's certificate, *check* that of the BLAKE3 of all
//! before it: a token that was mistyped or cut off is told from one that the cluster does not
//! know. Lower case is written, both are read. A later form has another number after `dfs`.

use crate::env::Rng;
use crate::error::{Error, Result};
use crate::types::CaPin;
use std::fmt;
use zeroize::Zeroizing;

const PREFIX: &str = "dfs1-";
const PIN_BYTES: usize = 16;
const SECRET_BYTES: usize = 16;
const CHECK_BYTES: usize = 4;
const BODY_BYTES: usize = PIN_BYTES + 8 + SECRET_BYTES;
const TOKEN_BYTES: usize = BODY_BYTES + CHECK_BYTES;

/// What `dfs token create` prints. Whoever has it may ask for a certificate until it is spent.
#[derive(Clone)]
pub struct JoinToken {
    pin: CaPin,
    id: u64,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl JoinToken {
    /// A new token: `id` names it within the cluster, `ca` is the CA's certificate (DER).
    pub fn create(rng: &dyn Rng, id: u64, ca: &[u8]) -> JoinToken {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rng.fill(&mut *secret);
        let pin = CaPin::of(ca);
        JoinToken { pin, id, secret }
    }

    /// Reads what `Display` wrote, white space around it aside. Takes any text.
    ///
    /// # Errors
    /// `usage`; it never shows the text.
    pub fn parse(text: &str) -> Result<JoinToken> {
        let text = text.trim_ascii();
        let Some(digits) = text.strip_prefix(PREFIX) else {
            return Err(match is_of_another_version(text) {
                true => refused("it is of another version of dfs")
                    .hint("use the same version of dfs as the cluster"),
                false => refused("it does not begin with `dfs1-`"),
            });
        };
        let token = bytes_of(digits)?;
        let (body, check) = token.split_at(BODY_BYTES);
        if check != check_of(body) {
            return Err(refused("it was mistyped: a character is wrong"));
        }
        let (pin, rest) = body.split_at(PIN_BYTES);
        let (id, secret) = rest.split_at(8);
        let (Ok(pin), Ok(id)) = (pin.try_into(), id.try_into()) else {
            unreachable!("the body was split at their sizes");
        };
        let mut token = JoinToken {
            pin: CaPin(pin),
            id: u64::from_be_bytes(id),
            secret: Zeroizing::new([0; SECRET_BYTES]),
        };
        token.secret.copy_from_slice(secret);
        Ok(token)
    }

    /// Of the CA that must be found at the other end.
    pub fn pin(&self) -> CaPin {
        self.pin
    }

    /// Its name within the cluster.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What is shown to the cluster, over a connection that the pin was checked for.
    pub fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    /// What the cluster keeps instead of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        join_secret_hash(self.id, &self.secret)
    }
}

/// What the cluster keeps instead of the secret of a token.
pub fn join_secret_hash(id: u64, secret: &[u8; SECRET_BYTES]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("dfs 1 join token secret");
    hasher.update(&id.to_be_bytes()).update(secret);
    *hasher.finalize().as_bytes()
}

impl fmt::Display for JoinToken {
    /// The whole token, secret and all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = Zeroizing::new([0; BODY_BYTES]);
        let (pin, rest) = body.split_at_mut(PIN_BYTES);
        let (id, secret) = rest.split_at_mut(8);
        pin.copy_from_slice(&self.pin.0);
        id.copy_from_slice(&self.id.to_be_bytes());
        secret.copy_from_slice(&*self.secret);
        f.write_str(PREFIX)?;
        let check = check_of(&*body);
        let mut bytes = body.iter().chain(&check);
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for JoinToken {
    /// The secret never shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("pin", &self.pin)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn check_of(body: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::derive_key("dfs 1 join token check", body);
    *hash.first_chunk().expect("a hash has 32 bytes")
}

fn bytes_of(digits: &str) -> Result<Zeroizing<[u8; TOKEN_BYTES]>> {
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refused("it holds a character that no token has"));
    }
    if digits.len() != 2 * TOKEN_BYTES {
        let why = match digits.len() < 2 * TOKEN_BYTES {
            true => "it is cut off",
            false => "it is too long",
        };
        return Err(refused(why));
    }
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| {
            let value = char::from(*digit).to_digit(16).unwrap_or_default();
            (byte << 4) | u8::try_from(value).unwrap_or_default()
        });
    }
    Ok(bytes)
}

/// `dfs2-…` and the like.
fn is_of_another_version(text: &str) -> bool {
    let rest = text
        .strip_prefix("dfs")
        .and_then(|rest| rest.split_once('-'));
    rest.is_some_and(|(version, _)| {
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn refused(why: &str) -> Error {
    Error::usage(format!("bad token ({why})"))
        .hint("copy the whole line that `dfs token create` printed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test_rng;
    use crate::error::Code;
    use proptest::prelude::*;

    fn token() -> JoinToken {
        JoinToken::create(&test_rng(1), 7, b"a CA's certificate")
    }

    #[test]
    fn its_text_is_one_plain_word_and_comes_back() {
        let token = token();
        let text = token.to_string();
        assert!(text.starts_with("dfs1-") && text.len() == 93, "{text}");
        assert!(
            text[5..]
                .bytes()
                .all(|byte| b"0123456789abcdef".contains(&byte))
        );
        for text in [text.clone(), format!(" {text}\n")] {
            let again = JoinToken::parse(&text).unwrap();
            assert_eq!(
                (again.id(), again.pin()),
                (7, CaPin::of(b"a CA's certificate"))
            );
            assert_eq!(again.secret(), token.secret());
            assert_eq!(again.secret_hash(), token.secret_hash());
        }
        let upper = format!("dfs1-{}", text[5..].to_ascii_uppercase());
        assert_eq!(JoinToken::parse(&upper).unwrap().secret(), token.secret());
    }

    #[test]
    fn a_token_that_was_mistyped_or_cut_off_says_so() {
        let text = token().to_string();
        let longer = format!("{text}0");
        for (bad, why) in [
            ("", "does not begin"),
            ("hunter2", "does not begin"),
            (&text[5..], "does not begin"),
            ("dfs2-00ff", "another version"),
            ("dfs1-", "cut off"),
            (&text[..text.len() - 1], "cut off"),
            (&longer, "too long"),
            (&text.replace("dfs1-", "dfs1-é"), "no token has"),
            (&text.replacen(&text[5..6], "g", 1), "no token has"),
        ] {
            let error = JoinToken::parse(bad).unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(error.message.contains(why), "{bad}: {error}");
            assert!(error.hint.is_some());
        }
        // Any single wrong digit is noticed.
        for at in 5..text.len() {
            let digit = if &text[at..=at] == "0" { "1" } else { "0" };
            let wrong = [&text[..at], digit, &text[at + 1..]].concat();
            let error = JoinToken::parse(&wrong).unwrap_err();
            assert!(error.message.contains("mistyped"), "{wrong}: {error}");
            assert!(!error.to_string().contains(&wrong[5..]), "{error}");
        }
    }

    #[test]
    fn another_secret_or_another_id_does_not_match() {
        let token = token();
        let other = JoinToken::create(&test_rng(2), 7, b"a CA's certificate");
        assert_ne!(other.secret_hash(), token.secret_hash());
        assert_ne!(token.secret_hash(), join_secret_hash(8, token.secret()));
        assert_eq!(token.secret_hash(), join_secret_hash(7, token.secret()));
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = token();
        let shown = format!("{token:?}");
        let text = token.to_string();
        let secret = &text[5 + 2 * (PIN_BYTES + 8)..][..2 * SECRET_BYTES];
        assert!(
            shown.contains("id: 7") && !shown.contains(secret),
            "{shown}"
        );
        assert!(!shown.contains("secret"), "{shown}");
    }

    proptest! {
        #[test]
        fn takes_any_text(text in ".*", digits in "[0-9a-fA-F]{80,96}") {
            prop_assert!(JoinToken::parse(&text).is_err());
            if let Ok(token) = JoinToken::parse(&format!("dfs1-{digits}")) {
                prop_assert_eq!(token.to_string()[5..].to_owned(), digits.to_lowercase());
            }
        }
    }
}
