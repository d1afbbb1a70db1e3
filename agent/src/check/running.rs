//! What the running agent tells, so that nothing has to be tried that would be in its way.

use reverse_tunnel::{Destination, Remote};
use serde_json::Value;

use crate::config::Config;
use crate::control::client::{ClientError, ask};
use crate::control::protocol::{Answer, Problem, Request};
use crate::exit::Exit;
use crate::last_configuration;
use crate::service::instance::state_holder;

/// The agent's status document, or that none runs.
#[derive(Debug)]
pub enum Running {
    /// None answers.
    No,
    /// One runs.
    Yes(Value),
    /// One may run, and doesn't tell; why.
    Silent(Problem),
}

pub(super) async fn look(running: &Running) -> Result<((), String), Problem> {
    match running {
        Running::No => Ok(((), "none runs, so this check looks by itself".into())),
        Running::Yes(document) => {
            let text = |name: &str| document["agent"][name].as_str().unwrap_or("?").to_owned();
            Ok(((), format!("version {} runs since {}", text("version"), text("since"))))
        }
        Running::Silent(problem) => {
            Err(Problem { code: problem.code, text: problem.text.clone(), cure: problem.cure.clone() })
        }
    }
}

/// What keeps the running agent from doing what the files say.
pub(super) fn remarks(running: &Running, config: &Config) -> Vec<String> {
    let Running::Yes(document) = running else { return Vec::new() };
    if document["agent"]["purpose"] != "service" {
        return Vec::new();
    }
    let keys = |keys: Vec<String>| keys.join(", ");
    let unread = last_configuration::unread(config);
    let unread = (!unread.is_empty()).then(|| {
        let keys = keys(unread);
        format!("{keys}: written otherwise since the agent read its files; `ocpp-tunnel config reload` has it read them again")
    });
    let waiting = document["configuration"]["restart_needed"].as_array().into_iter().flatten();
    let waiting: Vec<String> = waiting.filter_map(|key| key.as_str().map(str::to_owned)).collect();
    let waiting =
        (!waiting.is_empty()).then(|| format!("{}: in force after a restart of the agent", keys(waiting)));
    unread.into_iter().chain(waiting).collect()
}

impl Running {
    /// Asks the agent.
    #[must_use]
    pub fn ask(config: &Config) -> Self {
        let socket = config.control_socket();
        match ask(&socket, &Request::Status) {
            Ok(Answer::Status(document)) => Self::Yes(document),
            Ok(Answer::Error(problem)) => Self::Silent(problem),
            Ok(_) => {
                let text = format!("the agent at {} gives no status", socket.display());
                Self::Silent(Problem::new(Exit::Error, text, "use the agent's own version of this program"))
            }
            Err(ClientError::NoAgent) => match state_holder(&config.state_dir) {
                None => Self::No,
                Some(pid) => {
                    let pid = pid.map_or_else(String::new, |pid| format!(", process {pid},"));
                    let (state_dir, socket) = (config.state_dir.display(), socket.display());
                    let text =
                        format!("an agent{pid} uses state_dir {state_dir}, and none answers at {socket}");
                    let cure = "name that agent's configuration with --config; or wait half a minute, until it has taken its runtime_dir again";
                    Self::Silent(Problem::new(Exit::NoAgent, text, cure))
                }
            },
            Err(error) => Self::Silent(error.to_problem(&socket)),
        }
    }

    /// The tunnel that makes this server listen there at this moment.
    pub(super) fn holder(&self, destination: &Destination, remote: &Remote) -> Option<String> {
        let Self::Yes(document) = self else { return None };
        let (server, remote) = (destination.to_string(), remote.to_string());
        let listens = |tunnel: &&Value| {
            let mut forwards = tunnel["forwards"].as_array().into_iter().flatten();
            tunnel["server"] == *server
                && forwards.any(|forward| forward["remote"] == *remote && forward["listening"] == true)
        };
        let holder = document["tunnels"].as_array()?.iter().find(listens)?;
        holder["id"].as_str().map(str::to_owned)
    }

    /// Have the tunnels carried what policy.monthly_bytes allows? Without an agent nobody counts.
    pub(super) fn month_is_used_up(&self) -> bool {
        let Self::Yes(document) = self else { return false };
        let amount = |name: &str| document["month"][name].as_u64();
        matches!((amount("bytes"), amount("cap")), (Some(bytes), Some(cap)) if bytes >= cap)
    }

    /// Where its OCPP link stands, if it has one: an agent of one tunnel has none.
    pub(super) fn ocpp(&self) -> Option<&Value> {
        let Self::Yes(document) = self else { return None };
        Some(&document["ocpp"]).filter(|ocpp| ocpp["mode"].as_str().is_some_and(|mode| mode != "off"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_month_is_used_up_at_its_cap_if_it_has_one() {
        let month =
            |bytes: u64, cap: Option<u64>| Running::Yes(json!({"month": {"bytes": bytes, "cap": cap}}));
        assert!(month(5, Some(5)).month_is_used_up() && month(6, Some(5)).month_is_used_up());
        assert!(!month(4, Some(5)).month_is_used_up() && !month(4, None).month_is_used_up());
        assert!(!Running::No.month_is_used_up());
    }

    #[test]
    fn a_port_is_held_only_by_a_tunnel_that_listens_there_on_that_server() {
        let forward = |remote: &str, listening: bool| json!({"remote": remote, "listening": listening});
        let running = Running::Yes(json!({"tunnels": [
            {"id": "1", "server": "ops@gw", "forwards": [forward("localhost:1111", true), forward("localhost:1112", false)]},
            {"id": "t1", "server": "ops@gw:2222", "forwards": [forward("localhost:7", true)]},
        ]}));
        let holder =
            |server: &str, remote: &str| running.holder(&server.parse().unwrap(), &remote.parse().unwrap());
        assert_eq!(holder("ops@gw", "localhost:1111").as_deref(), Some("1"));
        assert_eq!(holder("ops@gw:2222", "7").as_deref(), Some("t1"));
        for (server, remote) in
            [("ops@gw", "1112"), ("ops@gw", "7"), ("other@gw", "1111"), ("ops@gw:22", "*:1111")]
        {
            assert_eq!(holder(server, remote), None, "{server} {remote}");
        }
        assert_eq!(Running::No.holder(&"ops@gw".parse().unwrap(), &"1111".parse().unwrap()), None);
    }
}
