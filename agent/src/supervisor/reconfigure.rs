//! Another configuration for a running supervisor.

use std::sync::Arc;
use std::time::Instant;

use reverse_tunnel::Reason;

use super::{Origin, Supervisor};
use crate::audit::{self, Kind, Outcome, Record};
use crate::config::Config;
use crate::policy::Refusal;
use crate::way_out::WayOut;

impl Supervisor {
    /// Takes up another configuration. What it doesn't allow any more closes, as after a restart.
    pub(super) fn reconfigure(&mut self, config: &Config, way_out: WayOut) {
        self.policy = Arc::new(config.policy.clone());
        self.way_out = way_out;
        self.settings.tuning = config.tuning();
        self.usage.set_cap(config.policy.monthly_bytes);
        self.close_disallowed();
        let latest = Instant::now() + self.policy.max_duration;
        for entry in self.entries.values_mut() {
            if let (Some(wanted), Some(running)) = (&mut entry.wanted, &entry.running)
                && wanted.expires > latest
            {
                wanted.expires = latest;
                running.again(Some(latest));
            }
        }
        self.check_disabled();
        self.check_usage();
        self.save();
    }

    /// Closes what the CSMS has opened, and couldn't any more.
    fn close_disallowed(&mut self) {
        for (id, entry) in &mut self.entries {
            let Some(wanted) = entry.wanted.take_if(|wanted| {
                wanted.origin == Origin::Ocpp && self.policy.check_allowed(&wanted.destination).is_err()
            }) else {
                continue;
            };
            let why = Refusal::NotAllowed(wanted.destination).to_string();
            tracing::warn!(slot = %id, why, "tunnel-not-allowed-any-more");
            let source = audit::Source::Configuration;
            let record = Record::new(Kind::TunnelCloseRequested, source, Outcome::Success);
            self.audit.record(record.text("tunnel", &id.to_string()).text("why", &why));
            if let Some(running) = &entry.running {
                running.close(Reason::Policy);
            }
        }
    }
}
