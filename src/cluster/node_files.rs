//! A node's own files in its data directory: which node it is, and its identity. Called by `node`
//! once at its start, with the directory's lock held and before any store opens there.

use super::files::{
    CredentialsText, FORMAT, from_text, malformed, read_text, sync_dir, to_text, write_private,
};
use super::seal::{FILE as SEAL, Seal};
use crate::error::{Error, Result};
use crate::types::{ClusterId, Credentials, NodeId, Subject};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

const META: &str = "node";
const CREDENTIALS: &str = "node.dfs";
const WHAT: &str = "data directory";
/// What a directory may hold before `node` is written: a first start that was cut off.
const BEFORE_META: [&str; 5] = [CREDENTIALS, SEAL, "lock", "admin.dfs", "first-start"];

/// What only a node that has begun has.
const STORES: [&str; 7] = [
    "log", "meta", "chunks", "packs", "index", "starts", "reserve",
];

/// Which node of which cluster a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMeta {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Failure domains, as the operator named them; empty if not named.
    pub zone: String,
    pub rack: String,
}

/// Everything a restarted node knows about itself.
///
/// 1. `DIR/node` is written last: where it is, the other files are whole and durable.
/// 2. The certificate is that of the node and cluster in `DIR/node`.
#[derive(Clone, Debug)]
pub struct NodeFiles {
    pub meta: NodeMeta,
    pub credentials: Credentials,
    /// Opens the CA that the cluster keeps; `None` on a node that was not given it.
    pub seal: Option<Seal>,
}

#[derive(Serialize, Deserialize)]
struct MetaText {
    format: i64,
    cluster: String,
    node: u64,
    zone: String,
    rack: String,
}

#[derive(Serialize, Deserialize)]
struct NodeText {
    format: i64,
    #[serde(flatten)]
    credentials: CredentialsText,
}

/// Makes a data directory (mode 0700: it holds keys and everyone's data) if there is none.
pub fn prepare_dir(dir: &Path) -> Result<()> {
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(Error::usage("it is not a directory")
                .at(dir.display())
                .hint("name the node's directory with --data"));
        }
        Err(_) => {}
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::io("create", dir, &e))?;
    sync_dir(super::files::parent_of(dir))
}

impl NodeFiles {
    /// Writes the files of a new node, durably. What a first start that was cut off left behind
    /// is replaced.
    ///
    /// # Errors
    /// `exists` when the directory belongs to a node already.
    pub fn create(&self, dir: &Path) -> Result<()> {
        self.check(dir)?;
        if dir.join(META).exists() {
            return Err(Error::new(
                crate::error::Code::Exists,
                "the data directory belongs to a node already",
            )
            .at(dir.display())
            .hint("use another directory with --data"));
        }
        if let Some(seal) = &self.seal {
            seal.save(dir)?;
        }
        self.write_credentials(dir)?;
        self.write_meta(dir)
    }

    /// Replaces the node's certificate and key (a renewed one).
    pub fn write_credentials(&self, dir: &Path) -> Result<()> {
        self.check(dir)?;
        let text = to_text(&NodeText {
            format: FORMAT,
            credentials: CredentialsText::new(&self.credentials),
        });
        write_private(&dir.join(CREDENTIALS), &text)
    }

    /// Keeps the seal that the node was given.
    pub fn keep_seal(&mut self, dir: &Path, seal: Seal) -> Result<()> {
        seal.save(dir)?;
        self.seal = Some(seal);
        Ok(())
    }

    /// Replaces `DIR/node` (another zone or rack).
    pub fn write_meta(&self, dir: &Path) -> Result<()> {
        let text = to_text(&MetaText {
            format: FORMAT,
            cluster: self.meta.cluster.to_string(),
            node: self.meta.node.0,
            zone: self.meta.zone.clone(),
            rack: self.meta.rack.clone(),
        });
        write_private(&dir.join(META), &text)
    }

    /// Reads a node's files; `None` for a directory that is no node's yet.
    ///
    /// # Errors
    /// `failed` for a newer format, `corrupt` when a file is malformed or missing beside others
    /// that need it.
    pub fn load(dir: &Path) -> Result<Option<NodeFiles>> {
        let path = dir.join(META);
        let Some(text) = read_text(&path)? else {
            return no_node_yet(dir);
        };
        let what = format!("the {WHAT}");
        let meta: MetaText = from_text(&path, &what, &text)?;
        let cluster = ClusterId::parse(&meta.cluster)
            .ok_or_else(|| malformed(&path, "`cluster` is not a cluster's id"))?;
        let meta = NodeMeta {
            cluster,
            node: NodeId(meta.node),
            zone: meta.zone,
            rack: meta.rack,
        };
        let path = dir.join(CREDENTIALS);
        let text = read_text(&path)?.ok_or_else(|| missing(&path))?;
        let node: NodeText = from_text(&path, &what, &text)?;
        let files = NodeFiles {
            meta,
            credentials: node.credentials.read(&path)?,
            seal: Seal::load(dir)?,
        };
        files.check(dir)?;
        Ok(Some(files))
    }

