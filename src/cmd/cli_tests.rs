//! Tests of the command line as a whole: what is accepted, refused, and how.

use super::{Cli, parse, status_of, wants_json};
use crate::client::OpenChange;
use crate::error::{Code, Error};
use crate::types::DfsPath;
use clap::CommandFactory;
use std::ffi::OsString;

fn args(line: &str) -> Vec<OsString> {
    std::iter::once("dfs")
        .chain(line.split_whitespace())
        .map(OsString::from)
        .collect()
}

fn accepts(line: &str) -> Cli {
    parse(&args(line)).unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn refuses(line: &str) -> Error {
    match parse(&args(line)) {
        Ok(_) => panic!("{line}: accepted"),
        Err(e) => super::usage_error(&e),
    }
}

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_shape_is_accepted() {
    for line in [
        "serve --data d --listen 127.0.0.1:0 --advertise h:1 --zone z --rack r --capacity 10GiB",
        "serve --config f --json",
        "mkdir -p --mode 755 /a /b",
        "ls -l -R -h --limit 5 --stream /",
        "ls --sort size /",
        "ls --sort time --read stale /",
        "ls --after x --read bounded:5s /",
        "put a /b",
        "put -r --if-absent -j 4 a b /c",
        "put --if-version 3 - /c",
        "put --overwrite --op-id x a /c",
        "get -r -j 2 -f /a .",
        "get --version 3 --range 0-99 /a -",
        "cat --version 1 --range 5- /a /b",
        "rm -r -f /a /b",
        "rm --if-version 3 /a",
        "rmdir /a /b",
        "mv --if-absent /a /b /c",
        "mv --overwrite /a /b",
        "cp -r /a /b /c",
        "stat /a /b",
        "tree -L 2 /a",
        "du -h /a /b",
        "find / --name *.txt --newer 24h --older 1h --size +10MiB --owner u --type f --stream",
        "find / --size -10MiB --type d",
        "versions /a",
        "restore /a --version 2",
        "undelete --list /a",
        "undelete /a --op-id x",
        "chmod 0644 /a /b",
        "chown u:g /a /b",
        "status",
        "fsck",
        "fsck /a --quick",
        "gc --now",
        "token create --client",
        "token create --client --user u --group g --admin --ttl 2h",
        "token create --user u --group g --admin",
        "token create --node --ttl 1h",
        "op status 00-1-2",
        "completions bash",
        "man out",
        "--cluster a:1,b:2 --identity f --config c --json -q -v -v --no-progress --timeout 5s ls /",
        "ls / --json --timeout 500ms",
    ] {
        accepts(line);
    }
}

#[test]
fn options_may_stand_between_sources_and_target() {
    for line in [
        "put a --overwrite /b",
        "get /a --version 3 b",
        "mv /a --overwrite /b",
        "cp /a -r /b /c",
    ] {
        accepts(line);
    }
}

#[test]
fn an_argument_that_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let mut line = args("mkdir");
    line.push(OsString::from_vec(b"/a\xff".to_vec()));
    assert_eq!(
        super::first_not_utf8(&line).to_string(),
        "/a\u{fffd}: bad path (not UTF-8); names in the cluster are UTF-8; rename it"
    );
}

#[test]
fn verbs_this_version_does_not_have_are_unknown() {
    for verb in [
        "lock", "watch", "batch", "snapshot", "quota", "sync", "node", "token",
    ] {
        let error = refuses(&format!("{verb} /a"));
        assert_eq!(error.code, Code::Usage);
        assert!(
            error.message.starts_with("unrecognized subcommand"),
            "{error}"
        );
    }
}

#[test]
fn conditions_exclude_each_other() {
    for line in [
        "put --overwrite --if-version 1 a /b",
        "put --overwrite --if-absent a /b",
        "rm -r --if-version 1 /a",
        "mv --if-absent --overwrite /a /b",
        "get -r --version 1 /a b",
    ] {
        let error = refuses(line);
        assert!(
            error.message.contains("cannot be used with"),
            "{line}: {error}"
        );
    }
}

#[test]
fn a_token_is_for_a_node_or_for_a_user() {
    for line in [
        "token create --node --client",
        "token create --node --user u",
        "token create --group g",
        "token create --admin",
    ] {
        assert_eq!(refuses(line).code, Code::Usage, "{line}");
    }
}

#[test]
fn a_listing_of_nothing_is_refused() {
    for line in [
        "ls --limit 0 /",
        "ls -R --limit 0 /",
        "ls --sort size --limit 0 /",
    ] {
        let error = refuses(line);
        assert_eq!(error.code, Code::Usage, "{line}");
        assert!(error.message.contains("--limit"), "{line}: {error}");
    }
}

#[test]
fn a_bad_value_is_refused_in_our_words() {
    assert_eq!(
        refuses("ls --timeout 5 /").to_string(),
        "invalid value '5' for '--timeout <DUR>': bad duration `5` (no unit); \
         write it as 500ms, 30s, 5m, 24h or 7d; add --help to see how it is used"
    );
    for line in [
        "chmod u+x /a",
        "restore /a --version 0",
        "put -j 0 a /b",
        "serve --capacity 0",
        "tree -L 0 /",
        "ls",
    ] {
        assert_eq!(refuses(line).code, Code::Usage, "{line}");
    }
}

#[test]
fn a_near_miss_is_pointed_out() {
    let error = refuses("stats /a");
    assert!(
        error.hint.unwrap().starts_with("did you mean `stat"),
        "{}",
        error.message
    );
}

#[test]
fn json_is_known_even_where_the_line_cannot_be_read() {
    assert!(wants_json(&args("ls --json --nonsense")));
    assert!(!wants_json(&args("ls --nonsense -- --json")));
}

#[test]
fn exit_statuses_come_from_the_code() {
    assert_eq!(super::main(args("nonsense")), 2);
    assert_eq!(super::main(args("")), 2);
    assert_eq!(
        status_of(Err(Error::new(Code::Interrupted, "x").into()), false),
        130
    );
    assert_eq!(
        status_of(Err(super::Failure::Reported(Code::Partial)), false),
        10
    );
}

#[test]
fn what_was_stopped_in_the_middle_of_a_change_says_so_and_how_to_find_out() {
    let quiet = super::interrupted(None);
    assert_eq!(
        (quiet.code, quiet.may_have_happened),
        (Code::Interrupted, false)
    );
    let open = |path: Option<&str>, op_id: Option<&str>| OpenChange {
        path: path.map(|path| DfsPath::parse(path).unwrap()),
        op_id: op_id.map(str::to_owned),
    };
    let error = super::interrupted(Some(open(Some("/a"), Some("job"))));
    assert!(error.may_have_happened);
    assert_eq!(
        super::failure::rendered(&error, false),
        "dfs: /a: interrupted (it may have happened); ask later with `dfs op status job`\n"
    );
    let error = super::interrupted(Some(open(None, None)));
    assert!(error.may_have_happened);
    assert_eq!(
        error.to_string(),
        "interrupted (it may have happened); look whether it was done"
    );
}
