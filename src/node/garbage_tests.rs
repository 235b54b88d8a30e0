//! Tries to lose a referenced chunk, with a shard in memory and a chunk store on a simulated disk.

use super::*;
use crate::env::sim::{self, Fault, FaultError, OpKind, SimDisk, SimHandles};
use crate::shard::command::{Chore, Removal, is_too_late};
use crate::shard::keys;
use crate::shard::records::Settings;
use crate::shard::testing::{TestShard, path, remove};
use crate::types::{Precondition, UploadId};
use bytes::Bytes;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const NO_GRACE: Grace = Grace {
    quiet: Duration::ZERO,
    uploads: Duration::ZERO,
};
/// The shard's milliseconds to one of the chunk store's.
const HASTE: u64 = 100;
/// Longer than `HOLD_MS` at that haste, by more than arrivals are told apart.
const SHORT_GRACE: Grace = Grace {
    quiet: Duration::from_millis(2 * HOLD_MS / HASTE),
    uploads: Duration::from_millis(2 * HOLD_MS / HASTE),
};
/// Contents that all writers share, so that chunks come and go and come again.
const CONTENTS: u64 = 6;

/// A node's part of it: chunks, pins, and the shard that refers to them.
struct World {
    handles: SimHandles,
    clock: Arc<dyn Clock>,
    chunks: Arc<ChunkStore>,
    pins: Arc<Pins>,
    shard: Mutex<TestShard>,
    random: AtomicU64,
}

impl World {
    async fn new(seed: u64) -> Arc<World> {
        let (env, handles) = sim::env_on(seed, SimDisk::new(seed));
        let base = handles.base(Path::new("/node/index"));
        let chunks = ChunkStore::open(env.clone(), Path::new("/node"), base)
            .await
            .unwrap();
        Arc::new(World {
            clock: env.clock.clone(),
            chunks,
            pins: Pins::new(env.clock.clone()),
            shard: Mutex::new(TestShard::new(Settings::default())),
            random: AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            handles,
        })
    }

    fn random(&self, below: u64) -> u64 {
        let mut state = self.random.load(Ordering::Relaxed);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.store(state, Ordering::Relaxed);
        (state >> 20) % below
    }

    /// Lets the others go on for a while, now and then for long.
    async fn pause(&self) {
        if self.random(4) == 0 {
            tokio::time::sleep(Duration::from_millis(self.random(150))).await;
        }
        for _ in 0..self.random(12) {
            tokio::task::yield_now().await;
        }
    }

    async fn census(&self, grace: Grace) -> Swept {
        self.try_census(grace).await.unwrap()
    }

    async fn try_census(&self, grace: Grace) -> Result<Swept> {
        let census = Census {
            chunks: &self.chunks,
            pins: &self.pins,
            references: self,
            clock: &*self.clock,
            grace,
        };
        census.run().await
    }

    /// Paused time goes on only while everybody rests.
    async fn census_and_rest(&self) -> Swept {
        let swept = self.census(SHORT_GRACE).await;
        tokio::time::sleep(Duration::from_millis(self.random(60))).await;
        swept
    }

    async fn put_chunk(&self, bytes: &Bytes) {
        let hash = ChunkHash::of(bytes);
        let _held = self.pins.hold(hash).await;
        let mut writer = self.chunks.begin(hash, bytes.len() as u64).await.unwrap();
        self.pause().await;
        writer.write(bytes.clone()).await.unwrap();
        writer.finish().await.unwrap();
    }

    /// Reserves a name; where its commit goes.
    fn reserve(&self, number: u64) -> (crate::types::Inode, UploadId) {
        let upload = UploadId(u128::from(number).to_le_bytes());
        let done = self.shard.lock().op(Op::Reserve {
            path: path(&format!("/f{number}")),
            upload,
            precondition: Precondition::Absent,
            mode: 0o644,
        });
        (done.parent, upload)
    }

    /// What a node does with a commit; false if it was refused.
    async fn commit(&self, number: u64, bytes: &Bytes) -> bool {
        let (parent, upload) = self.reserve(number);
        let hash = ChunkHash::of(bytes);
        let size = bytes.len() as u64;
        let tail = vec![ChunkRef {
            hash,
            len: size as u32,
        }];
        let op = Op::Commit {
            parent,
            upload,
            size,
            hash,
            tail,
        };
        self.pause().await;
        let wanted = referred_to(std::slice::from_ref(&op)).unwrap();
        // As the leader does it: the time, then the question, then the proposal some time later.
        let since = self.shard_now();
        let held = self.pins.hold(hash).await;
        let stored = self.chunks.have(hash).await.unwrap() == wanted.get(&hash).copied();
        drop(held);
        self.pause().await;
        let mut shard = self.shard.lock();
        shard.time = self.shard_now().0;
        let mut request = shard.request(vec![op]);
        request.held = Some(since);
        if stored && !is_too_late(&shard.send(request)[0]) {
            return true;
        }
        shard.op(Op::Abort { parent, upload });
        false
    }

