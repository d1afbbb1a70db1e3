//! Stand-ins for what runs on a charge controller: its web page, and its SSH server.

use russh::keys::PrivateKey;
use russh::keys::key::safe_rng;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelId, Pty};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Result;
use crate::ssh_server::configuration;

/// The page that the dashboard shows.
pub(crate) const PAGE: &str = "\
<!doctype html>
<title>Charge controller CP001</title>
<h1>Charge controller CP001</h1>
<p>Connector 1: available. Connector 2: charging, 11.0 kW.</p>
<p>This page stands in for the dashboard on port 80 of the controller.</p>
";

/// What somebody sees who logs in.
const WELCOME: &str =
    "\r\nWelcome to charge controller CP001 (a stand-in of the demo; there is no shell here).\r\n\r\n";

/// The controller's SSH server: it lets everybody in, greets and hangs up.
#[derive(Debug)]
pub(crate) struct Sshd {
    port: u16,
    host_key: String,
    task: JoinHandle<()>,
}

impl Sshd {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let key = PrivateKey::random(&mut safe_rng(), russh::keys::Algorithm::Ed25519)?;
        let host_key = key.public_key().to_openssh()?;
        let config = configuration(key, "SSH-2.0-charge_controller_CP001");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = config.clone();
                tokio::spawn(async move {
                    let Ok(session) = server::run_stream(config, stream, Visitor).await else { return };
                    let _ = session.await;
                });
            }
        });
        Ok(Self { port, host_key, task })
    }

    /// Its address.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The line of `known_hosts` for it, where it appears as `port` of 127.0.0.1.
    pub(crate) fn known_hosts_line(&self, port: u16) -> String {
        format!("[127.0.0.1]:{port} {}", self.host_key)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Visitor;

impl Visitor {
    fn greet(channel: ChannelId, session: &mut Session) -> std::result::Result<(), russh::Error> {
        session.channel_success(channel)?;
        session.data(channel, WELCOME)?;
        session.exit_status_request(channel, 0)?;
        session.eof(channel)?;
        session.close(channel)
    }
}

impl server::Handler for Visitor {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> std::result::Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> std::result::Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> std::result::Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> std::result::Result<(), Self::Error> {
        Self::greet(channel, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> std::result::Result<(), Self::Error> {
        Self::greet(channel, session)
    }
}
