//! Open epochs: which there are, whom readers ask.

use super::super::{Epoch, OpenEpochs, Ring};
use super::{chunk, equal};
use crate::error::Code;
use crate::limits::RING_EPOCHS_OPEN_MAX;
use crate::types::{self, NodeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rings of the first epoch and of so many after it, in each of which a node joins.
fn grown(nodes: u64, epochs: u64) -> Vec<Arc<Ring>> {
    let mut epoch = Epoch::first(equal(nodes, 0)).unwrap();
    let mut rings = vec![Arc::new(Ring::build(&epoch).unwrap())];
    for more in 1..=epochs {
        epoch = epoch.next(equal(nodes + more, 0)).unwrap();
        rings.push(Arc::new(Ring::build(&epoch).unwrap()));
    }
    rings
}

#[test]
fn epochs_open_newest_first_and_no_more_than_eight() {
    let rings = grown(2, RING_EPOCHS_OPEN_MAX as u64);
    let mut open = OpenEpochs::new(vec![rings[0].clone()]).unwrap();
    for ring in &rings[1..RING_EPOCHS_OPEN_MAX] {
        open.open(ring.clone()).unwrap();
    }
    let next = rings[RING_EPOCHS_OPEN_MAX].clone();
    assert_eq!(open.open(next.clone()).unwrap_err().code, Code::Busy);
    assert!(OpenEpochs::new(rings.clone()).is_err());
    open.close(types::Epoch(1)).unwrap();
    open.open(next).unwrap();
    let numbers: Vec<u64> = open.iter().map(|ring| ring.epoch().0).collect();
    assert_eq!(numbers, [9, 8, 7, 6, 5, 4, 3, 2]);
    assert_eq!(open.newest().epoch(), types::Epoch(9));
}

#[test]
fn an_epoch_is_open_until_it_is_closed_and_the_newest_stays_open() {
    let rings = grown(2, 2);
    let mut open = OpenEpochs::new(rings.clone()).unwrap();
    assert!(open.open(rings[1].clone()).is_err());
    assert!(open.close(types::Epoch(3)).is_err());
    for epoch in 1..=3 {
        assert!(open.is_open(types::Epoch(epoch)));
    }
    open.close(types::Epoch(2)).unwrap();
    open.close(types::Epoch(2)).unwrap();
    assert!(!open.is_open(types::Epoch(2)));
    assert!(open.is_open(types::Epoch(1)) && open.is_open(types::Epoch(3)));
    assert!(!open.is_open(types::Epoch(4)));
}

#[test]
fn a_list_without_epochs_or_with_one_twice_is_refused() {
    let rings = grown(2, 0);
    assert!(OpenEpochs::new(vec![]).is_err());
    assert!(OpenEpochs::new(vec![rings[0].clone(), rings[0].clone()]).is_err());
}

#[test]
fn readers_ask_owners_newest_first_then_stand_ins_then_those_that_are_down() {
    let rings = grown(6, 3);
    let open = OpenEpochs::new(rings.clone()).unwrap();
    let mut some_moved = false;
    for number in 0..100 {
        let hash = chunk(number);
        let newest = open.newest().owners(&hash, 3);
        let all: Vec<NodeId> = open.readers(&hash, 3, &|_| false).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[..3], newest[..]);
        some_moved |= all.len() > 3;
        for ring in &rings {
            assert!(ring.owners(&hash, 3).iter().all(|node| all.contains(node)));
        }

        let down = newest[0];
        let readers: Vec<NodeId> = open.readers(&hash, 3, &|node| node == down).collect();
        assert_eq!(readers.last(), Some(&down));
        assert_eq!(readers[..2], newest[1..]);
        let stand_ins = rings[3].owners_without(&hash, 3, &|node| node == down);
        assert!(stand_ins.iter().all(|node| readers.contains(node)));
        let distinct: BTreeSet<_> = readers.iter().collect();
        assert_eq!(distinct.len(), readers.len());
    }
    assert!(some_moved);
}
