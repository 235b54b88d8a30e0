//! Pure: what a directory must do: the state that an operation finds, what it may answer then,
//! and what it leaves. Called by `search`.

use crate::error::Code;
use crate::sim::history::{Ask, ContentId, NAMES, NameId, Outcome, Over, Seen, Thing, Told};

/// A name's meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    Dir,
    File {
        /// Known if its maker was answered.
        inode: Option<u64>,
        /// Contents of all versions, the first is version 1.
        versions: Vec<ContentId>,
    },
}

/// A directory's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Directory {
    items: [Option<Item>; NAMES.len()],
}

impl Directory {
    fn item(&self, name: NameId) -> Option<&Item> {
        self.items[usize::from(name)].as_ref()
    }

    fn with(&self, name: NameId, item: Option<Item>) -> Directory {
        let mut next = self.clone();
        next.items[usize::from(name)] = item;
        next
    }

    /// The state behind an operation, if it can happen here and be answered so. An operation of
    /// unknown outcome happens or, where it would be refused, does not.
    pub fn step(&self, ask: Ask, outcome: &Outcome) -> Option<Directory> {
        match outcome {
            Outcome::Told(Told::Refused(code)) => self.refuses(ask, *code).then(|| self.clone()),
            Outcome::Told(told) if ask.is_read() => self.shows(ask, told).then(|| self.clone()),
            Outcome::Told(told) => self.changed(ask, Some(told)),
            Outcome::Unknown => self.changed(ask, None),
            Outcome::NotDone => None,
        }
    }

    /// The effect of a change, answered so or not at all.
    fn changed(&self, ask: Ask, told: Option<&Told>) -> Option<Directory> {
        match ask {
            Ask::Put {
                name,
                content,
                over,
                ..
            } => self.put(name, content, over, told),
            Ask::Remove { name, version } => match self.item(name)? {
                Item::File { versions, .. }
                    if version.is_none_or(|wanted| wanted == versions.len() as u64) =>
                {
                    Some(self.with(name, None))
                }
                _ => None,
            },
            Ask::Rename { from, to, replace } => {
                let moved = self.item(from)?.clone();
                let free = match (self.item(to), &moved) {
                    (None, _) => true,
                    (Some(Item::File { .. }), Item::File { .. }) => replace,
                    (Some(Item::Dir), Item::Dir) => replace,
                    _ => false,
                };
                free.then(|| self.with(from, None).with(to, Some(moved)))
            }
            Ask::Mkdir { name } => {
                (self.item(name).is_none()).then(|| self.with(name, Some(Item::Dir)))
            }
            Ask::Rmdir { name } => {
                (self.item(name) == Some(&Item::Dir)).then(|| self.with(name, None))
            }
            Ask::Get { .. } | Ask::Stat { .. } | Ask::Versions { .. } | Ask::List => None,
        }
    }

    fn put(
        &self,
        name: NameId,
        content: ContentId,
        over: Over,
        told: Option<&Told>,
    ) -> Option<Directory> {
        let told = match told {
            None => None,
            Some(Told::Wrote { inode, version }) => Some((*inode, *version)),
            Some(_) => return None,
        };
        let (inode, mut versions) = match (self.item(name), over) {
            (None, Over::Absent | Over::Found) => (None, Vec::new()),
            (Some(Item::File { inode, versions }), Over::Found) => (*inode, versions.clone()),
            (Some(Item::File { inode, versions }), Over::Version(wanted))
                if wanted == versions.len() as u64 =>
            {
                (*inode, versions.clone())
            }
            _ => return None,
        };
        versions.push(content);
        let inode = match (told, inode) {
            (Some((told, version)), known) => {
                let fits = known.is_none_or(|known| known == told);
                if version != versions.len() as u64 || !fits {
                    return None;
                }
                Some(told)
            }
            (None, known) => known,
        };
        Some(self.with(name, Some(Item::File { inode, versions })))
    }

    /// True if a read shows this state.
    fn shows(&self, ask: Ask, told: &Told) -> bool {
        match (ask, told) {
            (Ask::Get { name }, Told::Is(Thing::File(seen))) => self.is_file(name, seen),
            (Ask::Stat { name }, Told::Is(thing)) => self.is(name, thing),
            (Ask::Versions { name }, Told::Versions(seen)) => match self.item(name) {
                Some(Item::File { versions, .. }) => {
                    let all = (1u64..).zip(versions.iter().copied()).collect::<Vec<_>>();
                    seen.iter().rev().eq(all.iter())
                }
                _ => false,
            },
            (Ask::List, Told::Names(seen)) => {
                (0..)
                    .zip(&self.items)
                    .all(|(name, item)| match (item, seen.get(&name)) {
                        (None, None) => true,
                        (Some(_), Some(thing)) => self.is(name, thing),
                        _ => false,
                    })
            }
            _ => false,
        }
    }

    fn is(&self, name: NameId, thing: &Thing) -> bool {
        match thing {
            Thing::Dir => self.item(name) == Some(&Item::Dir),
            Thing::File(seen) => self.is_file(name, seen),
        }
    }

    fn is_file(&self, name: NameId, seen: &Seen) -> bool {
        match self.item(name) {
            Some(Item::File { inode, versions }) => {
                (inode.is_none() || seen.inode.is_none() || *inode == seen.inode)
                    && versions.len() as u64 == seen.version
                    && versions.last() == Some(&seen.content)
            }
            _ => false,
        }
    }

    /// True if this state is a reason to refuse so.
    fn refuses(&self, ask: Ask, code: Code) -> bool {
        let is_dir = |name| self.item(name) == Some(&Item::Dir);
        let absent = |name| self.item(name).is_none();
        let other_version = |name, wanted| match self.item(name) {
            Some(Item::File { versions, .. }) => versions.len() as u64 != wanted,
            _ => false,
        };
        match ask {
            Ask::Put { name, over, .. } => match (over, code) {
                (Over::Absent, Code::Exists) => !absent(name) && !is_dir(name),
                (Over::Version(_), Code::NotFound) => absent(name),
                (Over::Version(wanted), Code::Conflict) => {
                    is_dir(name) || other_version(name, wanted)
                }
                (Over::Absent, Code::Conflict) => is_dir(name),
                // What it had found is gone: that was at another moment.
                (Over::Found, Code::Conflict | Code::NotFound | Code::Exists) => true,
                _ => false,
            },
            Ask::Get { name } | Ask::Versions { name } => match code {
                Code::NotFound => absent(name),
                Code::Conflict => is_dir(name),
                _ => false,
            },
            Ask::Stat { name } => code == Code::NotFound && absent(name),
            Ask::Remove { name, version } => match code {
                Code::NotFound => absent(name),
                Code::Conflict => {
                    is_dir(name) || version.is_some_and(|wanted| other_version(name, wanted))
                }
                // A directory has no version to ask for.
                Code::Usage => is_dir(name) && version.is_some(),
                _ => false,
            },
            Ask::Rename { from, to, replace } => match code {
                Code::NotFound => absent(from),
                Code::Exists => !replace && !absent(from) && !absent(to),
                Code::Conflict => {
                    replace && !absent(from) && !absent(to) && is_dir(from) != is_dir(to)
                }
                _ => false,
            },
            Ask::Mkdir { name } => code == Code::Exists && !absent(name),
            Ask::Rmdir { name } => match code {
                Code::NotFound => absent(name),
                Code::Conflict => !absent(name) && !is_dir(name),
                _ => false,
            },
            Ask::List => false,
        }
    }
}
