//! Every command as a person at a terminal sees it: a serial console with 80 columns, a window with 40, one that is dumb.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::process::{Output, run};
use ocpp_tunnel_tests::rig::Rig;
use ocpp_tunnel_tests::sshd::{PASSWORD, Sshd};
use ocpp_tunnel_tests::terminal::{converse, script};
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// How a status begins.
const AGENT: &str = concat!("agent ", env!("CARGO_PKG_VERSION"), " running");

/// Commands whose words are laid out for the terminal, and what each must say.
const SCREENS: [(&[&str], &str); 24] = [
    (&["--help"], "Exit codes:"),
    (&["run", "--help"], "SIGHUP"),
    (&["open", "--help"], "--background"),
    (&["close", "--help"], "--yes"),
    (&["status", "--help"], "--watch"),
    (&["keys", "--help"], "rotate"),
    (&["keys", "install", "--help"], "password"),
    (&["keys", "remove", "--help"], "--print"),
    (&["keys", "rotate", "--help"], "--finish"),
    (&["host-keys", "--help"], "trust"),
    (&["host-keys", "trust", "--help"], "--fingerprint"),
    (&["check", "--help"], "FAIL"),
    (&["logs", "--help"], "--follow"),
    (&["audit", "--help"], "--since"),
    (&["config", "--help"], "reload"),
    (&["status"], "agent "),
    (&["check"], "configuration"),
    (&["config", "check"], "ok"),
    (&["config", "reload"], "nothing has changed"),
    (&["opne"], "'open'"),
    (&["audit", "--type", "tunel-opened"], "tip: a similar value exists"),
    (&["close"], "no tunnel is named"),
    (&["close", "7"], "there is no tunnel 7"),
    (&["open", "nonsense"], "nonsense"),
];

/// What is in one piece may be wider than any terminal, and is left to it.
fn is_one_word(row: &str) -> bool {
    !row.trim().contains(' ')
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let end = after.find(|c: char| c.is_ascii_alphabetic()).map_or(after.len(), |end| end + 1);
        rest = &after[end..];
    }
    plain + rest
}

#[tokio::test]
async fn no_screen_is_broken_by_a_narrow_terminal() {
    let mut rig = Rig::start().await;
    rig.open(1).await;
    for columns in [80, 40] {
        for (arguments, part) in SCREENS {
            let shown = rig.agent.on_a_vt100(columns, arguments, &[]).await;
            let plain = without_colours(&shown.stdout);
            let joined = plain.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(joined.contains(part), "{arguments:?}: {part:?} in\n{plain}");
            for row in plain.lines().map(|row| row.rsplit('\r').next().unwrap_or_default()) {
                let fits = row.chars().count() <= columns.into();
                assert!(fits || is_one_word(row), "{arguments:?} has more than {columns}: {row:?}");
            }
        }
    }
}

/// Whatever is copied or read by programs comes as in a pipe, however narrow the window is.
#[tokio::test]
async fn data_is_never_laid_out() {
    let rig = Rig::start().await;
    for arguments in [
        &["keys", "show"][..],
        &["keys", "show", "--authorized-keys"],
        &["keys", "install", "support@203.0.113.7", "--print"],
        &["config", "show"],
        &["host-keys", "list", "--json"],
        &["audit", "-n", "1"],
        &["audit", "--json", "-n", "1"],
        &["logs", "-n", "1"],
        &["--version"],
    ] {
        let piped = rig.agent.cli(arguments).await;
        assert!(piped.code == Some(0) && !piped.stdout.is_empty(), "{arguments:?}: {piped:?}");
        let shown = rig.agent.on_a_vt100(40, arguments, &[]).await;
        assert!(shown.stdout.starts_with(&piped.stdout), "{arguments:?}: {shown:?} isn't {piped:?}");
    }
}

