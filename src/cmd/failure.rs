//! How a verb ends other than well, and how errors look on the screen. Called by every verb; the
//! only place that writes errors to standard error.

use super::text::Shown;
use crate::error::{Code, Error, NO_SUCH_ENTRY};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde::Serialize;
use std::io::{self, Write};

/// What every verb returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a verb ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// To be reported, then its exit status.
    Error(Error),
    /// Everything was reported already; only the exit status is left.
    Reported(Code),
    /// Whoever read our standard output has gone: nothing to say to anybody.
    PipeClosed,
}

impl Failure {
    /// The shell's number for a process that SIGPIPE ended.
    const PIPE_STATUS: u8 = 141;

    pub fn exit_status(&self) -> u8 {
        match self {
            Failure::Error(error) => error.code.exit_status(),
            Failure::Reported(code) => code.exit_status(),
            Failure::PipeClosed => Self::PIPE_STATUS,
        }
    }

    /// A failed write to standard output.
    pub fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::PipeClosed,
            _ => Failure::Error(Error::failed(format!(
                "cannot write to standard output ({error})"
            ))),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

/// `{"error":{…}}`; fields that say nothing are null, so that scripts may always ask for them.
#[derive(Serialize)]
struct Document<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'static str,
    path: Option<&'a str>,
    message: &'a str,
    current_version: Option<u64>,
    hint: Option<&'a str>,
    may_have_happened: bool,
}

/// What to do where nobody who knew more has said it.
fn next_step(error: &Error) -> Option<&'static str> {
    match error.message.as_str() {
        NO_SUCH_ENTRY => Some("`dfs ls` of the directory above it shows what is there"),
        _ if error.is_of_directory() => Some("name a file in it"),
        _ => None,
    }
}

/// One line: `dfs: PATH: what is wrong (cause); what to do`, or the JSON document.
pub fn rendered(error: &Error, json: bool) -> String {
    let advised = next_step(error).map(|step| error.clone().hint(step));
    let error = advised.as_ref().unwrap_or(error);
    if !json {
        let open = if error.may_have_happened && !error.message.contains("may have happened") {
            "; it may have happened"
        } else {
            ""
        };
        // Names come from other people: none of them may speak to the terminal.
        return format!("dfs: {}{open}\n", Shown::safe(&error.to_string()));
    }
    let document = Document {
        error: Body {
            code: error.code.name(),
            path: error.path.as_deref(),
            message: &error.message,
            current_version: error.current_version,
            hint: error.hint.as_deref(),
            may_have_happened: error.may_have_happened,
        },
    };
    let mut line = serde_json::to_string(&document).expect("plain texts and numbers are JSON");
    line.push('\n');
    line
}

/// Writes an error to standard error.
pub fn report(error: &Error, json: bool) {
    // Where even standard error is closed there is nobody left to tell.
    let _ = io::stderr().write_all(rendered(error, json).as_bytes());
}

/// A line on standard error that is no error.
pub fn tell(text: impl std::fmt::Display) {
    let line = format!("dfs: {}\n", Shown::safe(&text.to_string()));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Says what to do in this verb's words instead of the shard's.
pub fn advise(mut error: Error, hint: &str) -> Error {
    error.hint = Some(hint.into());
    error
}

/// What clap found wrong, in our words: `what is wrong; what to do`.
pub fn usage_error(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let body = text.strip_prefix("error: ").unwrap_or(&text);
    // The first paragraph says what is wrong; tips and usage follow.
    let wrong: Vec<&str> = body
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let tip = error
        .context()
        .find_map(|(kind, value)| match (kind, value) {
            (
                ContextKind::SuggestedSubcommand | ContextKind::SuggestedArg,
                ContextValue::String(name),
            ) => Some(format!("did you mean `{name}`?")),
            (
                ContextKind::SuggestedSubcommand | ContextKind::SuggestedArg,
                ContextValue::Strings(names),
            ) if !names.is_empty() => Some(format!("did you mean `{}`?", names.join("` or `"))),
            _ => None,
        });
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "no command given".into(),
        _ => wrong.join(" "),
    };
    Error::usage(message).hint(match tip {
        Some(tip) => format!("{tip} `dfs --help` shows what there is"),
        None => "add --help to see how it is used".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_errors_say_what_to_do_next() {
        let missing = Error::not_found(NO_SUCH_ENTRY).at("/a");
        assert_eq!(
            rendered(&missing, false),
            "dfs: /a: no such file or directory; `dfs ls` of the directory above it shows what is \
             there\n"
        );
        let directory = Error::new(Code::Conflict, "it is a directory (not a file)").at("/d");
        assert!(rendered(&directory, true).contains("\"hint\":\"name a file in it\""));
        let known = directory.hint("use get -r");
        assert!(rendered(&known, false).ends_with("; use get -r\n"));
    }

    #[test]
    fn text_is_one_line_with_path_cause_and_next_step() {
        let error = Error::new(Code::Exists, "the name is taken (version 3)")
            .at("/a")
            .hint("use --overwrite")
            .version(3);
        assert_eq!(
            rendered(&error, false),
            "dfs: /a: the name is taken (version 3); use --overwrite\n"
        );
    }

    #[test]
    fn json_has_every_field_in_order() {
        let error = Error::new(Code::Conflict, "version moved on (it is 7)")
            .at("/a")
            .hint("get it again")
            .version(7);
        assert_eq!(
            rendered(&error, true),
            "{\"error\":{\"code\":\"conflict\",\"path\":\"/a\",\
             \"message\":\"version moved on (it is 7)\",\"current_version\":7,\
             \"hint\":\"get it again\",\"may_have_happened\":false}}\n"
        );
    }

    #[test]
    fn an_open_outcome_is_said_in_both_forms() {
        let error = Error::unavailable("no quorum").unknown_outcome();
        assert_eq!(
            rendered(&error, false),
            "dfs: no quorum; it may have happened\n"
        );
        assert!(rendered(&error, true).contains("\"may_have_happened\":true"));
    }

    #[test]
    fn control_characters_of_a_name_do_not_reach_the_terminal() {
        let error = Error::not_found("no such file").at("/a\x1b[31m\nb");
        assert_eq!(
            rendered(&error, false),
            "dfs: /a\\u{1b}[31m\\nb: no such file\n"
        );
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let closed = Failure::output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed, Failure::PipeClosed);
        assert_eq!(closed.exit_status(), 141);
        let full = Failure::output(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.exit_status(), 1);
    }
}
