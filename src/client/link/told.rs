//! The nodes that a cluster told of, kept from run to run: so that a client whose one given
//! address is of a dead node finds the others.
//!
//! One text file a cluster, `nodes-CLUSTER` in the state directory: a line `NODE HOST:PORT` each.
//! Nothing in it is believed: an address is dialled, and the certificate decides. Blocking.

use crate::client::endpoints::Target;
use crate::error::{Error, Result};
use crate::limits::NODES_TOLD_MAX;
use crate::proto::NodeAddress;
use crate::types::{ClusterId, NodeId};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A file that is longer was not written here.
const FILE_BYTES_MAX: u64 = 128 << 10;

/// Where the list of a cluster is kept.
#[derive(Clone, Debug)]
pub(crate) struct ToldFile(PathBuf);

impl ToldFile {
    pub(crate) fn new(state_dir: &Path, cluster: ClusterId) -> Self {
        ToldFile(state_dir.join(format!("nodes-{cluster}")))
    }

    /// What is there; nothing if it cannot be read.
    pub(super) fn read(&self) -> Vec<NodeAddress> {
        let Ok(file) = std::fs::File::open(&self.0) else {
            return Vec::new();
        };
        let mut text = String::new();
        match file.take(FILE_BYTES_MAX).read_to_string(&mut text) {
            Ok(_) => parse(&text),
            Err(_) => Vec::new(),
        }
    }

    /// Replaces it. Not synced: it is told again.
    pub(super) fn write(&self, nodes: &[NodeAddress]) -> Result<()> {
        let dir = self.0.parent().unwrap_or(Path::new("."));
        let write = || {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
            let name = self.0.file_name().unwrap_or_default();
            let mut fresh = name.to_owned();
            fresh.push(format!(".{}", std::process::id()));
            let fresh = dir.join(fresh);
            std::fs::write(&fresh, text(nodes))?;
            std::fs::rename(&fresh, &self.0)
        };
        write().map_err(|e: std::io::Error| Error::io("keep the nodes' addresses", &self.0, &e))
    }
}

fn text(nodes: &[NodeAddress]) -> String {
    let lines = nodes.iter().take(NODES_TOLD_MAX);
    lines
        .map(|one| format!("{} {}\n", one.node.0, one.address))
        .collect()
}

/// The lines that are well formed.
fn parse(text: &str) -> Vec<NodeAddress> {
    let line = |line: &str| {
        let (node, address) = line.split_once(' ')?;
        Target::parse(address).ok()?;
        Some(NodeAddress {
            node: NodeId(node.parse().ok()?),
            address: address.to_owned(),
        })
    };
    text.lines().filter_map(line).take(NODES_TOLD_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, address: &str) -> NodeAddress {
        NodeAddress {
            node: NodeId(id),
            address: address.into(),
        }
    }

    #[test]
    fn what_was_told_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = ToldFile::new(&dir.path().join("state"), ClusterId([7; 16]));
        assert_eq!(file.read(), []);
        let nodes = [node(1, "10.0.0.1:7400"), node(2, "[::1]:7401")];
        file.write(&nodes).unwrap();
        assert_eq!(file.read(), nodes);
        file.write(&nodes[1..]).unwrap();
        assert_eq!(file.read(), nodes[1..]);
        let left = std::fs::read_dir(dir.path().join("state")).unwrap();
        assert_eq!(left.count(), 1);
    }

    #[test]
    fn lines_that_are_none_are_left_out() {
        let found = parse("1 a:1\n\nx b:2\n3\n4 c\n5 d:5 \n6 e:6\n");
        assert_eq!(found, [node(1, "a:1"), node(6, "e:6")]);
        let many: String = (0..1_000).map(|i| format!("{i} a:1\n")).collect();
        assert_eq!(parse(&many).len(), NODES_TOLD_MAX);
    }
}
