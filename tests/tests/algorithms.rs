//! What we offer in the key exchange, as a server sees it on the wire, and whom we refuse.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::Duration;

use ocpp_tunnel_tests::agent::{Agent, Setup};
use ocpp_tunnel_tests::process::run;
use ocpp_tunnel_tests::sshd::{ACCOUNT, Sshd};
use ocpp_tunnel_tests::{LONG, ports, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const SSH_MSG_KEXINIT: u8 = 20;

/// The lists of a KEXINIT in their order (RFC 4253, 7.1).
#[derive(Debug)]
struct Offer {
    kex: Vec<String>,
    host_keys: Vec<String>,
    ciphers: [Vec<String>; 2],
    macs: [Vec<String>; 2],
    compression: [Vec<String>; 2],
    languages: [Vec<String>; 2],
}

fn setup() -> Setup {
    Setup::new().ocpp("mode = 'off'").script(1, ports::free(), "127.0.0.1:9")
}

/// Lets the agent connect to a server that only listens, and reads what it offers.
async fn offer(setup: Setup) -> (String, Offer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = Agent::run(setup).await;
    let opened = agent.cli(&["open", &format!("{ACCOUNT}@127.0.0.1:{port}")]).await;
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let (mut stream, _) = tokio::time::timeout(LONG, listener.accept()).await.unwrap().unwrap();
    stream.write_all(b"SSH-2.0-Listener\r\n").await.unwrap();
    let mut version = String::new();
    while !version.ends_with("\r\n") {
        version.push(stream.read_u8().await.unwrap().into());
    }
    (version.trim_end().to_owned(), kexinit(&mut stream).await)
}

/// Reads one unencrypted packet (RFC 4253, 6), which must be a KEXINIT.
async fn kexinit(stream: &mut TcpStream) -> Offer {
    let length = stream.read_u32().await.unwrap() as usize;
    assert!(length < 35_000, "{length}");
    let padding = stream.read_u8().await.unwrap() as usize;
    let mut rest = vec![0; length - 1];
    stream.read_exact(&mut rest).await.unwrap();
    let payload = &rest[..rest.len() - padding];
    assert_eq!(payload[0], SSH_MSG_KEXINIT);
    let mut lists = &payload[1 + 16..];
    let mut next = || -> Vec<String> {
        let (length, rest) = lists.split_first_chunk::<4>().unwrap();
        let (list, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        lists = rest;
        let list = std::str::from_utf8(list).unwrap();
        list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let offer = Offer {
        kex: next(),
        host_keys: next(),
        ciphers: [next(), next()],
        macs: [next(), next()],
        compression: [next(), next()],
        languages: [next(), next()],
    };
    assert_eq!(lists, [0; 5], "no guessed packet follows, and nothing is reserved");
    offer
}

/// Whether this machine's CPU has the AES instructions, as the kernel says.
fn has_aes() -> bool {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let lines = cpu.lines().filter(|line| line.starts_with("flags") || line.starts_with("Features"));
    lines.flat_map(str::split_whitespace).any(|flag| flag == "aes")
}

#[tokio::test]
async fn we_offer_exactly_this() {
    let (version, offer) = offer(setup()).await;
    assert!(version.starts_with("SSH-2.0-ocpp-tunnel_"), "{version}");
    assert_eq!(
        offer.kex,
        [
            "mlkem768x25519-sha256",
            "curve25519-sha256",
            "curve25519-sha256@libssh.org",
            "diffie-hellman-group16-sha512",
            "diffie-hellman-group18-sha512",
            "diffie-hellman-group14-sha256",
            "ext-info-c",
            "kex-strict-c-v00@openssh.com",
        ]
    );
    assert_eq!(
        offer.host_keys,
        [
            "ssh-ed25519",
            "ecdsa-sha2-nistp256",
            "ecdsa-sha2-nistp384",
            "ecdsa-sha2-nistp521",
            "rsa-sha2-512",
            "rsa-sha2-256",
        ]
    );
    let (gcm, chacha) = ("aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com");
    let [first, second] = if has_aes() { [gcm, chacha] } else { [chacha, gcm] };
    let macs =
        ["hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512", "hmac-sha2-256"];
    for direction in [0, 1] {
        assert_eq!(offer.ciphers[direction], [first, second, "aes256-ctr", "aes128-ctr"]);
        assert_eq!(offer.macs[direction], macs);
        assert_eq!(offer.compression[direction], ["none"]);
        assert!(offer.languages[direction].is_empty());
    }
}

#[tokio::test]
async fn the_key_type_that_is_pinned_is_asked_for_first() {
    let pin = "[127.0.0.1]:* ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
    let (_, offer) = offer(setup().pin(pin)).await;
    assert_eq!(offer.host_keys[..2], ["ecdsa-sha2-nistp256", "ssh-ed25519"]);
}

#[tokio::test]
async fn weak_servers_are_refused_with_what_they_offer() {
    let dir = tempfile::tempdir().unwrap();
    let rsa = dir.path().join("rsa");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(&rsa);
    assert_eq!(run(&mut keygen, "").await.code, Some(0));
    let ssh_rsa = format!("HostKey {}\nHostKeyAlgorithms ssh-rsa", rsa.display());
    for (settings, kind, offered) in [
        (
            "KexAlgorithms diffie-hellman-group14-sha1,diffie-hellman-group1-sha1",
            "Kex",
            "diffie-hellman-group14-sha1,diffie-hellman-group1-sha1",
        ),
        ("Ciphers aes256-cbc,3des-cbc", "Cipher", "aes256-cbc,3des-cbc"),
        ("Ciphers aes128-ctr\nMACs hmac-sha1,hmac-md5", "Mac", "hmac-sha1,hmac-md5"),
        (&ssh_rsa, "Key", "ssh-rsa"),
    ] {
        let sshd = Sshd::start_with(&format!("{settings}\n")).await;
        let agent = Agent::run(setup()).await;
        sshd.authorize(&agent.authorized_keys_line().await);
        let opened = agent.cli(&["open", &sshd.destination()]).await;
        assert_eq!(opened.code, Some(0), "{opened:?}");
        let error = wait_until("the refusal", LONG, async || {
            let tunnel = agent.tunnel("1").await;
            tunnel["last_error"].as_str().map(str::to_owned)
        })
        .await;
        let expected = format!("no common {kind} algorithm, the server offers {offered}");
        assert!(error.contains(&expected), "{settings}: {error}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(sshd.logins(), 0, "{settings}");
        assert_ne!(agent.tunnel("1").await["state"], "up");
    }
}
