//! Which key each server took last. It decides when a rotation may retire the old key; it does no IO.

use std::fmt::Write;

use crate::destination::Destination;
use crate::limits::LEDGER_SERVERS;

/// The servers, the one that was met last at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger(Vec<Login>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Login {
    server: Destination,
    fingerprint: String,
}

impl Ledger {
    /// Reads `FINGERPRINT DESTINATION` lines. Others are ignored: no line may keep a device from its rotation.
    pub(crate) fn parse(text: &str) -> Self {
        let login = |line: &str| {
            let (fingerprint, server) = line.split_once(' ')?;
            let fingerprint = Some(fingerprint).filter(|text| text.starts_with("SHA256:"))?.to_owned();
            Some(Login { server: server.parse().ok()?, fingerprint })
        };
        Self(text.lines().filter_map(login).take(LEDGER_SERVERS).collect())
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for Login { server, fingerprint } in &self.0 {
            // Writing to a string doesn't fail.
            let _ = writeln!(text, "{fingerprint} {server}");
        }
        text
    }

    /// This server took this key for a tunnel that came up; true if that is news.
    ///
    /// When there is no room, one that took the same key makes it, or else the newcomer isn't noted: who still needs another
    /// key is never forgotten.
    pub(crate) fn record(&mut self, server: &Destination, fingerprint: &str) -> bool {
        if let Some(known) = self.0.iter_mut().find(|login| login.server == *server) {
            let news = known.fingerprint != fingerprint;
            fingerprint.clone_into(&mut known.fingerprint);
            return news;
        }
        if self.0.len() >= LEDGER_SERVERS {
            let Some(index) = self.0.iter().position(|login| login.fingerprint == fingerprint) else {
                return false;
            };
            self.0.remove(index);
        }
        self.0.push(Login { server: server.clone(), fingerprint: fingerprint.to_owned() });
        true
    }

    /// The servers that took this key last.
    pub(crate) fn servers_of(&self, fingerprint: &str) -> Vec<Destination> {
        let took = self.0.iter().filter(|login| login.fingerprint == fingerprint);
        took.map(|login| login.server.clone()).collect()
    }

    /// May the old key be retired? A server has taken the new one, and none has taken the old one last.
    pub(crate) fn is_rotated(&self, old: &str, new: &str) -> bool {
        let took = |fingerprint: &str| self.0.iter().any(|login| login.fingerprint == fingerprint);
        took(new) && !took(old)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "SHA256:old";
    const NEW: &str = "SHA256:new";

    fn server(number: usize) -> Destination {
        format!("ops@gw{number}").parse().unwrap()
    }

    #[test]
    fn the_old_key_is_retired_when_every_server_that_took_it_takes_the_new_one() {
        let mut ledger = Ledger::default();
        assert!(!ledger.is_rotated(OLD, NEW), "nobody has taken the new one");
        assert!(ledger.record(&server(1), OLD) && ledger.record(&server(2), OLD));
        assert!(ledger.record(&server(1), NEW));
        assert!(!ledger.is_rotated(OLD, NEW));
        assert_eq!(ledger.servers_of(OLD), [server(2)]);
        assert!(ledger.record(&server(2), NEW));
        assert!(ledger.is_rotated(OLD, NEW));
    }

    #[test]
    fn a_server_that_falls_back_needs_the_old_key_again() {
        let mut ledger = Ledger::default();
        ledger.record(&server(1), NEW);
        ledger.record(&server(2), NEW);
        ledger.record(&server(2), OLD);
        assert!(!ledger.is_rotated(OLD, NEW));
    }

    #[test]
    fn a_server_that_took_an_older_key_holds_up_nothing() {
        let mut ledger = Ledger::default();
        ledger.record(&server(1), "SHA256:older");
        ledger.record(&server(2), NEW);
        assert!(ledger.is_rotated(OLD, NEW));
    }

    #[test]
    fn it_is_the_same_after_it_was_written_and_read() {
        let mut ledger = Ledger::default();
        ledger.record(&server(1), OLD);
        ledger.record(&"u@[::1]:2222".parse().unwrap(), NEW);
        assert_eq!(Ledger::parse(&ledger.to_text()), ledger);
        assert!(!ledger.record(&server(1), OLD), "no news");
        assert_eq!(Ledger::parse("# by hand\nSHA256:x\nSHA256:x -o@h\n\n"), Ledger::default());
    }

    #[test]
    fn when_it_is_full_nobody_who_needs_another_key_is_forgotten() {
        let mut ledger = Ledger::default();
        for number in 0..LEDGER_SERVERS {
            ledger.record(&server(number), OLD);
        }
        assert!(!ledger.record(&server(LEDGER_SERVERS), NEW));
        assert!(!ledger.is_rotated(OLD, NEW));
        assert!(ledger.record(&server(LEDGER_SERVERS), OLD));
        assert_eq!(ledger.servers_of(OLD).len(), LEDGER_SERVERS);
        assert_eq!(ledger.servers_of(OLD).first(), Some(&server(1)));
    }

    proptest! {
        #[test]
        fn a_rotation_never_ends_while_a_server_took_the_old_key_last(
            logins in prop::collection::vec((0usize..6, any::<bool>()), 0..40),
        ) {
            let mut ledger = Ledger::default();
            let mut last = std::collections::BTreeMap::new();
            for (number, new) in logins {
                ledger.record(&server(number), if new { NEW } else { OLD });
                last.insert(number, new);
                let rotated = !last.is_empty() && last.values().all(|new| *new);
                prop_assert_eq!(ledger.is_rotated(OLD, NEW), rotated);
                prop_assert_eq!(&Ledger::parse(&ledger.to_text()), &ledger);
            }
        }

        #[test]
        fn any_text_is_read(text in any::<String>()) {
            let _ = Ledger::parse(&text);
        }
    }
}
