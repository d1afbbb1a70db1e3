//! Feeds [`Reports`] with what happens in the agent and on the link, or leaves it all, where nothing is to be reported.

use std::time::Instant;

use ocpp_bridge::{Call, CallId, LinkFault, LinkState, LinkStatus, Outcome};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use super::{now, until};
use crate::clock;
use crate::happening::{Happened, Happenings};
use crate::report::{Reports, ReportsView};
use crate::supervisor::View;

/// What is reported, or nothing.
pub(super) struct Reporting(Option<Ears>);

struct Ears {
    reports: Reports,
    happenings: broadcast::Receiver<(Instant, Happened)>,
    link: watch::Receiver<LinkStatus>,
    /// What the link has failed by since it was last there: each is an event once, however often it is tried.
    faults: Vec<LinkFault>,
    view: watch::Sender<ReportsView>,
}

impl Reporting {
    pub(super) fn off() -> Self {
        Self(None)
    }

    pub(super) fn new(
        happenings: &Happenings,
        link: watch::Receiver<LinkStatus>,
        view: watch::Sender<ReportsView>,
    ) -> Self {
        let reports = Reports::new(clock::uptime().as_secs(), now());
        Self(Some(Ears { reports, happenings: happenings.listen(), link, faults: Vec::new(), view }))
    }

    pub(super) fn observe(&mut self, views: &[View]) {
        if let Some(ears) = &mut self.0 {
            ears.reports.observe(views, now());
        }
    }

    pub(super) fn called(&mut self, id: CallId, outcome: &Outcome) {
        if let Some(ears) = &mut self.0 {
            ears.reports.called(id, outcome, now());
        }
    }

    pub(super) fn new_key(&mut self, fingerprint: &str) {
        if let Some(ears) = &mut self.0 {
            ears.reports.new_key(fingerprint, now());
        }
    }

    /// The CSMS has answered a Heartbeat, or BootNotification.
    pub(super) fn heard(&mut self) {
        if let Some(ears) = &mut self.0 {
            ears.reports.heard();
        }
    }

    /// The CSMS has changed this key, by which the link proves itself.
    pub(super) fn reconfigured(&mut self, key: &str) {
        if let Some(ears) = &mut self.0 {
            ears.reports.reconfigured(key, now());
        }
    }

    /// The CSMS has asked for a reset.
    pub(super) fn reset(&mut self, hard: bool) {
        if let Some(ears) = &mut self.0 {
            ears.reports.reset(hard, now());
        }
    }

    /// Waits until something has happened, or is due, that [`Self::next_call`] may have something for.
    pub(super) async fn wait(&mut self) {
        match &mut self.0 {
            Some(ears) => ears.wait().await,
            None => std::future::pending().await,
        }
    }

    /// The next call to make.
    pub(super) fn next_call(&mut self) -> Option<Call> {
        let ears = self.0.as_mut()?;
        let call = ears.reports.poll_call(now(), clock::wall);
        let view = ears.reports.view();
        ears.view.send_if_modified(|shown| std::mem::replace(shown, view) != view);
        call
    }
}

impl Ears {
    async fn wait(&mut self) {
        let due = self.reports.poll_timeout();
        tokio::select! {
            happened = self.happenings.recv() => match happened {
                Ok((at, happened)) => self.reports.happened(happened.into(), at),
                Err(RecvError::Lagged(count)) => self.reports.missed(count, now()),
                // The supervisor has ended, and the agent is about to.
                Err(RecvError::Closed) => std::future::pending().await,
            },
            Ok(()) = self.link.changed() => {
                let status = self.link.borrow_and_update();
                let accepted = status.state == LinkState::Accepted;
                self.reports.link(accepted.then_some(status.since));
                if accepted {
                    self.faults.clear();
                }
                if let Some(fault) = status.fault.filter(|fault| !self.faults.contains(fault)) {
                    self.faults.push(fault);
                    self.reports.link_fault(fault, status.last_error.as_deref().unwrap_or_default(), now());
                }
            }
            () = until(due) => {}
        }
    }
}
