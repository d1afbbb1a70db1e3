//! The agent's document for people.

use serde_json::Value;

use super::super::words::journal_lines;
use crate::bytes;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// All of it, a line each; nothing of it can move a terminal's cursor.
pub(super) fn words(document: &Value) -> String {
    let mut lines = Vec::new();
    let agent = &document["agent"];
    lines.push(format!("agent {} running since {}", text(&agent["version"]), text(&agent["since"])));
    if text(&document["clock"]) == "unset" {
        lines.push("clock not set: times below are not to be trusted, limits hold all the same".into());
    }
    lines.extend(configuration_lines(&document["configuration"]));
    lines.push(ocpp_line(&document["ocpp"]));
    lines.extend(shortfall(&document["ocpp"]));
    if let Some(error) = document["ocpp"]["last_error"].as_str() {
        lines.push(format!("     last error: {error}"));
    }
    if let Some(cure) = document["ocpp"]["cure"].as_str() {
        lines.push(format!("     to do: {cure}"));
    }
    if let Some(change) = document["ocpp"]["security_change"].as_str() {
        lines.push(format!("     security change: {change}"));
    }
    for controller in document["ocpp"]["controllers"].as_array().into_iter().flatten() {
        lines.extend(controller_lines(controller));
    }
    lines.extend(month_line(&document["month"]));
    if let Some(error) = document["device_key"]["error"].as_str() {
        lines.push(format!("device key: {error}"));
        lines.push(format!("     to do: {}", text(&document["device_key"]["cure"])));
    }
    if let Some(error) = document["audit"]["error"].as_str() {
        let lost = document["audit"]["lost"].as_u64().unwrap_or_default();
        lines.push(format!("audit records can't be written: {error} ({lost} lost so far)"));
    }
    if let Some(error) = document["log"]["remote"]["error"].as_str() {
        let collector = text(&document["log"]["remote"]["collector"]);
        lines.push(format!("log collector {collector} isn't reached: {error}"));
    }
    for tunnel in document["tunnels"].as_array().into_iter().flatten() {
        lines.extend(tunnel_lines(tunnel));
    }
    journal_lines(&lines.join("\n"))
}

/// What a person has to do about the configuration.
fn configuration_lines(configuration: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(error) = configuration["error"].as_str() {
        lines.push(format!("configuration not reloaded, the old one is in force: {error}"));
        lines.push("     to do: mend it, then `ocpp-tunnel config reload`".into());
    }
    let waiting = configuration["restart_needed"].as_array().into_iter().flatten();
    let waiting: Vec<&str> = waiting.filter_map(Value::as_str).collect();
    if !waiting.is_empty() {
        lines.push(format!("restart the agent to put in force: {}", waiting.join(", ")));
    }
    lines
}

fn ocpp_line(ocpp: &Value) -> String {
    let (state, since) = (text(&ocpp["state"]), text(&ocpp["since"]));
    if state == "off" {
        return "ocpp off".into();
    }
    let profile =
        ocpp["profile"].as_u64().map_or_else(String::new, |profile| format!(", security profile {profile}"));
    let url = ocpp["url"].as_str().map_or_else(String::new, |url| format!(": {url}"));
    format!("ocpp {state} since {since}{url}{profile}")
}

/// Only profile 3 can end up lower than it was made for, since whether the certificate is asked for is the CSMS's choice; and
/// a bridge's link, where the password is the controller's.
fn shortfall(ocpp: &Value) -> Option<String> {
    let (profile, wanted) = (ocpp["profile"].as_u64()?, ocpp["security_profile"].as_u64()?);
    let why = match wanted {
        3 => "the CSMS doesn't ask for our client certificate: let it verify clients",
        _ => "the controller shows the CSMS no password: give it one",
    };
    (profile < wanted).then(|| format!("     made for security profile {wanted}, but {why}"))
}

