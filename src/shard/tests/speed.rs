//! What a create costs. Ignored by default: a measurement, not a test.

use crate::shard::command::{Command, Proposal, Request};
use crate::shard::records::Settings;
use crate::shard::testing::{TestShard, put};
use crate::shard::{Batch, apply};
use crate::types::{Lane, OpSeq, Precondition, SessionId, ShardTime, WallTime};

#[test]
#[ignore = "measures; run with --release --nocapture"]
fn creates_a_second() {
    let mut shard = TestShard::new(Settings::default());
    for at in ["/a", "/a/b", "/a/b/c"] {
        shard.mkdir(at);
    }
    let text = "x".repeat(1_024);
    let proposal = |round: u64| {
        let requests = (0..128)
            .map(|lane| Request {
                session: SessionId([3; 16]),
                lane: Lane(lane % 64),
                seq: OpSeq(round * 2 + u64::from(lane / 64) + 1),
                met: ShardTime(0),
                user: "ann".into(),
                group: "staff".into(),
                held: None,
                ops: vec![put(
                    &format!("/a/b/c/file-{round}-{lane}"),
                    &text,
                    Precondition::Absent,
                )],
            })
            .collect();
        Command::Propose(Proposal {
            time: ShardTime(round),
            wall: WallTime(5),
            requests,
            chores: Vec::new(),
        })
    };
    let commands: Vec<Command> = (0..300).map(proposal).collect();
    let encoded: Vec<Vec<u8>> = commands.iter().map(crate::codec::encode).collect();
    // A test may look at the clock.
    #[allow(clippy::disallowed_methods)]
    let start = std::time::Instant::now();
    for bytes in &encoded {
        let mut batch = Batch::new(&shard.slot).unwrap();
        let command: Command = crate::codec::decode(bytes).unwrap();
        apply(&mut batch, &command).unwrap();
        let changes = batch.finish();
        shard.slot.write(changes);
    }
    let took = start.elapsed();
    shard.check();
    let creates = 300.0 * 128.0;
    println!("{:.0} creates/s", creates / took.as_secs_f64());
}
