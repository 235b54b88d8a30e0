//! What takes bytes that others wrote, as plain functions of those bytes: one a target. Run by
//! `fuzz/` (libFuzzer) and by `tests/corpora.rs` (saved inputs and seeded noise); no part of the
//! program.
//!
//! A target takes any bytes. It may not panic, hang, or hold memory out of proportion to its
//! input; where it says more than that, it asserts it.

mod disk;
mod state;
mod text;
mod wire;

/// One decoder, or a piece of work behind one.
pub struct Target {
    /// Also the name of its corpus, `testdata/fuzz/NAME/`, and of its binary in `fuzz/`.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Well-formed inputs to begin from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs of a test run: fewer where one takes long.
    pub runs: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("wire_call", wire::call, wire::calls, 2_000),
    target("wire_answer", wire::answer, wire::answers, 2_000),
    target("request", wire::request, wire::requests, 2_000),
    target(
        "raft_message",
        crate::raft::takes_message,
        wire::raft_messages,
        2_000,
    ),
    target("commands", state::commands, state::command_lists, 1_000),
    target("records", state::records, state::record_samples, 2_000),
    target("shard_state", state::shard_state, state::state_changes, 600),
    target(
        "root_command",
        state::root_command,
        state::root_commands,
        2_000,
    ),
    target("log_segment", disk::log_segment, disk::log_segments, 300),
    target("pack", disk::pack, disk::packs, 400),
    target("chunk_file", disk::chunk_file, disk::chunk_files, 400),
    target("image", disk::image, disk::images, 1_000),
    target("identity", text::identity, text::identities, 500),
    target("certificate", text::certificate, text::certificates, 2_000),
    target(
        "certificate_request",
        text::certificate_request,
        text::certificate_requests,
        1_000,
    ),
    target(
        "sealed_authority",
        text::sealed_authority,
        text::sealed_authorities,
        2_000,
    ),
    target("config", text::config, text::configs, 2_000),
    target("names", text::names, text::name_samples, 2_000),
];

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    runs: usize,
) -> Target {
    Target {
        name,
        run,
        seeds,
        runs,
    }
}

/// Runs one target by its name.
///
/// # Panics
/// When there is none of that name, and when the target finds something.
pub fn run(name: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|target| target.name == name);
    (found.expect("the name is in TARGETS").run)(bytes);
}