/// A controller behind the bridge.
fn controller_lines(controller: &Value) -> Vec<String> {
    let (identity, state) = (text(&controller["identity"]), text(&controller["state"]));
    let mut lines = vec![format!("     {identity} {state} since {}", text(&controller["since"]))];
    for (leg, name) in [("controller", "controller"), ("csms", "CSMS")] {
        let figures = &controller[leg];
        if figures.is_null() {
            continue;
        }
        let counted = |name: &str| figures[name].as_u64().unwrap_or_default();
        let answered = figures["round_trip_ms"].as_u64();
        let answered = answered.map_or_else(String::new, |time| format!(", last answer after {time} ms"));
        lines.push(format!(
            "       {name}: {} frames ({}) in, {} ({}) out{answered}",
            counted("frames_in"),
            bytes::words(counted("bytes_in")),
            counted("frames_out"),
            bytes::words(counted("bytes_out")),
        ));
    }
    let closed = &controller["last_closed"];
    if let Some(reason) = closed["reason"].as_str() {
        lines.push(format!("       last closed {}: {reason}", text(&closed["at"])));
    }
    if let Some(error) = controller["last_error"].as_str() {
        lines.push(format!("       last error: {error}"));
    }
    lines
}

/// What the tunnels have carried; an agent of an earlier version doesn't tell.
fn month_line(month: &Value) -> Option<String> {
    let used = bytes::words(month["bytes"].as_u64()?);
    let name = month["name"].as_str().map_or_else(|| "this month".into(), |name| format!("month {name}"));
    Some(match month["cap"].as_u64() {
        Some(cap) => format!("{name}: {used} of {}", bytes::words(cap)),
        None => format!("{name}: {used}"),
    })
}

/// The notice ten minutes before a tunnel's end.
const ENDS_SOON: &str = ", which is soon: open it again to keep it";

fn tunnel_lines(tunnel: &Value) -> Vec<String> {
    let (id, state) = (text(&tunnel["id"]), text(&tunnel["state"]));
    let mut head = format!("{id:<4} {state}");
    if let Some(reason) = tunnel["reason"].as_str() {
        head.push_str(&format!(" ({reason})"));
    }
    if let Some(since) = tunnel["since"].as_str() {
        head.push_str(&format!(" since {since}"));
    }
    if let Some(server) = tunnel["server"].as_str() {
        head.push_str(&format!(": {server}"));
    }
    if let Some(key) = tunnel["key"].as_str() {
        head.push_str(&format!("  [{key}]"));
    }
    let mut lines = vec![head];
    if let Some(address) = tunnel["address"].as_str() {
        let through = tunnel["proxy"].as_str().map(|proxy| format!(" through the proxy {proxy}"));
        lines.push(format!("     at {address}{}", through.unwrap_or_default()));
    }
    for forward in tunnel["forwards"].as_array().into_iter().flatten() {
        // Before and after, none of them is open; then the state says it.
        let missing = state == "forwarding" && forward["listening"] == false;
        let note = if missing { "  (not open yet)" } else { "" };
        lines.push(format!("     {} -> {}{note}", text(&forward["remote"]), text(&forward["local"])));
    }
    if state == "up" {
        let counted = |name: &str| tunnel[name].as_u64().unwrap_or_default();
        let connections = match counted("connections") {
            1 => "1 connection".to_owned(),
            several => format!("{several} connections"),
        };
        let [bytes_in, bytes_out] = ["bytes_in", "bytes_out"].map(|name| bytes::words(counted(name)));
        lines.push(format!("     {connections} open, {bytes_in} in, {bytes_out} out"));
    }
    let notes = [
        ("expires", "until"),
        ("retry_at", "next try at"),
        ("last_error", "last error:"),
        ("cure", "to do:"),
        ("refused", "last refusal:"),
    ];
    for (name, words) in notes {
        if let Some(value) = tunnel[name].as_str() {
            let soon = if name == "expires" && tunnel["ends_soon"] == true { ENDS_SOON } else { "" };
            lines.push(format!("     {words} {value}{soon}"));
        }
    }
    lines
}

