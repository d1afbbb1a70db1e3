//! docs/cli.md against the command line: each command is there, with the help that it prints.

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::process::run;

const PAGE: &str = include_str!("../../docs/cli.md");

/// Each command's words, groups included.
fn commands(parent: &clap::Command, words: &[String]) -> Vec<Vec<String>> {
    let mut found = vec![words.to_vec()];
    for command in parent.get_subcommands().filter(|command| !command.is_hide_set()) {
        let words = [words, &[command.get_name().to_owned()]].concat();
        found.extend(commands(command, &words));
    }
    found
}

#[tokio::test]
async fn the_page_has_every_command_with_the_help_that_it_prints() {
    let agent = Agent::new(Setup::new());
    let all = commands(&ocpp_tunnel::cli::definition(), &[]);
    assert!(all.len() > 20, "{all:?}");
    for words in &all {
        let mut command = agent.binary();
        let help = run(command.args(words).arg("--help"), "").await;
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{words:?}: {help:?}");
        let line = ["$ ocpp-tunnel", &words.join(" "), "--help"].join(" ").replace("  ", " ");
        let block = format!("```console\n{line}\n{}\n```\n", help.stdout.trim_end());
        assert!(PAGE.contains(&block), "docs/cli.md lacks this block:\n{block}");
        let wide = help.stdout.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{words:?}");
        let examples = help.stdout.contains("Examples:\n") || words.is_empty();
        assert!(examples, "{words:?} has no examples");
    }
    assert_eq!(
        PAGE.matches("```console\n$ ocpp-tunnel").count(),
        all.len(),
        "each once, and no other command"
    );
}

#[test]
fn every_exit_code_is_in_the_help_and_on_the_page() {
    let help = ocpp_tunnel::cli::definition().render_long_help().to_string();
    for code in 0..=u8::MAX {
        let exists = code == 1 || ocpp_tunnel::exit::Exit::from_code(code) != ocpp_tunnel::exit::Exit::Error;
        let in_help = help.lines().any(|line| line.starts_with(&format!("  {code:<4}")));
        assert_eq!(in_help, exists, "{code} in\n{help}");
        assert_eq!(PAGE.contains(&format!("\n| {code} | ")), exists, "{code}");
    }
}
