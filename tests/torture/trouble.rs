//! What is done to the nodes: one thing at a time, then it is undone.

use crate::dice::Dice;
use crate::support::cluster::Cluster;
use crate::support::flip;
use crate::support::machine::{LoopDisk, Network};
use std::time::Duration;

/// The machines below the nodes, as far as there are any.
pub struct Below {
    pub network: Option<Network>,
    pub disks: Vec<LoopDisk>,
}

/// One thing that goes wrong, with the places it happens to.
#[derive(Clone, Debug)]
pub enum Trouble {
    Kill(Vec<usize>),
    Terminate(Vec<usize>),
    Pause(usize),
    PowerCut(Vec<usize>),
    CutOff(usize),
    /// What the first sends does not reach the second.
    OneWay(usize, usize),
    /// The two do not reach each other; all others reach both.
    Apart(usize, usize),
    /// A bit of a stored chunk.
    Rot(usize),
}

impl Trouble {
    pub fn draw(dice: &mut Dice, nodes: usize, below: &Below) -> Trouble {
        let one = dice.below(nodes as u64) as usize;
        let other = (one + 1 + dice.below(nodes as u64 - 1) as usize) % nodes;
        let all: Vec<usize> = (0..nodes).collect();
        let mut kinds = vec![
            Trouble::Kill(vec![one]),
            Trouble::Kill(vec![one]),
            Trouble::Kill(vec![one, other]),
            Trouble::Kill(all.clone()),
            Trouble::Terminate(vec![one]),
            Trouble::Terminate(all.clone()),
            Trouble::Pause(one),
            Trouble::Pause(one),
            // Always the same node's: the other copies are what it is mended from.
            Trouble::Rot(nodes - 1),
        ];
        if below.network.is_some() {
            kinds.extend([
                Trouble::CutOff(one),
                Trouble::CutOff(one),
                Trouble::OneWay(one, other),
                Trouble::OneWay(one, other),
                Trouble::Apart(one, other),
                Trouble::Apart(one, other),
            ]);
        }
        if !below.disks.is_empty() {
            kinds.extend([
                Trouble::PowerCut(vec![one]),
                Trouble::PowerCut(vec![one, other]),
                Trouble::PowerCut(all.clone()),
                Trouble::PowerCut(all),
            ]);
        }
        dice.pick(&kinds).clone()
    }

    /// Does it, waits, and undoes it. All nodes run when it returns.
    pub fn happen(&self, cluster: &mut Cluster, below: &Below, dice: &mut Dice) {
        match self {
            Trouble::Kill(places) => {
                places.iter().for_each(|place| cluster.kill(*place));
                wait(dice, 3_000);
                cluster.run_all(places);
            }
            Trouble::Terminate(places) => {
                places
                    .iter()
                    .for_each(|place| cluster.signal(*place, "TERM"));
                for place in places {
                    let status = cluster.ended(*place);
                    assert_eq!(status, 0, "node {place} was told to stop");
                }
                wait(dice, 1_000);
                cluster.run_all(places);
            }
            Trouble::Pause(place) => {
                cluster.signal(*place, "STOP");
                wait(dice, 6_000);
                cluster.signal(*place, "CONT");
            }
            Trouble::PowerCut(places) => {
                let disks: Vec<_> = places.iter().map(|place| &below.disks[*place]).collect();
                disks.iter().for_each(|disk| disk.cut_power());
                places.iter().for_each(|place| cluster.kill(*place));
                disks.iter().for_each(|disk| disk.return_power());
                wait(dice, 2_000);
                cluster.run_all(places);
            }
            Trouble::CutOff(_) | Trouble::OneWay(..) | Trouble::Apart(..) => {
                let network = below.network.as_ref().expect("drawn only with one");
                match self {
                    Trouble::CutOff(place) => network.cut_off(*place, true),
                    Trouble::OneWay(from, to) => network.drop_from(*from, *to),
                    Trouble::Apart(one, other) => {
                        network.drop_from(*one, *other);
                        network.drop_from(*other, *one);
                    }
                    _ => {}
                }
                wait(dice, 8_000);
                network.heal(cluster.members.len());
            }
            Trouble::Rot(place) => rot(cluster, *place, dice),
        }
    }
}

/// Flips a bit somewhere in a file of chunks, if there is one.
fn rot(cluster: &Cluster, place: usize, dice: &mut Dice) {
    let member = &cluster.members[place];
    let part = *dice.pick(&["chunks", "packs"]);
    let found = member.files(part);
    if found.is_empty() {
        return;
    }
    let file = dice.pick(&found).clone();
    // It may just go, or not have its bytes yet.
    let len = std::fs::metadata(&file).map_or(0, |meta| meta.len());
    if len > 8_192 {
        let at = 4_096 + dice.below(len - 4_096 - 1);
        let flipped = std::panic::catch_unwind(|| flip(&file, at, 1));
        drop(flipped);
    }
}

/// Trouble lasts as long as the dice say: this is no wait for something to happen.
pub fn wait(dice: &mut Dice, ms_max: u64) {
    std::thread::sleep(Duration::from_millis(dice.below(ms_max) + 20));
}