    /// Invariant 2.
    fn check(&self, dir: &Path) -> Result<()> {
        let facts = self.credentials.facts()?;
        let NodeMeta { cluster, node, .. } = self.meta;
        let wrong = |file: &str, why: &str| Err(malformed(&dir.join(file), why));
        if facts.subject != Subject::Node(node) || facts.cluster != cluster {
            return wrong(CREDENTIALS, "the certificate is not this node's");
        }
        Ok(())
    }
}

/// An empty directory, or one that a first start left before it wrote `node`, is no node's yet.
/// With a store in it, its `node` file was lost: to start as a new node there would throw away
/// what others count on. With anything else in it, it is somebody's other directory.
fn no_node_yet(dir: &Path) -> Result<Option<NodeFiles>> {
    let fail = |e: &std::io::Error| Error::io("list", dir, e);
    let mut foreign = None;
    for entry in std::fs::read_dir(dir).map_err(|e| fail(&e))? {
        let name = entry.map_err(|e| fail(&e))?.file_name();
        let name = name.to_string_lossy();
        let known = BEFORE_META.contains(&&*name) || name.ends_with(".tmp");
        if STORES.contains(&&*name) {
            return Err(missing(&dir.join(META)));
        }
        if !known && name != "lost+found" {
            foreign.get_or_insert(name.into_owned());
        }
    }
    match foreign {
        None => Ok(None),
        Some(name) => Err(Error::usage(format!(
            "not a data directory (it holds `{}`)",
            name.escape_debug()
        ))
        .at(dir.display())
        .hint("name an empty or a new directory with --data")),
    }
}

fn missing(path: &Path) -> Error {
    Error::corrupt("missing from the data directory (the other files of a node are there)")
        .at(path.display())
        .hint("put the file back, or start with an empty directory as a new node")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Authority;
    use crate::cluster::{DirLock, Validity, test_rng};
    use crate::error::Code;
    use crate::types::WallTime;

    fn files(node: u64) -> NodeFiles {
        let rng = test_rng(node);
        let cluster = ClusterId([9; 16]);
        let validity = Validity::days(WallTime(1_790_000_000_000), 365);
        let authority = Authority::create(&rng, cluster, validity).unwrap();
        let subject = Subject::Node(NodeId(node));
        let credentials = authority.issue(&rng, &subject, 1, validity, &[]).unwrap();
        NodeFiles {
            meta: NodeMeta {
                cluster,
                node: NodeId(node),
                zone: "z1".into(),
                rack: String::new(),
            },
            credentials,
            seal: None,
        }
    }

    #[test]
    fn come_back_from_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("data/node1");
        prepare_dir(&dir).unwrap();
        let _lock = DirLock::acquire(&dir).unwrap();
        assert!(NodeFiles::load(&dir).unwrap().is_none());
        let files = files(1);
        files.create(&dir).unwrap();
        let again = NodeFiles::load(&dir).unwrap().unwrap();
        assert_eq!(again.meta, files.meta);
        assert_eq!(again.credentials, files.credentials);
        assert_eq!(files.create(&dir).unwrap_err().code, Code::Exists);
    }

    #[test]
    fn a_node_has_the_seal_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut joined = files(1);
        joined.create(dir).unwrap();
        let mut again = NodeFiles::load(dir).unwrap().unwrap();
        assert!(again.seal.is_none());
        let seal = Seal::create(&test_rng(7));
        again.keep_seal(dir, seal.clone()).unwrap();
        let again = NodeFiles::load(dir).unwrap().unwrap();
        assert_eq!(again.seal.unwrap().key(), seal.key());
        // A first start that wrote the seal and was cut off begins again, with another seal.
        std::fs::remove_file(dir.join(META)).unwrap();
        assert!(NodeFiles::load(dir).unwrap().is_none());
        joined.seal = Some(Seal::create(&test_rng(8)));
        joined.create(dir).unwrap();
        let again = NodeFiles::load(dir).unwrap().unwrap();
        assert_eq!(again.seal.unwrap().key(), joined.seal.unwrap().key());
    }

    #[test]
    fn a_first_start_that_was_cut_off_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        files(1).create(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join(META)).unwrap();
        std::fs::write(dir.path().join("node.tmp"), "fo").unwrap();
        assert!(NodeFiles::load(dir.path()).unwrap().is_none());
        files(2).create(dir.path()).unwrap();
        let meta = NodeFiles::load(dir.path()).unwrap().unwrap().meta;
        assert_eq!(meta.node, NodeId(2));
    }

    #[test]
    fn a_lost_file_beside_data_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        files(1).create(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        for lost in [CREDENTIALS, META] {
            std::fs::remove_file(dir.path().join(lost)).unwrap();
            let error = NodeFiles::load(dir.path()).unwrap_err();
            assert_eq!(error.code, Code::Corrupt);
            assert!(error.path.as_ref().unwrap().ends_with(lost), "{error}");
        }
    }

    #[test]
    fn a_newer_directory_and_another_nodes_certificate_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        files(1).create(dir.path()).unwrap();
        let path = dir.path().join(META);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("format = 1", "format = 2")).unwrap();
        let error = NodeFiles::load(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("written by a newer dfs (format 2"),
            "{error}"
        );
        std::fs::write(&path, text.replace("node = 1", "node = 2")).unwrap();
        let error = NodeFiles::load(dir.path()).unwrap_err();
        assert!(error.message.contains("not this node's"), "{error}");
    }
}
