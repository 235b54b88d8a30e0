//! The checker itself: histories made by hand, and made from real orders.

use super::directory::Directory;
use super::search::{Verdict, search};
use crate::error::Code;
use crate::sim::history::{Ask, Event, NAMES, Outcome, Over, Seen, Thing, Told};
use proptest::prelude::*;
use std::collections::BTreeMap;

const A: u8 = 0;
const B: u8 = 1;

fn event(ask: Ask, invoked: u64, returned: u64, outcome: Outcome) -> Event {
    Event {
        client: 0,
        ask,
        invoked,
        returned,
        outcome,
    }
}

fn told(ask: Ask, invoked: u64, returned: u64, told: Told) -> Event {
    event(ask, invoked, returned, Outcome::Told(told))
}

fn put(content: u32, over: Over) -> Ask {
    Ask::Put {
        name: A,
        content,
        over,
        chunked: false,
    }
}

fn wrote(inode: u64, version: u64) -> Told {
    Told::Wrote { inode, version }
}

fn file(inode: u64, version: u64, content: u32) -> Told {
    Told::Is(Thing::File(Seen {
        inode: Some(inode),
        version,
        content,
    }))
}

const GET: Ask = Ask::Get { name: A };
const REMOVE: Ask = Ask::Remove {
    name: A,
    version: None,
};

fn right(events: &[Event]) {
    assert_eq!(search(events), Verdict::Linearizable);
}

fn wrong(events: &[Event]) {
    let verdict = search(events);
    assert!(matches!(verdict, Verdict::Impossible { .. }), "{verdict:?}");
}

#[test]
fn a_read_between_call_and_answer_of_a_write_sees_either() {
    let write = told(put(1, Over::Absent), 0, 9, wrote(5, 1));
    for seen in [Told::Refused(Code::NotFound), file(5, 1, 1)] {
        right(&[write.clone(), told(GET, 1, 8, seen)]);
    }
    // But not the new one first and then none.
    wrong(&[
        write.clone(),
        told(GET, 1, 2, file(5, 1, 1)),
        told(GET, 3, 4, Told::Refused(Code::NotFound)),
    ]);
    right(&[
        write,
        told(GET, 1, 2, Told::Refused(Code::NotFound)),
        told(GET, 3, 4, file(5, 1, 1)),
    ]);
}

#[test]
fn an_acknowledged_write_may_not_be_lost() {
    wrong(&[
        told(put(1, Over::Absent), 0, 1, wrote(5, 1)),
        told(GET, 2, 3, Told::Refused(Code::NotFound)),
    ]);
}

#[test]
fn a_stale_read_is_seen() {
    wrong(&[
        told(put(1, Over::Absent), 0, 1, wrote(5, 1)),
        told(put(2, Over::Version(1)), 2, 3, wrote(5, 2)),
        told(GET, 4, 5, file(5, 1, 1)),
    ]);
}

#[test]
fn an_unknown_write_may_happen_late_or_never_but_once() {
    let unknown = event(put(1, Over::Absent), 0, 0, Outcome::Unknown);
    let none = |from| told(GET, from, from + 1, Told::Refused(Code::NotFound));
    let there = |from| told(GET, from, from + 1, file(5, 1, 1));
    right(&[unknown.clone(), none(2)]);
    right(&[unknown.clone(), none(2), there(4)]);
    wrong(&[unknown.clone(), there(2), none(4)]);
    let removed = told(REMOVE, 4, 5, Told::Done);
    right(&[unknown.clone(), there(2), removed.clone(), none(6)]);
    wrong(&[unknown, there(2), removed, there(6)]);
}

#[test]
fn a_lost_update_is_seen() {
    wrong(&[
        told(put(1, Over::Absent), 0, 1, wrote(5, 1)),
        told(put(2, Over::Version(1)), 2, 9, wrote(5, 2)),
        told(put(3, Over::Version(1)), 3, 8, wrote(5, 2)),
    ]);
    // Both found it absent.
    wrong(&[
        told(put(1, Over::Found), 0, 9, wrote(5, 1)),
        told(put(2, Over::Found), 1, 8, wrote(6, 1)),
    ]);
}

#[test]
fn a_refusal_that_was_executed_is_seen() {
    // The reply of a put was lost, and its repetition was refused by its own effect.
    wrong(&[
        told(put(1, Over::Absent), 0, 5, Told::Refused(Code::Exists)),
        told(GET, 6, 7, file(5, 1, 1)),
    ]);
}

#[test]
fn an_operation_that_is_said_not_done_has_no_effect() {
    wrong(&[
        event(put(1, Over::Absent), 0, 1, Outcome::NotDone),
        told(GET, 2, 3, file(5, 1, 1)),
    ]);
}