/// What changes keys, where each screen depends on the one before.
#[tokio::test]
async fn a_key_to_copy_stays_whole_and_what_is_said_of_it_fits() {
    let rig = Rig::start().await;
    let server = format!("127.0.0.1:{}", rig.sshd.port());
    for (arguments, code, part) in [
        (&["keys", "rotate"][..], 0, "Add this line to the account on each server"),
        (&["keys", "show"], 0, "the new key of a rotation"),
        (&["keys", "rotate", "--abort"], 0, "is given up; this device stays with"),
        (&["keys", "rotate", "--finish"], 4, "`ocpp-tunnel keys rotate` begins one"),
        (&["host-keys", "list"], 0, "ssh.host_keys, line 1"),
        (&["host-keys", "scan", &server], 0, "trusted"),
        (&["host-keys", "remove", &server], 4, "is pinned by the configuration"),
    ] {
        let shown = rig.agent.on_a_vt100(40, arguments, &[]).await;
        let plain = without_colours(&shown.stdout);
        assert_eq!(shown.code, Some(code), "{arguments:?}: {plain}");
        let joined = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(joined.contains(part), "{arguments:?}: {part:?} in\n{plain}");
        let is_key = |row: &&str| row.contains("ssh-ed25519 AAAA");
        let rows = plain.lines().map(|row| row.rsplit('\r').next().unwrap_or_default());
        let keys: Vec<&str> = rows.clone().filter(is_key).collect();
        assert_eq!(keys.len(), usize::from(matches!(arguments, ["keys", "rotate" | "show"])), "{plain}");
        for key in keys {
            let public = &key[key.find("ssh-ed25519").unwrap()..];
            assert!(ssh_key_is_whole(public).await, "{arguments:?}: {key}");
        }
        for row in rows.filter(|row| !is_key(row)) {
            assert!(row.chars().count() <= 40 || is_one_word(row), "{arguments:?}: {row:?}");
        }
    }
}

/// Whether OpenSSH takes this for a public key.
async fn ssh_key_is_whole(line: &str) -> bool {
    let mut command = Command::new("ssh-keygen");
    run(command.args(["-l", "-f", "/dev/stdin"]), &format!("{line}\n")).await.code == Some(0)
}

#[tokio::test]
async fn what_is_followed_goes_on_until_ctrl_c() {
    let rig = Rig::start().await;
    for (arguments, part) in [(&["logs", "-f"][..], "ocpp-connected"), (&["audit", "-f"], "agent-started")] {
        let shown = rig.agent.on_a_vt100(80, arguments, &[(part, "\u{3}")]).await;
        assert_eq!(shown.code, Some(130), "{shown:?}");
    }
}

