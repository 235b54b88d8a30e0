//! Pure: the owners of every part of the circle, one part after the other. Called by the planner,
//! which needs all of them, where a walk for each would be long.
//!
//! The sweep goes against the walk's direction and keeps, for each level, the domains in the order
//! in which a walk from here meets them, with the first node of each: to go past a token is to move
//! its domains to the front. The owners are then the first of the zones, of the racks and of the
//! nodes that are not picked yet: a step costs as much as there are copies, however the weights
//! are spread. It shares nothing with the walk but the tokens, and tests hold one against the
//! other.

use super::holders::{Holders, LEVELS};
use super::owners::{Owners, Picks};
use super::place::{MEMBER_BITS, Ring, member_of};
use crate::limits::COPIES_MAX;
use std::cmp::min;

/// Length of the circle: a position has 48 bits.
pub(super) const CIRCLE: u64 = 1 << (u64::BITS - MEMBER_BITS);

/// A part of the circle whose chunks have the same owners.
pub(super) struct Part<'a> {
    /// First position of it.
    pub(super) from: u64,
    holders: &'a Holders,
    picks: Picks,
}

impl Part<'_> {
    /// Indices of the owners among the ring's holders.
    pub(super) fn members(&self) -> &[u16] {
        &self.picks
    }

    pub(super) fn owners(&self) -> Owners {
        Owners::of(self.picks.iter().map(|member| self.holders.node(*member)))
    }
}

/// Gives the parts from the end of the circle to its start; without gaps.
pub(super) struct Sweep<'a> {
    ring: &'a Ring,
    wanted: usize,
    /// Of the levels that matter for so many copies.
    orders: Vec<Order>,
    /// Tokens still to go past; `None` at the end. The part behind the last token comes first.
    left: Option<usize>,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(ring: &'a Ring, copies: usize) -> Sweep<'a> {
        let holders = &ring.holders;
        let wanted = min(copies, COPIES_MAX).min(holders.len());
        let mut orders: Vec<Order> = Vec::new();
        for level in LEVELS {
            let enough = orders
                .last()
                .is_some_and(|order| order.near.len() >= wanted);
            if !enough {
                orders.push(Order::new(level, holders.counts[level]));
            }
        }
        for order in &mut orders {
            order.meet_all(ring);
        }
        Sweep {
            ring,
            wanted,
            orders,
            left: Some(ring.tokens.len()),
        }
    }

    fn picks(&self) -> Picks {
        let mut picks = Picks::default();
        for order in &self.orders {
            let mut domain = order.head;
            while domain != NONE && picks.len() < self.wanted {
                let near = order.near[usize::from(domain)];
                if !picks.contains(&near) {
                    picks.push(near);
                }
                domain = order.next[usize::from(domain)];
            }
        }
        picks
    }
}

impl<'a> Iterator for Sweep<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let left = self.left?;
        if let Some(token) = self.ring.tokens.get(left) {
            let member = member_of(*token);
            for order in &mut self.orders {
                order.touch(self.ring.holders.domain(order.level, member), member);
            }
        }
        self.left = left.checked_sub(1);
        let from = match self.left {
            // Behind the token before; its own position belongs to it.
            Some(before) => (self.ring.tokens[before] >> MEMBER_BITS) + 1,
            None => 0,
        };
        Some(Part {
            from,
            holders: &self.ring.holders,
            picks: self.picks(),
        })
    }
}

/// No domain; there are fewer.
const NONE: u16 = u16::MAX;

/// Domains of a level as a linked list, the one that a walk meets first at its head.
struct Order {
    level: usize,
    head: u16,
    next: Vec<u16>,
    before: Vec<u16>,
    /// The first node of each domain.
    near: Vec<u16>,
}

impl Order {
    fn new(level: usize, count: usize) -> Order {
        Order {
            level,
            head: NONE,
            next: vec![NONE; count],
            before: vec![NONE; count],
            near: vec![NONE; count],
        }
    }

    /// Puts all domains into the order in which a walk from the start of the circle meets them.
    fn meet_all(&mut self, ring: &Ring) {
        let mut met: Vec<(u16, u16)> = Vec::with_capacity(self.near.len());
        for token in &ring.tokens {
            if met.len() == self.near.len() {
                break;
            }
            let member = member_of(*token);
            let domain = ring.holders.domain(self.level, member);
            if self.near[usize::from(domain)] == NONE {
                self.near[usize::from(domain)] = member;
                met.push((domain, member));
            }
        }
        for (domain, member) in met.into_iter().rev() {
            self.touch(domain, member);
        }
    }

    /// Moves a domain to the head: this member of it is now the first.
    fn touch(&mut self, domain: u16, member: u16) {
        let at = usize::from(domain);
        self.near[at] = member;
        if self.head == domain {
            return;
        }
        let (before, next) = (self.before[at], self.next[at]);
        if before != NONE {
            self.next[usize::from(before)] = next;
        }
        if next != NONE {
            self.before[usize::from(next)] = before;
        }
        if self.head != NONE {
            self.before[usize::from(self.head)] = domain;
        }
        self.next[at] = self.head;
        self.before[at] = NONE;
        self.head = domain;
    }
}