#[test]
fn a_listing_is_one_point_in_time() {
    let rename = Ask::Rename {
        from: A,
        to: B,
        replace: false,
    };
    let seen = Thing::File(Seen {
        inode: Some(5),
        version: 1,
        content: 1,
    });
    let history = |names: &[u8]| {
        let names: BTreeMap<u8, Thing> = names.iter().map(|name| (*name, seen)).collect();
        [
            told(put(1, Over::Absent), 0, 1, wrote(5, 1)),
            told(rename, 2, 9, Told::Done),
            told(Ask::List, 3, 8, Told::Names(names)),
        ]
    };
    right(&history(&[A]));
    right(&history(&[B]));
    wrong(&history(&[]));
    wrong(&history(&[A, B]));
}

#[test]
fn a_rename_by_reply_lost_is_not_refused() {
    let rename = Ask::Rename {
        from: A,
        to: B,
        replace: false,
    };
    wrong(&[
        told(put(1, Over::Absent), 0, 1, wrote(5, 1)),
        told(rename, 2, 3, Told::Refused(Code::NotFound)),
    ]);
}

/// A step of a real order: an operation and how wide its call is around its moment.
#[derive(Clone, Debug)]
struct Made {
    ask: Ask,
    before: u64,
    after: u64,
    /// Its client never heard of it.
    unheard: bool,
}

fn ask() -> impl Strategy<Value = Ask> {
    let name = || 0..NAMES.len() as u8;
    let over = prop_oneof![
        Just(Over::Absent),
        Just(Over::Found),
        (1u64..4).prop_map(Over::Version)
    ];
    prop_oneof![
        4 => (name(), over).prop_map(|(name, over)| Ask::Put { name, content: 0, over, chunked: false }),
        2 => name().prop_map(|name| Ask::Get { name }),
        1 => name().prop_map(|name| Ask::Stat { name }),
        1 => name().prop_map(|name| Ask::Versions { name }),
        2 => (name(), prop::option::of(1u64..3)).prop_map(|(name, version)| Ask::Remove { name, version }),
        2 => (name(), 1..NAMES.len() as u8, any::<bool>()).prop_map(|(from, by, replace)| {
            Ask::Rename { from, to: (from + by) % NAMES.len() as u8, replace }
        }),
        1 => name().prop_map(|name| Ask::Mkdir { name }),
        1 => name().prop_map(|name| Ask::Rmdir { name }),
        2 => Just(Ask::List),
    ]
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    let one = (ask(), 0u64..60, 0u64..60, prop::bool::weighted(0.08));
    let one = one.prop_map(|(ask, before, after, unheard)| Made {
        ask,
        before,
        after,
        unheard,
    });
    prop::collection::vec(one, 1..40)
}

/// What a plain directory answers: written apart from the model that it tests.
#[derive(Default)]
struct Plain {
    names: BTreeMap<u8, Option<(u64, Vec<u32>)>>,
    inodes: u64,
}

impl Plain {
    fn thing(&self, name: u8) -> Option<Thing> {
        self.names.get(&name).map(|item| match item {
            None => Thing::Dir,
            Some((inode, versions)) => Thing::File(Seen {
                inode: Some(*inode),
                version: versions.len() as u64,
                content: versions[versions.len() - 1],
            }),
        })
    }

