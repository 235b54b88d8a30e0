//! Pure: the records a new shard begins with.

use super::keys;
use super::records::{DirRecord, Header, Settings, encode};
use super::sum::form_hash;
use super::txn::STATE_MACHINE;
use crate::store::Change;
use crate::types::{
    ContentId, DirTotals, DirVersion, GroupId, Inode, Revision, ShardTime, UploadId, WallTime,
};

/// End of the first shard's inode range. A shard is not given more numbers when it runs out, so
/// this one has enough for ever: 10^12 files and directories, ten years of 3 000 new ones a
/// second. The ranges that the root group gives to later shards begin here; 2^24 of this size
/// fit an inode's 64 bits.
pub const FIRST_END_INODE: Inode = Inode(1 << 40);

/// The records of the first shard: header and an empty root directory, in key order.
///
/// `owner` and `group_name` own the root, `wall` is its time of creation.
pub fn seed(
    group: GroupId,
    owner: &str,
    group_name: &str,
    settings: Settings,
    wall: WallTime,
) -> Vec<Change> {
    let mut root = DirRecord {
        born: Revision(0),
        snapshot: Revision(0),
        parent: Inode::ROOT,
        name: None,
        owner: owner.to_owned(),
        group: group_name.to_owned(),
        mode: 0o755,
        created: wall,
        modified: wall,
        version: DirVersion(1),
        totals: DirTotals::default(),
        sum: 0,
    };
    root.sum = form_hash(Inode::ROOT, &mut root);
    let header = Header {
        group,
        state_machine: STATE_MACHINE,
        root: Inode::ROOT,
        time: ShardTime(0),
        revision: Revision(0),
        next_inode: Inode::ROOT.next(),
        end_inode: FIRST_END_INODE,
        next_content: ContentId(1),
        lanes_horizon: ShardTime(0),
        lanes: 0,
        changes_trimmed: Revision(0),
        changes_bytes: 0,
        deletions: 0,
        contents: 0,
        cleanup_behind: (Inode(0), Revision(0)),
        uploads_behind: (Inode(0), UploadId([0; 16])),
        settings,
    };
    vec![
        (keys::header(), Some(encode(&header))),
        (keys::dir(Inode::ROOT), Some(encode(&root))),
    ]
}