    /// The shard's time, which runs so fast that pauses are longer than `HOLD_MS`.
    fn shard_now(&self) -> ShardTime {
        let millis = self.clock.now().as_millis() as u64;
        ShardTime(1 + millis * HASTE)
    }

    /// Removes a file and its records.
    fn forget(&self, number: u64) {
        let mut shard = self.shard.lock();
        let _ = shard.try_op(remove(&format!("/f{number}"), Removal::File));
        shard.clean();
    }

    fn is_referenced(&self, hash: &ChunkHash) -> bool {
        read::is_referenced(&self.shard.lock().slot, hash).unwrap()
    }

    /// Whatever is referenced is stored.
    async fn check(&self) {
        for content in 0..CONTENTS {
            let hash = ChunkHash::of(&bytes_of(content));
            if !self.is_referenced(&hash) || self.chunks.have(hash).await.unwrap().is_some() {
                continue;
            }
            // It may have been released and removed meanwhile. What is held is not.
            let _held = self.pins.hold(hash).await;
            let referenced = self.is_referenced(&hash);
            let stored = self.chunks.have(hash).await.unwrap().is_some();
            assert!(
                stored || !referenced,
                "chunk {content} is referenced and gone"
            );
        }
    }
}

impl References for World {
    fn ask(&self, hashes: Vec<ChunkHash>) -> BoxFuture<'_, Result<Known>> {
        Box::pin(async move {
            self.pause().await;
            let known = {
                let shard = self.shard.lock();
                let asked = hashes
                    .iter()
                    .map(|hash| read::is_referenced(&shard.slot, hash));
                let uploads = keys::table(keys::UPLOADS);
                Known {
                    referenced: asked.collect::<Result<_>>()?,
                    uploads: shard
                        .slot
                        .0
                        .range(uploads.clone()..)
                        .next()
                        .is_some_and(|(key, _)| key[0] == uploads[0]),
                }
            };
            // The answer takes its time: what was true may not be any more.
            self.pause().await;
            Ok(known)
        })
    }
}

fn bytes_of(content: u64) -> Bytes {
    Bytes::from(vec![content as u8; 20_000 + content as usize])
}

/// Some contents that were there before are committed without being sent again.
async fn write(world: Arc<World>, writer: u64) -> (u64, u64) {
    let (mut committed, mut refused) = (0, 0);
    for round in 0..40 {
        let number = writer * 1_000 + round;
        let bytes = bytes_of(world.random(CONTENTS));
        if world.random(3) > 0 {
            world.put_chunk(&bytes).await;
        }
        world.pause().await;
        match world.commit(number, &bytes).await {
            true => committed += 1,
            false => refused += 1,
        }
        world.check().await;
        world.pause().await;
        // Few files live at once, so that chunks go and come again.
        if round > 0 {
            world.forget(number - 1);
        }
    }
    (committed, refused)
}

#[tokio::test(start_paused = true)]
async fn no_referenced_chunk_is_lost_whatever_the_order() {
    let (mut removed, mut committed, mut refused) = (0, 0, 0);
    for seed in 1..=12 {
        let world = World::new(seed).await;
        let writers: Vec<_> = (0..3).map(|writer| write(world.clone(), writer)).collect();
        let writers = futures::future::join_all(writers);
        tokio::pin!(writers);
        let counts = loop {
            tokio::select! {
                biased;
                counts = &mut writers => break counts,
                swept = world.census_and_rest() => removed += swept.removed,
            }
        };
        for (yes, no) in counts {
            committed += yes;
            refused += no;
        }
        world.check().await;
        assert!(world.handles.spawn.panics().is_empty());
    }
    // Each kind of thing happened.
    let counts = format!("{removed} removed, {committed} committed, {refused} refused");
    assert!(removed > 50 && committed > 500 && refused > 50, "{counts}");
}

