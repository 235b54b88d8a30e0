//! The place of an identity that is still to come. It is made ready before a token is spent, so
//! that a directory in which nothing can be written does not use the token up. Called by `cmd`.

use super::files::{NewFile, parent_of};
use super::identity::Identity;
use crate::error::{Code, Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Identities of one user of one cluster that are kept beside each other.
const KEPT_MAX: u32 = 100;

/// Where an identity will be. Dropped before [`IdentityPlace::take`], it leaves all as it was.
pub struct IdentityPlace {
    file: NewFile,
    /// What is there now.
    old: Option<Kept>,
}

/// An identity that has a second name, under which it stays.
struct Kept {
    identity: Identity,
    at: PathBuf,
    /// The name was made by us and is not wanted yet.
    undo: bool,
}

impl IdentityPlace {
    /// Makes the directory, a file beside `path`, and another name for an identity that is there.
    ///
    /// # Errors
    /// `exists` for a file that is no identity; whatever keeps a file from being written there.
    pub fn prepare(path: &Path) -> Result<IdentityPlace> {
        let dir = parent_of(path);
        std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, &e))?;
        let old = match path.symlink_metadata() {
            Ok(_) => Some(Kept::beside(path, present(path)?)?),
            Err(_) => None,
        };
        // Two that log in at once do not write into one file.
        let suffix = format!(".{}.tmp", std::process::id());
        let file = NewFile::create(path, &suffix)?;
        Ok(IdentityPlace { file, old })
    }

    /// Puts the identity there. Where that of another user or another cluster is now, if one was
    /// there.
    pub fn take(self, identity: &Identity) -> Result<Option<PathBuf>> {
        let IdentityPlace { file, old } = self;
        let (kept, renewed) = match old {
            Some(old) if !identity.renews(&old.identity)? => (Some(old.stays()), None),
            renewed => (None, renewed),
        };
        file.place(&identity.to_text()?)?;
        // Its second name was for nothing.
        drop(renewed);
        Ok(kept)
    }
}

fn present(path: &Path) -> Result<Identity> {
    Identity::load(path).map_err(|_| {
        Error::new(Code::Exists, "the file is there and is no identity")
            .at(path.display())
            .hint("name another place with --identity FILE")
    })
}

impl Kept {
    /// Links `identity-CLUSTER-USER.dfs` to the file at `path`, or finds it there already.
    fn beside(path: &Path, identity: Identity) -> Result<Kept> {
        let (cluster, user) = (identity.cluster()?, identity.user()?.replace(' ', "-"));
        for number in 1..=KEPT_MAX {
            let name = match number {
                1 => format!("identity-{cluster}-{user}.dfs"),
                more => format!("identity-{cluster}-{user}-{more}.dfs"),
            };
            let at = path.with_file_name(name);
            // A link never takes the place of what is there.
            let undo = match std::fs::hard_link(path, &at) {
                Ok(()) => true,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    let same = Identity::load(&at).is_ok_and(|there| there == identity);
                    if !same || at == path {
                        continue;
                    }
                    false
                }
                Err(e) => return Err(Error::io("keep the identity that is there as", &at, &e)),
            };
            return Ok(Kept { identity, at, undo });
        }
        Err(Error::new(
            Code::Exists,
            format!("{KEPT_MAX} identities of one user are kept beside it"),
        )
        .at(path.display())
        .hint("remove those that are not needed"))
    }

    fn stays(mut self) -> PathBuf {
        self.undo = false;
        self.at.clone()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.undo {
            let _ = std::fs::remove_file(&self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::tests::identity;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_is_the_one_that_is_found_and_no_other_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dfs/identity.dfs");
        let take = |identity: &Identity| IdentityPlace::prepare(&path).unwrap().take(identity);
        let first = identity(1, "alice", 7);
        assert_eq!(take(&first).unwrap(), None);
        let renewed = identity(1, "alice", 8);
        assert_eq!(take(&renewed).unwrap(), None);
        assert_eq!(names(&dir.path().join("dfs")), ["identity.dfs"]);

        let other = identity(2, "alice", 9);
        let kept = take(&other).unwrap().unwrap();
        assert_eq!(Identity::load(&path).unwrap(), other);
        assert_eq!(Identity::load(&kept).unwrap(), renewed);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // Back again, with a newer one: the one that is kept stays too.
        let newer = identity(1, "alice", 10);
        take(&newer).unwrap().unwrap();
        let second = take(&identity(1, "bob", 9)).unwrap().unwrap();
        assert_ne!(second, kept);
        assert_eq!(Identity::load(&kept).unwrap(), renewed);
        assert_eq!(Identity::load(&second).unwrap(), newer);
        assert_eq!(names(&dir.path().join("dfs")).len(), 4);

        // One that is used from where it is kept.
        let take = IdentityPlace::prepare(&kept).unwrap().take(&other);
        assert_eq!(Identity::load(&take.unwrap().unwrap()).unwrap(), renewed);
    }

    #[test]
    fn what_is_not_used_leaves_all_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.dfs");
        let there = identity(1, "alice", 7);
        there.save(&path).unwrap();
        drop(IdentityPlace::prepare(&path).unwrap());
        assert_eq!(names(dir.path()), ["identity.dfs"]);
        assert_eq!(Identity::load(&path).unwrap(), there);

        std::fs::write(&path, "no identity").unwrap();
        let error = IdentityPlace::prepare(&path).err().unwrap();
        assert_eq!(error.code, Code::Exists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "no identity");
        assert!(IdentityPlace::prepare(&path.join("below/it")).is_err());
    }
}
