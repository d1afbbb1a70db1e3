//! What a service manager is told, by systemd's protocol: one datagram a message, to the socket that `NOTIFY_SOCKET` names
//! (sd_notify(3)). Without that variable nobody is told anything.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use ocpp_bridge::LinkStatus;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::limits::NOTIFY_TIMEOUT;
use crate::supervisor::{SupervisorHandle, View};

/// The way to the service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    target: Option<Arc<Target>>,
    /// How long it goes without a sign of life before it restarts us.
    patience: Option<Duration>,
}

#[derive(Debug)]
struct Target {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// What tells the manager that the agent lives, and how it is. Dropping it ends that.
#[derive(Debug)]
pub struct Reporter(Vec<AbortHandle>);

impl Notifier {
    /// The one that has started this process.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let target = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let target = Target::at(&name);
            if let Err(error) = &target {
                tracing::warn!(socket = %name.display(), %error, "service-manager-not-told");
            }
            target.ok()
        });
        let patience = patience(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref());
        Self { patience: patience.filter(|_| target.is_some()), target: target.map(Arc::new) }
    }

    /// The agent takes commands; also after a reload.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again, until the next [`Self::ready`].
    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::uptime().as_micros()));
    }

    /// The agent closes its tunnels.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=closing tunnels");
    }

    /// Tells how the agent is, and that it lives, from now on. Must be called within the runtime.
    #[must_use]
    pub fn report(
        &self,
        supervisor: &SupervisorHandle,
        link: Option<watch::Receiver<LinkStatus>>,
    ) -> Reporter {
        let mut tasks = Vec::new();
        if self.target.is_some() {
            let told = tell(self.clone(), supervisor.views(), link);
            tasks.push(tokio::spawn(told).abort_handle());
        }
        if let Some(patience) = self.patience {
            let supervisor = supervisor.clone();
            let answers = move || {
                let supervisor = supervisor.clone();
                async move { supervisor.answers().await }
            };
            tasks.push(tokio::spawn(feed(self.clone(), patience / 2, answers)).abort_handle());
        }
        Reporter(tasks)
    }

    fn send(&self, message: &str) {
        if let Some(target) = &self.target
            && let Err(error) = target.socket.send_to_addr(message.as_bytes(), &target.address)
        {
            tracing::warn!(%error, "service-manager-not-told");
        }
    }
}

impl Target {
    /// `/path`, or `@name` in the abstract namespace.
    fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor abstract")),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that doesn't read must not stop the tunnels.
        socket.set_write_timeout(Some(NOTIFY_TIMEOUT))?;
        Ok(Self { socket, address })
    }
}

/// `WATCHDOG_USEC`, unless it is another process's (sd_watchdog_enabled(3)).
fn patience(microseconds: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let microseconds = microseconds?.parse().ok().filter(|microseconds| *microseconds > 0)?;
    is_ours.then(|| Duration::from_micros(microseconds))
}

/// A sign of life is only given when the one owner of all tunnels has answered in between: a loop that is stuck, there or
/// here, gives none. How the tunnels fare doesn't matter: a restart would mend none of them.
async fn feed<F: Future<Output = bool>>(notifier: Notifier, every: Duration, answers: impl Fn() -> F) {
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !answers().await {
            return;
        }
        notifier.send("WATCHDOG=1");
    }
}

/// Tells in a line how the agent is, each time that changes.
async fn tell(
    notifier: Notifier,
    mut views: watch::Receiver<Vec<View>>,
    mut link: Option<watch::Receiver<LinkStatus>>,
) {
    let mut told = String::new();
    loop {
        let ocpp = link.as_mut().map(|link| link.borrow_and_update().state.to_string());
        let line = summary(&views.borrow_and_update(), ocpp.as_deref().unwrap_or("off"));
        if line != told {
            notifier.send(&format!("STATUS={line}"));
            told = line;
        }
        let link_changed = async {
            match &mut link {
                Some(link) => link.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            changed = link_changed => if changed.is_err() { return },
        }
    }
}

fn summary(views: &[View], ocpp: &str) -> String {
    let wanted = views.iter().filter(|view| view.wanted.is_some());
    let (up, all) = wanted.fold((0, 0), |(up, all), view| (up + u32::from(view.is_up()), all + 1));
    format!("ocpp {ocpp}; {up} of {all} wanted tunnels up")
}

impl Drop for Reporter {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn both_kinds_of_address_are_reached() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("ocpp-tunnel-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, variable) in [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}")),
        ] {
            let target = Target::at(OsStr::new(&variable)).unwrap();
            let notifier = Notifier { target: Some(Arc::new(target)), patience: None };
            notifier.ready();
            assert_eq!(received(&socket), "READY=1");
            notifier.reloading();
            assert!(received(&socket).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        }
        assert!(Target::at(OsStr::new("vsock:2:1")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_owner_that_answers_is_a_sign_of_life() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let target = Target::at(path.as_os_str()).unwrap();
        let notifier = Notifier { target: Some(Arc::new(target)), patience: None };
        let signs = || std::iter::from_fn(|| socket.recv(&mut [0; 64]).ok()).count();

        let second = Duration::from_secs(1);
        let _ = tokio::time::timeout(second * 10, feed(notifier.clone(), second, || ready(true))).await;
        assert!((9..=11).contains(&signs()));
        let _ = tokio::time::timeout(second * 10, feed(notifier.clone(), second, pending::<bool>)).await;
        assert_eq!(signs(), 0);
        feed(notifier, second, || ready(false)).await;
        assert_eq!(signs(), 0);
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let own = std::process::id().to_string();
        assert_eq!(patience(Some("30000000"), None), Some(Duration::from_secs(30)));
        assert_eq!(patience(Some("30000000"), Some(&own)), Some(Duration::from_secs(30)));
        for (microseconds, pid) in
            [(None, None), (Some("0"), None), (Some("x"), None), (Some("1000"), Some("1"))]
        {
            assert_eq!(patience(microseconds, pid), None, "{microseconds:?} {pid:?}");
        }
    }
}
