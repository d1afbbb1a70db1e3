//! What the kernel says of links, addresses and routes (rtnetlink(7), netlink(7)), as far as it means that something
//! which was gone is there.
//!
//! Many messages only repeat what is known: renewed leases, router advertisements, scans of a wireless interface. So the
//! links that run and the addresses are remembered; what was there before we listened counts as new once.

use std::collections::BTreeSet;

use crate::limits::{NETWORK_ADDRESSES, NETWORK_LINKS};

/// The multicast groups that are listened to: `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`,
/// `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
pub(super) const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
const IFA_ADDRESS: u16 = 1;
/// The address failed the test for a double, or is still being tested.
const IFA_F_UNUSABLE: u8 = 0x08 | 0x40;
/// From `RT_SCOPE_LINK` on, an address reaches no server.
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// What is known to be there.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Indexes of links that run.
    links: BTreeSet<u32>,
    /// A link's index and the address's bytes.
    addresses: BTreeSet<(u32, Vec<u8>)>,
}

impl Seen {
    /// Takes a datagram, which may hold several messages; has something appeared?
    pub(super) fn handle(&mut self, mut datagram: &[u8]) -> bool {
        let mut appeared = false;
        while let Some((kind, body, rest)) = split_message(datagram) {
            appeared |= self.handle_message(kind, body).unwrap_or(false);
            datagram = rest;
        }
        appeared
    }

    /// `None` for a message that is too short.
    fn handle_message(&mut self, kind: u16, body: &[u8]) -> Option<bool> {
        match kind {
            RTM_NEWLINK => {
                let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
                let runs = flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING;
                if !runs {
                    self.links.remove(&index);
                }
                Some(runs && flags & IFF_LOOPBACK == 0 && remember(&mut self.links, index, NETWORK_LINKS))
            }
            RTM_DELLINK => {
                let index = u32_at(body.get(..LINK_HEADER)?, 4)?;
                self.links.remove(&index);
                self.addresses.retain(|(link, _)| *link != index);
                Some(false)
            }
            RTM_NEWADDR => {
                let (flags, scope) = (*body.get(2)?, *body.get(3)?);
                let address = address(body)?;
                let usable = flags & IFA_F_UNUSABLE == 0 && scope < RT_SCOPE_LINK;
                Some(usable && remember(&mut self.addresses, address, NETWORK_ADDRESSES))
            }
            RTM_DELADDR => {
                self.addresses.remove(&address(body)?);
                Some(false)
            }
            RTM_NEWROUTE => {
                let route = body.get(..ROUTE_HEADER)?;
                let (prefix, kind) = (*route.get(1)?, *route.get(7)?);
                Some(prefix == 0 && kind == RTN_UNICAST)
            }
            _ => Some(false),
        }
    }
}

/// Is this new? When as many are known as may be, every other one is.
fn remember<T: Ord>(known: &mut BTreeSet<T>, item: T, most: usize) -> bool {
    if known.contains(&item) {
        return false;
    }
    if known.len() < most {
        known.insert(item);
    }
    true
}

