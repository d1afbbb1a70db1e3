//! The policy: may anything be opened, and may the CSMS open this?

use reverse_tunnel::Destination;

use super::running::Running;
use crate::advice;
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;

pub(super) async fn look(
    config: &Config,
    running: &Running,
    destination: Option<&Destination>,
) -> Result<((), String), Problem> {
    let policy = &config.policy;
    policy
        .check_enabled()
        .map_err(|refusal| Problem::new(Exit::Refused, refusal.to_string(), refusal.cure()))?;
    if running.month_is_used_up() {
        return Err(Problem::new(Exit::Refused, "the month's bytes are used up", advice::DATA_CAP));
    }
    let text = match destination {
        None => "tunnels may be opened".to_owned(),
        Some(destination) => match policy.check_allowed(destination) {
            Ok(()) => format!("{destination} may be opened, and is on policy.allow_destinations"),
            Err(_) => format!(
                "{destination} may be opened on this device; the CSMS can't, since it isn't on policy.allow_destinations"
            ),
        },
    };
    Ok(((), text))
}