#[tokio::test(start_paused = true)]
async fn chunks_of_removed_files_go_after_the_grace_and_others_stay() {
    let world = World::new(1).await;
    let (kept, gone) = (bytes_of(0), bytes_of(1));
    for (number, bytes) in [(0, &kept), (1, &gone)] {
        world.put_chunk(bytes).await;
        assert!(world.commit(number, bytes).await);
    }
    let (day, now) = (Hurry::No { grace_ms: u64::MAX }.grace(), Hurry::Now.grace());
    tokio::time::sleep(GRACE_MAX).await;
    world.put_chunk(&gone).await;
    assert_eq!(
        world.census(NO_GRACE).await.removed,
        0,
        "deleted files keep theirs"
    );
    let _ = world.shard.lock().op(remove("/f1", Removal::File));
    assert_eq!(
        world.census(NO_GRACE).await.removed,
        0,
        "until they are cleaned up"
    );
    world.shard.lock().clean();
    assert_eq!(world.census(day).await.removed, 0, "it has just come");
    assert_eq!(world.census(now).await.removed, 0);
    tokio::time::sleep(GRACE_MIN).await;
    let (_, upload) = world.reserve(7);
    assert_eq!(
        world.census(now).await.removed,
        0,
        "something is being uploaded"
    );
    tokio::time::sleep(GRACE_MIN_UPLOADS - GRACE_MIN * 2).await;
    let parent = crate::shard::read::header(&world.shard.lock().slot)
        .unwrap()
        .root;
    world.shard.lock().op(Op::Abort { parent, upload });
    assert_eq!(world.census(day).await.removed, 0);
    let swept = world.census(now).await;
    assert_eq!(
        (swept.seen, swept.removed, swept.bytes),
        (2, 1, gone.len() as u64)
    );
    assert_eq!(world.chunks.have(ChunkHash::of(&gone)).await.unwrap(), None);
    assert!(
        world
            .chunks
            .have(ChunkHash::of(&kept))
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        !world.commit(8, &gone).await,
        "what is gone cannot be referred to"
    );
}

#[test]
fn the_grace_is_that_of_deleted_files_within_its_bounds() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let grace = |grace_ms| {
        let grace = Hurry::No { grace_ms }.grace();
        (grace.quiet, grace.uploads)
    };
    assert_eq!(grace(0), (minutes(1), minutes(60)));
    assert_eq!(grace(30 * 60_000), (minutes(30), minutes(60)));
    assert_eq!(grace(u64::MAX), (minutes(24 * 60), minutes(24 * 60)));
    assert_eq!(Hurry::Now.grace(), Hurry::No { grace_ms: 0 }.grace());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_upload_leaves_nothing_behind() {
    let world = World::new(3).await;
    let bytes = bytes_of(2);
    world.put_chunk(&bytes).await;
    let (parent, upload) = world.reserve(1);
    let op = Op::Abort { parent, upload };
    world.shard.lock().op(op);
    world
        .shard
        .lock()
        .chore(Chore::ExpireUploads { uploads: 10 });
    tokio::time::sleep(GRACE_MIN * 2).await;
    assert_eq!(world.census(Hurry::Now.grace()).await.removed, 1);
    assert_eq!(world.chunks.totals(), (0, 0));
}

/// The claims of removals that are under way last until they are done, although another has failed.
#[tokio::test(start_paused = true)]
async fn a_failed_removal_ends_no_other_claim() {
    let world = World::new(4).await;
    let (large, small) = (Bytes::from(vec![1; 1 << 20]), bytes_of(3));
    for bytes in [&large, &small] {
        world.put_chunk(bytes).await;
    }
    tokio::time::sleep(GRACE_MIN * 2).await;
    let disk = &world.handles.disk;
    disk.set_sync_latency(Duration::from_millis(50));
    disk.add_fault(Fault {
        error: FaultError::NoSpace,
        ..Fault::once(OpKind::Remove, "chunks")
    });
    let failed = world.try_census(Hurry::Now.grace()).await;
    assert_eq!(failed.unwrap_err().code, Code::NoSpace);
    let hash = ChunkHash::of(&small);
    let held = world.pins.hold(hash).await;
    let told = world.chunks.have(hash).await.unwrap();
    // Behind everything that was queued before.
    world.chunks.roll().await.unwrap();
    assert_eq!(world.chunks.have(hash).await.unwrap(), told);
    drop(held);
    let again = world.try_census(NO_GRACE).await.unwrap();
    assert_eq!(again.removed, 1, "the other goes with the next census");
    assert!(world.handles.spawn.panics().is_empty());
}