/// The link's index and `IFA_ADDRESS`, which for IPv4 and IPv6 has 4 or 16 bytes.
fn address(body: &[u8]) -> Option<(u32, Vec<u8>)> {
    let index = u32_at(body, 4)?;
    let mut attributes = body.get(ADDRESS_HEADER..)?;
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == IFA_ADDRESS {
            return Some((index, value.get(..16).unwrap_or(value).to_vec()));
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

/// The first message: its type, what follows its header, and the messages behind it.
fn split_message(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    let body = datagram.get(HEADER..length)?;
    let rest = datagram.get(aligned(length)..).unwrap_or_default();
    Some((u16_at(datagram, 4)?, body, rest))
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RUNNING: u32 = IFF_UP | IFF_RUNNING;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut message = [&length.to_ne_bytes()[..], &kind.to_ne_bytes()[..], &[0; 10], body].concat();
        message.resize(aligned(message.len()), 0);
        message
    }

    fn link(kind: u16, index: u32, flags: u32) -> Vec<u8> {
        let body = [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
        message(kind, &body)
    }

    fn addr(kind: u16, index: u32, address: &[u8], flags: u8, scope: u8) -> Vec<u8> {
        let length = u16::try_from(4 + address.len()).unwrap();
        // Another attribute, of a length that isn't a multiple of four, stands before it.
        let label = [&7_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), b"e0\0", &[0]].concat();
        let value = [&length.to_ne_bytes()[..], &IFA_ADDRESS.to_ne_bytes(), address].concat();
        message(kind, &[&[2, 24, flags, scope][..], &index.to_ne_bytes(), &label, &value].concat())
    }

    fn route(prefix: u8, kind: u8) -> Vec<u8> {
        message(RTM_NEWROUTE, &[2, prefix, 0, 0, 254, 3, 0, kind, 0, 0, 0, 0])
    }

    #[test]
    fn a_link_that_comes_up_appears_once() {
        let mut seen = Seen::default();
        assert!(!seen.handle(&link(RTM_NEWLINK, 2, IFF_UP)), "no cable");
        assert!(seen.handle(&link(RTM_NEWLINK, 2, RUNNING)));
        assert!(!seen.handle(&link(RTM_NEWLINK, 2, RUNNING)), "the same again");
        assert!(!seen.handle(&link(RTM_NEWLINK, 2, IFF_UP)), "the cable is cut");
        assert!(seen.handle(&link(RTM_NEWLINK, 2, RUNNING)));
        assert!(!seen.handle(&link(RTM_DELLINK, 2, RUNNING)));
        assert!(seen.handle(&link(RTM_NEWLINK, 2, RUNNING)));
        assert!(!seen.handle(&link(RTM_NEWLINK, 1, RUNNING | IFF_LOOPBACK)));
    }

    #[test]
    fn an_address_appears_when_it_is_new_and_usable() {
        let mut seen = Seen::default();
        let ours = [192, 0, 2, 9];
        assert!(seen.handle(&addr(RTM_NEWADDR, 2, &ours, 0x80, 0)));
        assert!(!seen.handle(&addr(RTM_NEWADDR, 2, &ours, 0x80, 0)), "a renewed lease");
        assert!(!seen.handle(&addr(RTM_DELADDR, 2, &ours, 0x80, 0)));
        assert!(seen.handle(&addr(RTM_NEWADDR, 2, &ours, 0x80, 0)));
        assert!(!seen.handle(&addr(RTM_NEWADDR, 2, &[0xfe; 16], 0x80, 253)), "link-local");
        assert!(!seen.handle(&addr(RTM_NEWADDR, 2, &[0x20; 16], 0x40, 0)), "tentative");
        assert!(seen.handle(&addr(RTM_NEWADDR, 2, &[0x20; 16], 0, 0)));
    }

    #[test]
    fn only_default_routes_appear() {
        let mut seen = Seen::default();
        assert!(seen.handle(&route(0, RTN_UNICAST)));
        assert!(!seen.handle(&route(24, RTN_UNICAST)));
        assert!(!seen.handle(&route(0, 7)), "unreachable");
    }

    #[test]
    fn every_message_of_a_datagram_counts() {
        let mut seen = Seen::default();
        let both = [link(RTM_NEWLINK, 2, IFF_UP), addr(RTM_NEWADDR, 2, &[192, 0, 2, 9], 0, 0)].concat();
        assert!(seen.handle(&both));
        assert!(!seen.handle(&both));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut seen = Seen::default();
        for index in 0..10_000 {
            seen.handle(&link(RTM_NEWLINK, index, RUNNING));
            seen.handle(&addr(RTM_NEWADDR, index, &[192, 0, 2, 9], 0, 0));
        }
        assert_eq!((seen.links.len(), seen.addresses.len()), (NETWORK_LINKS, NETWORK_ADDRESSES));
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_to_its_end(
            kind in prop::sample::select(vec![RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE]),
            body in prop::collection::vec(any::<u8>(), 0..64),
            behind in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut datagram = message(kind, &body);
            datagram.extend(behind);
            Seen::default().handle(&datagram);
        }
    }
}
