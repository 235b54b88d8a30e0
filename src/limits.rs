//! Every bound of the system, with its reason. Settings that a user may change have their
//! defaults here too.

use std::time::Duration;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

// --- names and paths (POSIX NAME_MAX and PATH_MAX, so that a mount can show everything) ---
pub const NAME_BYTES_MAX: usize = 255;
pub const PATH_BYTES_MAX: usize = 4_096;
/// Directories below each other; bounds the walk to the root that each change does.
pub const DEPTH_MAX: usize = 255;
/// User and group names (Linux `LOGIN_NAME_MAX` is 256; useradd takes 32).
pub const USER_NAME_BYTES_MAX: usize = 32;

// --- wire ---
/// One control frame. A request with a batch of inline files is the largest.
pub const FRAME_BYTES_MAX: usize = 9 * MIB as usize;
/// Items in one batch request of small mutations.
pub const BATCH_ITEMS_MAX: usize = 512;
/// Bytes of content in one batch request.
pub const BATCH_BYTES_MAX: usize = 4 * MIB as usize;
/// Entries in one page of a listing, and its bytes: a page is read under one view (5 s at most).
pub const PAGE_ENTRIES_MAX: usize = 4_096;
pub const PAGE_BYTES_MAX: usize = MIB as usize;
/// Hashes in one question about which chunks are there.
pub const HAVE_HASHES_MAX: usize = 4_096;
/// Paths in one question about many.
pub const STAT_PATHS_MAX: usize = 4_096;
/// Addresses of nodes that a greeting tells: enough to find a living one, few enough for a frame.
pub const NODES_TOLD_MAX: usize = 256;
/// Raft messages in one message between nodes.
pub const RAFT_MESSAGES_MAX: usize = 1_024;
/// A client's streams at once on one connection.
pub const STREAMS_MAX: u32 = 1_024;
/// Deadline of a control request if the caller names none.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

// --- Raft ---
/// Bytes of one log entry: a proposal of many mutations is cut here.
pub const ENTRY_BYTES_MAX: usize = 8 * MIB as usize;
/// Mutations in one log entry.
pub const ENTRY_ITEMS_MAX: usize = 1_024;
/// Chunks that the copies of one request may refer to: a reference is a record of its own. One file
/// may be as large alone.
pub const COPIED_CHUNKS_MAX: u64 = 65_536;
/// Requests waiting to be proposed to one group; beyond it the answer is `busy`.
pub const PROPOSALS_QUEUED_MAX: usize = 8_192;

// --- sessions (one lane is one request in flight) ---
pub const SESSION_LANES_MAX: u16 = 64;
pub const SESSION_ROWS_MAX: u64 = 100_000;
/// A session row unused for this much shard time may go.
pub const SESSION_HORIZON_MS: u64 = 3_600_000;

// --- files ---
/// Content up to this size lives in the metadata (default). Measured in docs/benchmarks.md.
pub const INLINE_BYTES_DEFAULT: u64 = 16 * KIB;
pub const INLINE_BYTES_MAX: u64 = 64 * KIB;
/// Content up to this size travels with its request. What is over the shard's inline limit its
/// leader makes a chunk: one request where a reservation, a chunk and a commit would be four.
pub const DIRECT_BYTES_MAX: u64 = 256 * KIB;
/// Size of a chunk (default). Also the largest that a client may be told to use.
pub const CHUNK_BYTES_DEFAULT: u64 = 16 * MIB;
pub const CHUNK_BYTES_MAX: u64 = 64 * MIB;
/// Copies of each chunk, where there are so many nodes.
pub const COPIES: usize = 3;
/// Chunk references in one manifest page: 40 KiB a page.
pub const MANIFEST_PAGE_REFS: usize = 1_024;
/// Pages of one manifest: 2^20 pages of 16 MiB chunks are 16 PiB.
pub const MANIFEST_PAGES_MAX: u32 = 1 << 20;
/// Bytes in flight of one upload or download (default).
pub const WINDOW_BYTES_DEFAULT: u64 = 128 * MIB;
/// Chunks below this size go into packs.
pub const PACK_CHUNK_BYTES_MAX: u64 = MIB;

// --- nodes ---
/// A node that is silent for so long is offline (default).
pub const OFFLINE_AFTER: Duration = Duration::from_secs(30);

// --- retention (defaults) ---
pub const KEEP_VERSIONS_DEFAULT: u32 = 10;
pub const KEEP_FOR_MS_DEFAULT: u64 = 30 * 24 * 3_600_000;
/// Deleted things can be brought back for this long; chunks stay for this long.
pub const GRACE_MS_DEFAULT: u64 = 24 * 3_600_000;
/// An upload that was not committed expires after this.
pub const UPLOAD_TTL_MS_DEFAULT: u64 = 24 * 3_600_000;
/// Records cleaned up by one entry of a background deletion: about a millisecond that requests
/// behind it wait for.
pub const CLEANUP_BATCH_DEFAULT: usize = 100;

// --- log ---
pub const SEGMENT_BYTES: u64 = 64 * MIB;

// --- fold ---
pub const FOLD_BYTES_DEFAULT: usize = 64 * MIB as usize;
pub const FOLD_AFTER: Duration = Duration::from_secs(2);
/// A read view may live this long: LMDB cannot reuse pages below the oldest reader.
pub const VIEW_LIFE_MAX: Duration = Duration::from_secs(5);

// --- ring ---
/// Zone and rack names: short enough to be shown in a column.
pub const PLACE_BYTES_MAX: usize = 64;
/// Members of a ring epoch, twice what is aimed at: a ring of so many takes 1 GB with the usual
/// number of tokens, and a token names its member by 16 bits.
pub const RING_MEMBERS_MAX: usize = 20_000;
/// Ring epochs open at once: each is a ring in memory and, for a reader that finds nothing, a round
/// of questions. A further change waits.
pub const RING_EPOCHS_OPEN_MAX: usize = 8;
/// Copies, or fragments, that one walk on the ring finds places for; more are not given.
pub const COPIES_MAX: usize = 16;
