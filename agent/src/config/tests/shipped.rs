//! The commented file that packages install: every key, with its default.

use super::*;

/// The file that packages install.
const SHIPPED: &str = include_str!("../../../../cross/files/config.toml");

/// The shipped file's keys by section, each with its line, and whether a comment above says that it is an example.
fn shipped_keys() -> Vec<(String, String, bool)> {
    let (mut section, mut comment) = (String::new(), String::new());
    let mut keys = Vec::new();
    let mut after_comment = false;
    for line in SHIPPED.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            if !after_comment {
                comment.clear();
            }
            comment += text;
            after_comment = true;
            continue;
        }
        after_comment = false;
        let line = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((name, _)) = line.split_once(" = ") {
            let key = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            keys.push((key, line.to_owned(), comment.contains("No default")));
        }
    }
    keys
}

/// The shipped file with every key set but `ocpp.identity_file`, which is the other way to say `ocpp.identity`.
pub(in crate::config) fn every_key() -> String {
    let is_setting = |line: &&str| {
        !line.starts_with("# ") && *line != "#" && !line.starts_with("#identity_file = \"/etc/")
    };
    let settings = SHIPPED.lines().filter(is_setting);
    settings.map(|line| line.strip_prefix('#').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_says_what_is_missing_and_nothing_else_is_wrong_with_it() {
    assert!(error(SHIPPED).contains("ocpp.identity is missing; set"), "{}", error(SHIPPED));
    let defaults = parse("ocpp.mode = 'off'").unwrap().to_toml();
    let shipped = SHIPPED.replace("#mode = \"direct\"", "mode = 'off'");
    assert_eq!(parse(&shipped).unwrap().to_toml(), defaults);
}

#[test]
fn the_shipped_file_shows_every_default() {
    parse(&every_key()).unwrap();
    // What has a default is that default: setting all of those changes nothing.
    let examples: Vec<String> =
        shipped_keys().into_iter().filter(|key| key.2).map(|(_, line, _)| line).collect();
    let defaults: String = every_key()
        .lines()
        .filter(|line| !examples.iter().any(|example| example == line))
        .map(
            |line| {
                if line.starts_with("mode = ") { "mode = 'off'\n".to_owned() } else { format!("{line}\n") }
            },
        )
        .collect();
    let (written, none) = (parse(&defaults).unwrap(), parse("ocpp.mode = 'off'").unwrap());
    assert_eq!(none.differences(&written), [""; 0]);
}

#[test]
fn the_shipped_file_names_every_key_that_there_is() {
    let known = |source: &str| -> Vec<String> {
        let error = error(source);
        let (_, names) = error.split_once("the keys here are ").unwrap_or_else(|| panic!("{error}"));
        names.split(", ").map(str::to_owned).collect()
    };
    let there: Vec<String> = shipped_keys().into_iter().map(|(key, _, _)| key).collect();
    for name in known("nothing_like_this = 1") {
        let keys = match name.as_str() {
            "state_dir" | "runtime_dir" => vec![name],
            "script" => {
                let keys = known("[[script]]\nnothing_like_this = 1");
                keys.into_iter().map(|key| format!("script.{key}")).collect()
            }
            section => {
                let keys = known(&format!("[{section}]\nnothing_like_this = 1"));
                keys.into_iter().map(|key| format!("{section}.{key}")).collect()
            }
        };
        for key in keys {
            assert!(there.contains(&key), "{key} isn't in the shipped file");
        }
    }
}