#[tokio::test]
async fn a_tunnel_in_the_foreground_tells_how_it_is_and_closes_with_ctrl_c() {
    let mut rig = Rig::start().await;
    rig.agent.terminate().await;
    let shown = rig.agent.on_a_vt100(80, &["open"], &[(": up", "\u{3}")]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for part in ["Ctrl-C closes it.", ": up", &format!("localhost:{}", rig.remote[0]), "closed (user)"] {
        assert!(shown.stdout.contains(part), "{part}: {shown:?}");
    }
    rig.port_is_free(1).await;
}

/// A port that is taken is the commonest failure in the field.
#[tokio::test]
async fn a_tunnel_in_the_foreground_tells_what_keeps_it_from_coming_up() {
    let mut rig = Rig::start().await;
    rig.agent.terminate().await;
    let key = rig.agent.cli(&["keys", "show"]).await.stdout;
    rig.sshd.authorize_nobody();
    rig.sshd.authorize(&format!("restrict,port-forwarding,permitlisten=\"localhost:1\" {key}"));
    let shown = rig.agent.on_a_vt100(80, &["open", "--wait"], &[("try: free the port", "\u{3}")]).await;
    let joined = shown.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["not up yet: ", "refused to listen", "it keeps trying", "closed (user)"] {
        assert!(joined.contains(part), "{part}: {shown:?}");
    }
    assert_eq!(shown.code, Some(9), "it never was up: {shown:?}");
}

/// Nothing is written for a while, and yet it is noticed that nobody reads.
#[tokio::test]
async fn what_is_followed_ends_with_its_reader() {
    let rig = Rig::start().await;
    for arguments in [&["logs", "-f", "-n", "1"][..], &["audit", "-f", "-n", "1"], &["status", "--watch"]] {
        let line = format!("set -o pipefail; {} | head -n 1", rig.agent.line(arguments));
        let shown = run(Command::new("bash").args(["-c", &line]), "").await;
        assert_eq!((shown.code, shown.stdout.lines().count()), (Some(0), 1), "{arguments:?}: {shown:?}");
    }
}

#[tokio::test]
async fn a_key_is_installed_in_a_narrow_window() {
    let sshd = Sshd::start_with_password("").await;
    let agent = Agent::new(Setup::new().ocpp("mode = 'off'").script(1, ports::free(), "127.0.0.1:22"));
    let password = format!("{PASSWORD}\n");
    let answers = [("Type yes", "yes\n"), ("Password of ", password.as_str())];
    let shown = agent.on_a_vt100(40, &["keys", "install", &sshd.destination()], &answers).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for wait in ["connecting", "trying the key", "changing authorized_keys", "logging in with the key"] {
        assert!(shown.stdout.contains(&format!("\r\u{1b}[K... {wait}\r\u{1b}[K")), "{wait}: {shown:?}");
    }
    assert!(!shown.stdout.contains(PASSWORD), "{shown:?}");
    for row in shown.stdout.lines().flat_map(|row| row.split('\r')) {
        let row = without_colours(row);
        assert!(row.chars().count() <= 40 || is_one_word(&row), "more than 40: {row:?}");
    }
}

#[tokio::test]
async fn colours_and_the_progress_line_are_for_terminals_that_want_them() {
    let rig = Rig::start().await;
    let nobody = format!("support@127.0.0.1:{}", ports::free());
    let line = rig.agent.line(&["check", &nobody]);
    let on = async |environment: &[(&str, &str)]| {
        let mut command = script(&line);
        let shown = converse(command.envs(environment.iter().copied()), &[]).await;
        assert_eq!(shown.code, Some(6), "{shown:?}");
        shown.stdout
    };
    let plenty = on(&[("TERM", "vt100")]).await;
    assert!(plenty.contains("\u{1b}[31mFAIL\u{1b}[0m") && plenty.contains("\r\u{1b}[K... tcp"), "{plenty:?}");
    let plain = on(&[("TERM", "vt100"), ("NO_COLOR", "1")]).await;
    assert!(!plain.contains("\u{1b}[3") && plain.contains("\r\u{1b}[K... tcp"), "{plain:?}");
    let dumb = on(&[("TERM", "dumb")]).await;
    assert!(!dumb.contains('\u{1b}'), "{dumb:?}");
    let piped = rig.agent.cli(&["check", &nobody]).await;
    assert!(!piped.stdout.contains('\u{1b}') && piped.stderr.is_empty(), "{piped:?}");
}

#[tokio::test]
async fn a_wrong_name_is_answered_with_the_right_ones() {
    let mut rig = Rig::start().await;
    for arguments in [&["close", "7"][..], &["close", "x1"], &["close"]] {
        let none = rig.agent.cli(arguments).await;
        assert!(none.stderr.contains("no tunnel is known to be open"), "{none:?}");
    }
    rig.open(1).await;
    for (arguments, code) in [(&["close", "7"][..], 4), (&["close", "x1"], 2), (&["close"], 2)] {
        let one = rig.agent.cli(arguments).await;
        assert_eq!(one.code, Some(code), "{one:?}");
        assert!(one.stderr.contains("try: `ocpp-tunnel close 1`"), "{one:?}");
    }
    rig.open(2).await;
    let two = rig.agent.cli(&["close", "3"]).await;
    assert!(two.stderr.contains("those that are open: 1, 2;"), "{two:?}");

    for (arguments, tip) in [
        (&["stauts"][..], "'status'"),
        (&["host-keys", "lst"], "'list'"),
        (&["open", "--scrpt", "1"], "'--script'"),
        (&["audit", "--type", "tunnel-opend"], "a similar value exists: 'tunnel-opened'"),
    ] {
        let output = rig.agent.cli(arguments).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains("tip: ") && output.stderr.contains(tip), "{output:?}");
    }
    let script = rig.agent.cli(&["open", "--script", "3"]).await;
    assert!(script.stderr.contains("try: "), "{script:?}");
    rig.agent.drop_in("50-mistake.toml", "[polcy]\nmax_duration = '1h'\n");
    let key = rig.agent.cli(&["config", "check"]).await;
    assert!(key.code == Some(78) && key.stderr.contains("policy"), "{key:?}");
}