/// Colours a line by the state that it names second.
pub(super) fn paint(line: &str) -> String {
    let colour = match line.split_whitespace().nth(1) {
        Some("up" | "accepted") if !line.starts_with(' ') => "32",
        Some("backoff" | "rejected" | "closed") if !line.starts_with(' ') => "31",
        Some("error:" | "refusal:") => "33",
        _ => return line.to_owned(),
    };
    format!("\x1b[{colour}m{line}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(state: &str) -> Value {
        json!({
            "schema": 1,
            "agent": {"version": "0.1.0", "since": "2026-11-21T10:00:00Z"},
            "clock": "synced",
            "ocpp": {"mode": "direct", "state": "accepted", "url": "wss://csms/ocpp", "profile": 2, "since": "2026-11-21T10:00:01Z", "last_error": null},
            "month": {"name": "2026-11", "bytes": 12_345_678, "cap": 500_000_000},
            "tunnels": [
                {"id": "1", "slot": 1, "key": "InvokeCustomScript1", "state": state, "reason": null, "server": "ops@gw",
                 "forwards": [{"remote": "localhost:1111", "local": "127.0.0.1:22"}], "since": "2026-11-21T10:00:02Z",
                 "expires": "2026-11-21T18:00:02Z", "connections": 1, "bytes_in": 2, "bytes_out": 3, "retry_at": null,
                 "last_error": "a\nb", "address": "203.0.113.7:443", "proxy": null, "refused": null},
            ],
        })
    }

    #[test]
    fn people_see_state_forwards_and_errors() {
        let text = words(&document("up"));
        assert_eq!(
            text,
            "agent 0.1.0 running since 2026-11-21T10:00:00Z\n\
             ocpp accepted since 2026-11-21T10:00:01Z: wss://csms/ocpp, security profile 2\n\
             month 2026-11: 12.3 MB of 500 MB\n\
             1    up since 2026-11-21T10:00:02Z: ops@gw  [InvokeCustomScript1]\n     \
             at 203.0.113.7:443\n     \
             localhost:1111 -> 127.0.0.1:22\n     \
             1 connection open, 2 bytes in, 3 bytes out\n     \
             until 2026-11-21T18:00:02Z\n     \
             last error: a\nb"
        );
    }

    #[test]
    fn people_are_told_of_a_link_that_is_less_than_it_was_made_for() {
        let mut document = document("up");
        for (wanted, told) in [(2, false), (3, true)] {
            document["ocpp"]["security_profile"] = wanted.into();
            let text = words(&document);
            assert_eq!(text.contains("doesn't ask for our client certificate"), told, "{text}");
        }
    }

    #[test]
    fn people_are_told_what_to_do() {
        let mut document = document("backoff");
        document["ocpp"]["cure"] = "look at the CSMS".into();
        document["tunnels"][0]["cure"] = "look at the server".into();
        let text = words(&document);
        assert!(text.contains("\n     to do: look at the CSMS\n"), "{text}");
        assert!(text.ends_with("last error: a\nb\n     to do: look at the server"), "{text}");
    }

    #[test]
    fn people_are_told_of_an_end_that_is_near() {
        let mut document = document("up");
        assert!(!words(&document).contains("soon"));
        document["tunnels"][0]["ends_soon"] = true.into();
        let text = words(&document);
        assert!(
            text.contains("until 2026-11-21T18:00:02Z, which is soon: open it again to keep it"),
            "{text}"
        );
    }

    #[test]
    fn people_see_which_of_several_forwards_is_missing() {
        let mut document = document("forwarding");
        document["tunnels"][0]["forwards"] = json!([
            {"remote": "localhost:1111", "local": "127.0.0.1:22", "listening": false},
            {"remote": "localhost:1112", "local": "127.0.0.1:80", "listening": true},
        ]);
        let text = words(&document);
        assert!(text.contains("localhost:1111 -> 127.0.0.1:22  (not open yet)\n"), "{text}");
        assert!(text.contains("localhost:1112 -> 127.0.0.1:80\n"), "{text}");
    }
}