    fn answer(&mut self, ask: Ask) -> Told {
        let refused = Told::Refused;
        match ask {
            Ask::Put {
                name,
                content,
                over,
                ..
            } => {
                let version = match self.thing(name) {
                    Some(Thing::Dir) => return refused(Code::Conflict),
                    Some(Thing::File(seen)) => Some(seen.version),
                    None => None,
                };
                match (over, version) {
                    (Over::Absent, Some(_)) => return refused(Code::Exists),
                    (Over::Version(_), None) => return refused(Code::NotFound),
                    (Over::Version(wanted), Some(version)) if wanted != version => {
                        return refused(Code::Conflict);
                    }
                    _ => {}
                }
                self.inodes += u64::from(version.is_none());
                let fresh = Some((self.inodes, Vec::new()));
                let file = self.names.entry(name).or_insert(fresh).as_mut().unwrap();
                file.1.push(content);
                Told::Wrote {
                    inode: file.0,
                    version: file.1.len() as u64,
                }
            }
            Ask::Get { name } => match self.thing(name) {
                None => refused(Code::NotFound),
                Some(Thing::Dir) => refused(Code::Conflict),
                Some(thing) => Told::Is(thing),
            },
            Ask::Stat { name } => self.thing(name).map_or(refused(Code::NotFound), Told::Is),
            Ask::Versions { name } => match self.names.get(&name) {
                None => refused(Code::NotFound),
                Some(None) => refused(Code::Conflict),
                Some(Some((_, all))) => {
                    let mut all: Vec<_> = (1..).zip(all.iter().copied()).collect();
                    all.reverse();
                    Told::Versions(all)
                }
            },
            Ask::Remove { name, version } => match (self.thing(name), version) {
                (None, _) => refused(Code::NotFound),
                (Some(Thing::Dir), None) => refused(Code::Conflict),
                (Some(Thing::Dir), Some(_)) => refused(Code::Usage),
                (Some(Thing::File(seen)), Some(wanted)) if seen.version != wanted => {
                    refused(Code::Conflict)
                }
                _ => {
                    self.names.remove(&name);
                    Told::Done
                }
            },
            Ask::Rename { from, to, replace } => {
                let Some(moved) = self.names.get(&from).cloned() else {
                    return refused(Code::NotFound);
                };
                match self.names.get(&to) {
                    Some(_) if !replace => return refused(Code::Exists),
                    Some(there) if there.is_none() != moved.is_none() => {
                        return refused(Code::Conflict);
                    }
                    _ => {}
                }
                self.names.remove(&from);
                self.names.insert(to, moved);
                Told::Done
            }
            Ask::Mkdir { name } => match self.names.contains_key(&name) {
                true => refused(Code::Exists),
                false => {
                    self.names.insert(name, None);
                    Told::Done
                }
            },
            Ask::Rmdir { name } => match self.names.get(&name) {
                None => refused(Code::NotFound),
                Some(Some(_)) => refused(Code::Conflict),
                Some(None) => {
                    self.names.remove(&name);
                    Told::Done
                }
            },
            Ask::List => {
                let all = self.names.keys().copied();
                Told::Names(all.map(|name| (name, self.thing(name).unwrap())).collect())
            }
        }
    }
}

/// The history of a real order in which each operation's moment lies within its call.
fn history(made: &[Made]) -> Vec<Event> {
    let mut plain = Plain::default();
    let mut events = Vec::new();
    for (number, made) in (1u32..).zip(made) {
        let ask = match made.ask {
            Ask::Put { name, over, .. } => Ask::Put {
                name,
                over,
                content: number,
                chunked: false,
            },
            other => other,
        };
        // Odd and even, so that no two moments are one.
        let moment = 1_000 + u64::from(number) * 20;
        let (invoked, returned) = (moment - made.before - 1, moment + made.after + 1);
        let told = plain.answer(ask);
        let outcome = match made.unheard {
            true => Outcome::Unknown,
            false => Outcome::Told(told),
        };
        events.push(event(ask, invoked, returned, outcome));
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_a_plain_directory_answers_is_right(made in made()) {
        prop_assert_eq!(search(&history(&made)), Verdict::Linearizable);
    }

    /// One answer that no state gives: another content, another version, a name too many.
    #[test]
    fn an_answer_that_cannot_be_is_wrong(made in made(), pick in any::<prop::sample::Index>()) {
        let mut events = history(&made);
        let at = pick.index(events.len());
        let told = match (&events[at].ask, &events[at].outcome) {
            (Ask::Put { .. }, Outcome::Told(Told::Wrote { inode, version })) => {
                Told::Wrote { inode: *inode, version: version + 50 }
            }
            (_, Outcome::Told(Told::Is(Thing::File(seen)))) => {
                Told::Is(Thing::File(Seen { content: 9_999, ..*seen }))
            }
            (Ask::List, Outcome::Told(Told::Names(names))) => {
                let seen = Seen { inode: Some(1), version: 1, content: 9_999 };
                let mut names = names.clone();
                names.insert(A, Thing::File(seen));
                Told::Names(names)
            }
            _ => return Ok(()),
        };
        events[at].outcome = Outcome::Told(told);
        let impossible = matches!(search(&events), Verdict::Impossible { .. });
        prop_assert!(impossible);
    }

    /// Without overlaps there is one order only: dropping the effect of one change is seen by a
    /// listing at the end, unless the directory looks the same without it.
    #[test]
    fn a_lost_change_is_wrong(made in made(), pick in any::<prop::sample::Index>()) {
        let mut made = made;
        for one in &mut made {
            (one.before, one.after, one.unheard) = (0, 0, false);
        }
        let lost = pick.index(made.len());
        let mut plain = Plain::default();
        let whole = history(&made);
        let mut state = Directory::default();
        for (at, event) in whole.iter().enumerate() {
            state = state.step(event.ask, &event.outcome).expect("each step fits");
            if at != lost {
                plain.answer(event.ask);
            }
        }
        let after = told(Ask::List, 1_000_000, 1_000_001, plain.answer(Ask::List));
        let same = state.step(after.ask, &after.outcome).is_some();
        let mut events = whole;
        events.push(after);
        prop_assert_eq!(search(&events) == Verdict::Linearizable, same);
    }
}
