//! Open epochs: which there are, whom readers ask.

use super::super::{Epoch, OpenEpochs, Ring};
use super::{chunk, equal};
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
fn epochs_stand_newest_first_and_are_no_more_than_eight() {
    let rings = grown(2, RING_EPOCHS_OPEN_MAX as u64);
    assert!(OpenEpochs::new(rings.clone()).is_err());
    let open = OpenEpochs::new(rings[1..].to_vec()).unwrap();
    let numbers: Vec<u64> = open.iter().map(|ring| ring.epoch().0).collect();
    assert_eq!(numbers, [9, 8, 7, 6, 5, 4, 3, 2]);
    assert_eq!(open.newest().epoch(), types::Epoch(9));
}

#[test]
fn an_epoch_is_open_if_it_is_in_the_list() {
    let mut rings = grown(2, 2);
    rings.remove(1);
    let open = OpenEpochs::new(rings).unwrap();
    let is_open = [1, 2, 3, 4].map(|epoch| open.is_open(types::Epoch(epoch)));
    assert_eq!(is_open, [true, false, true, false]);
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