#[tokio::test]
async fn a_watched_status_is_redrawn_until_ctrl_c_and_leaves_the_terminal_as_it_was() {
    let rig = Rig::start().await;
    let directory = rig.agent.directory().display().to_string();
    let watch = rig.agent.line(&["status", "--watch"]);
    let close = rig.agent.line(&["open", "--wait"]);
    // The shell outlives Ctrl-C, and looks at its terminal before and after.
    let line = format!(
        "trap : INT; stty columns 80 rows 24; stty -a >{directory}/before; \
         (sleep 2; {close}) >/dev/null 2>&1 </dev/null & {watch}; echo ended $?; stty -a >{directory}/after"
    );
    let mut terminal = script(&line);
    let shown =
        converse(terminal.env("TERM", "vt100").env("NO_COLOR", "1"), &[("1    up since", "\u{3}")]).await;
    let text = &shown.stdout;
    assert!(text.contains("\u{1b}[2J\u{1b}[1;1H\u{1b}[Kagent "), "{text:?}");
    assert!(text.contains("-- Ctrl-C ends --"), "{text:?}");
    assert!(text.contains("ended 130"), "{text:?}");
    assert_eq!(text.matches(AGENT).count(), 1, "what stays isn't written again: {text:?}");
    let settings = |name: &str| std::fs::read_to_string(rig.agent.directory().join(name)).unwrap();
    assert_eq!(settings("before"), settings("after"));
}

