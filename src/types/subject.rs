//! Pure: who a certificate speaks for, and the text of it that stands in the certificate's
//! common name. Used by `cluster` (writes it) and `net` (believes it once the chain is verified).

use super::ids::NodeId;
use crate::error::{Error, Result};
use crate::limits::USER_NAME_BYTES_MAX;
use std::fmt;

/// The holder of a certificate.
///
/// As text: `node:17`, `user:NAME:GROUP`, `admin:NAME:GROUP`. Names have 1 to 32 bytes of ASCII
/// letters, digits, `_`, `.`, `-`, `@`, and begin with a letter, a digit or `_`; so the text has
/// one reading only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Node(NodeId),
    User {
        name: String,
        /// Primary group: owns what the user makes.
        group: String,
        /// May use the verbs that change the cluster.
        admin: bool,
    },
}

/// What kind of holder a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    Node,
    User,
}

impl Subject {
    pub fn kind(&self) -> SubjectKind {
        match self {
            Subject::Node(_) => SubjectKind::Node,
            Subject::User { .. } => SubjectKind::User,
        }
    }

    /// A user, with names checked.
    ///
    /// # Errors
    /// `usage` when a name is not one.
    pub fn user(name: &str, group: &str, admin: bool) -> Result<Subject> {
        check_name("user", name)?;
        check_name("group", group)?;
        Ok(Subject::User {
            name: name.to_owned(),
            group: group.to_owned(),
            admin,
        })
    }

    /// Reads the text that `Display` writes.
    ///
    /// # Errors
    /// `usage` for any other text.
    pub fn parse(text: &str) -> Result<Subject> {
        let refuse = || Error::usage("bad subject of a certificate (not a node, not a user)");
        let (kind, rest) = text.split_once(':').ok_or_else(refuse)?;
        if kind == "node" {
            let id = rest.parse::<u64>().map_err(|_| refuse())?;
            // One text for one node: no sign, no leading zeros; ids begin with 1.
            if id == 0 || id.to_string() != rest {
                return Err(refuse());
            }
            return Ok(Subject::Node(NodeId(id)));
        }
        let admin = match kind {
            "admin" => true,
            "user" => false,
            _ => return Err(refuse()),
        };
        let (name, group) = rest.split_once(':').ok_or_else(refuse)?;
        Subject::user(name, group, admin)
    }

    /// Fails for a value that was put together with names that are not ones; `parse` and `user`
    /// never make such.
    pub fn check(&self) -> Result<()> {
        Subject::parse(&self.to_string()).map(drop)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(id) => write!(f, "node:{id}"),
            Subject::User { name, group, admin } => {
                let kind = if *admin { "admin" } else { "user" };
                write!(f, "{kind}:{name}:{group}")
            }
        }
    }
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-@".contains(&byte);
    let why = match name.as_bytes() {
        [] => "it is empty",
        bytes if bytes.len() > USER_NAME_BYTES_MAX => "it is longer than 32 bytes",
        [first, ..] if !first.is_ascii_alphanumeric() && *first != b'_' => {
            "it must begin with a letter, a digit or `_`"
        }
        bytes if !bytes.iter().all(|&byte| allowed(byte)) => {
            "only ASCII letters, digits, `_`, `.`, `-` and `@` are allowed"
        }
        _ => return Ok(()),
    };
    Err(Error::usage(format!("bad {what} name ({why})")).hint(format!("use another {what} name")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_not_a_subject() {
        let long = format!("user:{}:g", "x".repeat(33));
        for bad in [
            "",
            "node",
            "node:",
            "node:0",
            "node:+1",
            "node:01",
            "node:x",
            "nodes:1",
            "user:a",
            "user::g",
            "user:a:",
            "user:a:b:c",
            "user:-a:g",
            "user:a b:g",
            "user:é:g",
            "root:a:b",
            &long,
        ] {
            assert!(Subject::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hand_made_subject_with_a_colon_in_a_name_fails_its_check() {
        let sly = Subject::User {
            name: "eve:admin".into(),
            group: "g".into(),
            admin: false,
        };
        assert!(sly.check().is_err());
    }

    proptest! {
        #[test]
        fn text_goes_both_ways(name in "[a-z0-9_][a-zA-Z0-9_.@-]{0,31}", group in "[a-z]{1,32}",
                               admin: bool, id in 1u64..) {
            for subject in [Subject::user(&name, &group, admin).unwrap(), Subject::Node(NodeId(id))] {
                prop_assert_eq!(Subject::parse(&subject.to_string()).unwrap(), subject);
            }
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".*") {
            if let Ok(subject) = Subject::parse(&text) {
                prop_assert_eq!(subject.to_string(), text);
            }
        }
    }
}
