//! The OCPP link. Where an agent keeps one, it is asked how that is: a second connection would push the first one out, since a
//! CSMS knows one connection of each identity. Without one, a connection is made as the agent would make it, up to the answer to
//! BootNotification, and closed.

use ocpp_bridge::{BootInfo, LinkFault, LinkSettings, RegistrationStatus, Url, link};
use serde_json::Value;

use super::bridge;
use super::report::{Report, Step};
use super::running::Running;
use crate::advice;
use crate::config::{Config, Ocpp};
use crate::control::protocol::Problem;
use crate::exit::Exit;
use crate::link_security::present_profile;
use crate::proxy::with_credentials;
use crate::trigger::boot_info;

pub(super) async fn look(report: &mut Report<'_>, config: &Config, running: &Running) {
    let Some(ocpp) = &config.ocpp else {
        return report.skip(Step::Ocpp, "ocpp.mode is \"off\"");
    };
    if let Running::Silent(_) = running {
        return report.skip(Step::Ocpp, "an agent may run, and a second connection would end its own");
    }
    if let Some(bridge) = &ocpp.bridge {
        return match running.ocpp() {
            Some(live) => bridge::legs(report, config, ocpp, bridge, live).await,
            None => bridge::alone(report, config, ocpp, bridge).await,
        };
    }
    if let Some(live) = running.ocpp() {
        report.step(Step::Ocpp, async { of_agent(live) }).await;
        return;
    }
    let (wanted, settings) = match settings(config, ocpp) {
        Ok(found) => found,
        Err(problem) => {
            report.step(Step::Ocpp, async { Err::<((), String), _>(problem) }).await;
            return;
        }
    };
    let boot = boot_info(ocpp);
    for url in &settings.urls {
        let Some(registration) = report.step(Step::Ocpp, attempt(url, &settings, &boot, wanted)).await else {
            continue;
        };
        report.step(Step::Ocpp, async { registered(url, registration) }).await;
        return;
    }
}

/// How the running agent's link is.
fn of_agent(ocpp: &Value) -> Result<((), String), Problem> {
    let text = |name: &str| ocpp[name].as_str().unwrap_or("?");
    let (state, url, since) = (text("state"), text("url"), text("since"));
    let profile =
        ocpp["profile"].as_u64().map_or_else(String::new, |profile| format!(", security profile {profile}"));
    let why = ocpp["last_error"].as_str().map_or_else(String::new, |error| format!(": {error}"));
    // An agent that has only begun to connect has nothing to tell yet.
    let cure = ocpp["cure"].as_str().unwrap_or("wait a moment, and look again");
    match state {
        "accepted" if ocpp["profile"].as_u64() < ocpp["security_profile"].as_u64() => {
            let wanted = ocpp["security_profile"].as_u64().and_then(|wanted| u8::try_from(wanted).ok());
            Err(shortfall(url, wanted.unwrap_or_default()))
        }
        "accepted" => Ok(((), format!("the agent's link to {url} is accepted since {since}{profile}"))),
        "pending" | "rejected" => Err(Problem::new(
            Exit::Error,
            format!(
                "the CSMS at {url} is connected, and has answered BootNotification with {state} since {since}"
            ),
            cure,
        )),
        "booting" => Err(Problem::new(
            Exit::Error,
            format!(
                "the CSMS at {url} is connected since {since}, and hasn't answered BootNotification yet{why}"
            ),
            cure,
        )),
        _ => Err(Problem::new(
            Exit::Error,
            format!("the agent's link to {url} is in state {state} since {since}{why}"),
            cure,
        )),
    }
}

/// What to connect with, and the security profile that it is meant to fulfil.
pub(super) fn settings(config: &Config, ocpp: &Ocpp) -> Result<(u8, LinkSettings), Problem> {
    let problem = |error: &dyn std::fmt::Display| {
        Problem::new(Exit::Config, error.to_string(), "`ocpp-tunnel config check` tests it")
    };
    let (wanted, profile) = present_profile(ocpp, &config.state_dir).map_err(|error| problem(&error))?;
    let mut settings = LinkSettings::new(profile.urls, ocpp.identity.clone());
    (settings.credentials, settings.tls) = (profile.credentials, profile.tls);
    settings.proxy =
        with_credentials(&ocpp.proxy, "ocpp.proxy_authorization_file").map_err(|error| problem(&error))?;
    Ok((wanted, settings))
}

/// What the CSMS said to BootNotification, or why it didn't.
type Registration = Result<RegistrationStatus, String>;

async fn attempt(
    url: &Url,
    settings: &LinkSettings,
    boot: &BootInfo,
    wanted: u8,
) -> Result<(Registration, String), Problem> {
    match link::attempt(url, settings, boot).await {
        Ok(attempt) => {
            let profile = attempt.security.profile();
            if profile < wanted {
                return Err(shortfall(&url.to_string(), wanted));
            }
            let text = format!("{url} takes our connection: security profile {profile}, subprotocol ocpp1.6");
            Ok((attempt.registration, text))
        }
        Err(error) => {
            let cure = advice::for_link_fault(error.fault);
            Err(Problem::new(exit(error.fault), format!("{url}: {error}"), cure))
        }
    }
}

fn registered(url: &Url, registration: Registration) -> Result<((), String), Problem> {
    let (text, cure) = match registration {
        Ok(RegistrationStatus::Accepted) => {
            return Ok(((), format!("{url} accepts this charge point's BootNotification")));
        }
        Ok(status) => {
            let status = if status == RegistrationStatus::Pending { "pending" } else { "rejected" };
            (format!("{url} answers BootNotification with {status}"), ACCEPT)
        }
        Err(why) => (format!("{url} takes our connection, but {why}"), UNANSWERED),
    };
    Err(Problem::new(Exit::Error, text, cure))
}

/// The cure for a CSMS that has to be told of us.
const ACCEPT: &str = "ask the CSMS's operator to accept this charge point";

/// The cure for one that doesn't work.
const UNANSWERED: &str =
    "check that ocpp.url leads to a CSMS for OCPP 1.6J, and ask its operator for what its log says";

/// Only profile 3 can end up lower than it was made for: whether the certificate is asked for is the CSMS's choice.
fn shortfall(url: &str, wanted: u8) -> Problem {
    let text = format!(
        "{url} takes our connection, made for security profile {wanted}, and doesn't ask for our client certificate"
    );
    Problem::new(Exit::Error, text, "let the CSMS verify clients")
}

pub(super) fn exit(fault: LinkFault) -> Exit {
    match fault {
        LinkFault::Dns | LinkFault::Network => Exit::Network,
        LinkFault::Credentials => Exit::Auth,
        _ => Exit::Error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_link_that_the_csms_has_accepted_is_well() {
        let link = |state: &str| {
            of_agent(&json!({"state": state, "url": "ws://c/", "since": "now", "last_error": "TCP: no"}))
        };
        assert!(link("accepted").is_ok());
        for state in ["connecting", "booting", "pending", "rejected", "backoff"] {
            let problem = link(state).unwrap_err();
            assert!(!problem.cure.is_empty() && problem.text.contains("ws://c/"), "{problem:?}");
        }
        let mut low = json!({"state": "accepted", "url": "wss://c/", "profile": 2, "security_profile": 3});
        assert!(of_agent(&low).unwrap_err().cure.contains("verify clients"));
        low["security_profile"] = 2.into();
        assert!(of_agent(&low).is_ok());
        assert!(link("backoff").unwrap_err().text.ends_with(": TCP: no"));
    }
}