#[tokio::test]
async fn a_watched_status_in_a_pipe_tells_each_change_once() {
    let mut rig = Rig::start().await;
    let start = |arguments: &[&str]| {
        let mut command = rig.agent.command(arguments);
        command.stdout(std::process::Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (_json, mut documents) = start(&["status", "--watch", "--json"]);
    let (_people, mut blocks) = start(&["status", "--watch"]);
    let document = |line: Option<String>| serde_json::from_str::<Value>(&line.unwrap()).unwrap();
    let first = document(documents.next_line().await.unwrap());
    assert_eq!((&first["schema"], &first["tunnels"][0]["state"]), (&1.into(), &"idle".into()));
    rig.open(1).await;
    let mut before = first;
    let up = async {
        loop {
            let next = document(documents.next_line().await.unwrap());
            assert_ne!(next, before, "only changes are told");
            if next["tunnels"][0]["state"] == "up" {
                break;
            }
            before = next;
        }
        while !blocks.next_line().await.unwrap().unwrap().starts_with("1    up since") {}
    };
    tokio::time::timeout(LONG, up).await.expect("both tell that the tunnel is up");

    // An agent that ends is told of, and its successor is found.
    rig.agent.terminate().await;
    let back = async {
        while !blocks.next_line().await.unwrap().unwrap().starts_with("no agent answers") {}
        rig.agent.start().await;
        while !blocks.next_line().await.unwrap().unwrap().starts_with(AGENT) {}
    };
    tokio::time::timeout(LONG, back).await.expect("the end and the return are told");

    rig.agent.terminate().await;
    let nobody = rig.agent.cli(&["status", "--watch"]).await;
    assert_eq!(nobody.code, Some(10), "{nobody:?}");
}

/// Of what root does, nothing becomes root's where the agent's user has to write.
#[tokio::test]
async fn started_as_root_no_command_leaves_a_file_of_its_own() {
    let mut rig = Rig::with(|setup| setup.pin_nothing()).await;
    rig.agent.terminate().await;
    let owner = "61234:61234";
    let directories = [rig.agent.state_dir(), rig.agent.runtime_dir()];
    let output = run(Command::new("chown").args(["-R", owner]).args(&directories), "").await;
    assert_eq!(output.code, Some(0), "{output:?}");
    std::fs::remove_file(rig.agent.state_dir().join("id_ed25519")).unwrap();
    let server = rig.sshd.destination().split_once('@').unwrap().1.to_owned();
    let fingerprint = rig.sshd.host_key().fingerprint().await;
    let destination = rig.sshd.destination();

    let is_owners = |after: &str| {
        for directory in &directories {
            for file in files(directory) {
                let metadata = std::fs::symlink_metadata(&file).unwrap();
                let ids = (metadata.uid(), metadata.gid());
                assert_eq!(ids, (61_234, 61_234), "{} after {after}", file.display());
            }
        }
    };
    for (arguments, code) in [
        (&["keys", "show"][..], 0),
        (&["keys", "rotate"], 0),
        (&["keys", "rotate", "--abort"], 0),
        (&["host-keys", "list"], 0),
        (&["host-keys", "scan", &server], 0),
        (&["host-keys", "trust", &server, "--fingerprint", &fingerprint], 0),
        (&["check"], 8),
        (&["audit"], 0),
        (&["config", "check"], 0),
        (&["config", "show"], 0),
        (&["open", &destination, "--background", "--wait"], 8),
        (&["status"], 3),
        (&["logs"], 0),
        (&["close", "--all"], 0),
        (&["host-keys", "remove", &server], 0),
    ] {
        let output: Output = rig.agent.cli(arguments).await;
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        is_owners(&arguments.join(" "));
    }
    wait_until("nothing runs any more", LONG, async || {
        (rig.agent.cli(&["status"]).await.code == Some(10)).then_some(())
    })
    .await;
    // The key was made by the owner, and the records were written by it; they tell who asked.
    assert!(rig.agent.state_dir().join("id_ed25519").exists());
    let records = rig.agent.records(&["--type", "device-key-rotation"]).await;
    assert_eq!(records[0]["source"]["uid"], 0, "{records:?}");
    is_owners("all of it");

    // Root has read the configuration before; the agent has to read it again.
    std::fs::set_permissions(rig.agent.config_path(), PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(rig.agent.config_path(), Some(0), Some(0)).unwrap();
    let warned = rig.agent.cli(&["config", "check"]).await;
    let remark = format!("{} can't be read by user 61234", rig.agent.config_path().display());
    assert!(warned.code == Some(0) && warned.stdout.contains(&remark), "{warned:?}");
    let checked = rig.agent.cli(&["check", "--json"]).await;
    assert!(checked.stdout.contains(&remark) && !checked.stdout.contains("run as root"), "{checked:?}");
    std::fs::set_permissions(rig.agent.config_path(), PermissionsExt::from_mode(0o644)).unwrap();
    // What root can read says nothing: the agent reads it as that user.
    let password = rig.agent.directory().join("password-of-root");
    std::fs::write(&password, "correct horse battery").unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    rig.agent.drop_in("50.toml", &format!("[ocpp]\nauthorization_key_file = '{}'\n", password.display()));
    for command in [&["config", "check"][..], &["run"]] {
        let refused = rig.agent.cli(command).await;
        assert_eq!(refused.code, Some(78), "{command:?}: {refused:?}");
        assert!(refused.stderr.contains("password-of-root"), "{command:?}: {refused:?}");
    }
    rig.agent.drop_in("50.toml", "");
    let key = rig.agent.state_dir().join("id_ed25519");
    std::os::unix::fs::chown(&key, Some(0), Some(0)).unwrap();
    let refused = rig.agent.cli(&["keys", "show"]).await;
    let cure = format!("chown 61234 {key}; chmod 600 {key}", key = key.display());
    assert!(refused.code == Some(78) && refused.stderr.contains(&cure), "{refused:?}");
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![directory.to_owned()];
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// The manual page and the completions, as packages have them.
#[tokio::test]
async fn the_manual_page_is_sound_and_the_shell_completes_commands() {
    let directory = tempfile::tempdir().unwrap();
    let first = generate(directory.path(), Some("1795000000")).await;
    let second = generate(directory.path(), Some("1795000000")).await;
    assert!(first == second, "the same definition gives the same bytes");
    let page = String::from_utf8(first[0].clone()).unwrap();
    assert!(page.contains("2026-11-18"), "the date is that of the source");
    let undated = generate(directory.path(), None).await;
    let undated = String::from_utf8_lossy(&undated[0]).into_owned();
    assert!(
        undated.contains(".TH OCPP-TUNNEL 1 \" \" \"ocpp-tunnel "),
        "without a source date there is none"
    );

    let man = run(
        Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"])
            .arg(directory.path().join("man/ocpp-tunnel.1"))
            .env("MANWIDTH", "80")
            .env("MANPAGER", "cat"),
        "",
    )
    .await;
    assert_eq!((man.code, man.stderr.trim()), (Some(0), ""), "{}", man.stderr);
    let text = without_backspaces(&man.stdout);
    for part in ["NAME", "SYNOPSIS", "EXIT STATUS", "FILES", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"] {
        assert!(text.lines().any(|line| line == part), "the page has {part}:\n{text}");
    }
    assert!(text.contains("ocpp-tunnel close t1") && text.contains("78  the configuration"), "{text}");

    let bash = directory.path().join("completions/ocpp-tunnel.bash").display().to_string();
    let check = run(Command::new("bash").args(["-n", &bash]), "").await;
    assert_eq!((check.code, check.stderr.as_str()), (Some(0), ""), "{check:?}");
    for (words, completed) in [
        ("ocpp-tunnel ho", "host-keys"),
        ("ocpp-tunnel host-keys tr", "trust"),
        ("ocpp-tunnel status --w", "--watch"),
        ("ocpp-tunnel audit --type agent-sta", "agent-started"),
    ] {
        // As bash calls what was registered for the command.
        let script = format!(
            ". {bash}; set -- $(complete -p ocpp-tunnel); while [ \"$1\" != -F ]; do shift; done; COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE='{words}'; COMP_POINT=${{#COMP_LINE}}; \
             \"$2\" ocpp-tunnel \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             printf '%s\n' \"${{COMPREPLY[@]}}\""
        );
        let reply = run(Command::new("bash").args(["--norc", "-c", &script]), "").await;
        assert_eq!(reply.stdout.trim(), completed, "{words}: {reply:?}");
    }

    // And as a person: the key is Tab, and the shell a real one.
    let rc = directory.path().join("rc");
    std::fs::write(
        &rc,
        format!("PS1='ready> '\nHISTFILE=\n. {bash}\nocpp-tunnel() {{ echo \"called with $*\"; }}\n"),
    )
    .unwrap();
    let mut shell = script(&format!("bash --noprofile --rcfile {} -i", rc.display()));
    let typed = [("ready> ", "ocpp-tunnel ho\t"), ("host-keys ", "\n"), ("called with host-keys", "exit\n")];
    converse(shell.env("TERM", "vt100"), &typed).await;
}

/// Page, bash, zsh and fish.
async fn generate(directory: &Path, date: Option<&str>) -> Vec<Vec<u8>> {
    let mut generator = Command::new(Agent::beside("ocpp-tunnel-man"));
    generator
        .arg(directory)
        .env_remove("SOURCE_DATE_EPOCH")
        .envs(date.map(|date| ("SOURCE_DATE_EPOCH", date)));
    let output = run(&mut generator, "").await;
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    let files = [
        "man/ocpp-tunnel.1",
        "completions/ocpp-tunnel.bash",
        "completions/_ocpp-tunnel",
        "completions/ocpp-tunnel.fish",
    ];
    files.map(|file| std::fs::read(directory.join(file)).unwrap()).to_vec()
}

/// What a page has for printers: letters over themselves.
fn without_backspaces(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        match character {
            '\u{8}' => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    without_colours(&plain)
}
