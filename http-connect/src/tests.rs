//! What a proxy is asked, and what is made of its answers.

use proptest::prelude::*;
use tokio::net::{TcpListener, TcpStream};

use super::*;

const SERVER: &str = "gw.example:22";

fn proxy() -> Proxy {
    "http://proxy.example:3128".parse().unwrap()
}

/// Sends the answer in pieces, and gives what came of it, with the request.
async fn ask(proxy: Proxy, pieces: &[&[u8]]) -> (Result<Vec<u8>, ConnectError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.set_nodelay(true).unwrap();
    let serve = async {
        let mut request = vec![0; 4096];
        let read = server.read(&mut request).await.unwrap();
        for piece in pieces {
            // It fails where the answer so far was refused.
            let _ = server.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        drop(server);
        String::from_utf8(request[..read].to_vec()).unwrap()
    };
    let (result, request) = tokio::join!(proxy.connect(&mut stream, SERVER), serve);
    let result = match result {
        Ok(mut early) => {
            // What comes later follows what came early.
            stream.read_to_end(&mut early).await.unwrap();
            Ok(early)
        }
        Err(error) => Err(error),
    };
    (result, request)
}

type Kind = fn(String) -> ConnectError;

async fn error(proxy: Proxy, answer: &str) -> ConnectError {
    ask(proxy, &[answer.as_bytes()]).await.0.expect_err("a refusal")
}

#[tokio::test]
async fn the_request_names_the_server_and_not_its_address() {
    let (result, request) = ask(proxy(), &[b"HTTP/1.1 200 OK\r\n\r\n"]).await;
    assert_eq!(result.unwrap(), b"");
    assert_eq!(request, "CONNECT gw.example:22 HTTP/1.1\r\nHost: gw.example:22\r\n\r\n");
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let proxy = proxy().with_credentials("Aladdin:open sesame").unwrap();
    assert_eq!(format!("{proxy} {proxy:?}"), "proxy.example:3128 proxy.example:3128");
    let (_, request) = ask(proxy, &[b"HTTP/1.1 200 OK\r\n\r\n"]).await;
    assert!(request.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{request}");
}

#[tokio::test]
async fn what_the_server_says_right_behind_the_answer_is_kept() {
    for pieces in [
        &[b"HTTP/1.0 200 Connection established\r\nVia: 1.1 x\r\n\r\nSSH-2.0-x\r\n".as_slice()]
            as &[&[u8]],
        &[b"HTTP/1.1 20", b"0 OK\r\n", b"\r", b"\nSSH-", b"2.0-x\r\n"],
        &[b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nSSH-2.0-x\r\n"],
    ] {
        assert_eq!(ask(proxy(), pieces).await.0.unwrap(), b"SSH-2.0-x\r\n");
    }
}

#[tokio::test]
async fn refusals_say_what_the_proxy_does_not_want() {
    let with_password = || proxy().with_credentials("u:p").unwrap();
    for (proxy, answer, kind, text) in [
        (
            proxy(),
            "HTTP/1.1 407 x\r\n\r\n",
            ConnectError::Unauthorized as Kind,
            "wants to know who asks (407)",
        ),
        (
            proxy(),
            "HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n",
            ConnectError::Unauthorized as Kind,
            "wants to know who asks (407, by NTLM or Negotiate; only Basic is known here)",
        ),
        (
            with_password(),
            "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"r\"\r\n\r\n",
            ConnectError::Unauthorized as Kind,
            "doesn't take our user and password (407)",
        ),
        (
            proxy(),
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            ConnectError::Refused,
            "forbids connections to gw.example:22 (403)",
        ),
        (proxy(), "HTTP/1.1 405 x\r\n\r\n", ConnectError::Refused, "takes no CONNECT (405)"),
        (proxy(), "HTTP/1.1 503 x\r\n\r\n", ConnectError::Refused, "can't reach gw.example:22 (503)"),
        (
            proxy(),
            "HTTP/1.1 302 x\r\n\r\n",
            ConnectError::Refused,
            "refuses to connect to gw.example:22 (302)",
        ),
        (
            proxy(),
            "HTTP/1.1 101 x\r\n\r\n",
            ConnectError::Refused,
            "refuses to connect to gw.example:22 (101)",
        ),
    ] {
        assert_eq!(error(proxy, answer).await, kind(format!("the proxy proxy.example:3128 {text}")));
    }
}

#[tokio::test]
async fn what_is_no_answer_of_a_proxy_is_refused() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(10_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(65));
    for (answer, text) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", "doesn't answer as an HTTP proxy: "),
        ("HTTP/2 200 OK\r\n\r\n", "doesn't answer as an HTTP proxy: "),
        ("HTTP/1.1 20 OK\r\n\r\n", "doesn't answer as an HTTP proxy: "),
        ("HTTP/1.1 2000 OK\r\n\r\n", "doesn't answer as an HTTP proxy: "),
        (&many, "doesn't answer as an HTTP proxy: "),
        (&endless, "answers with more than 8192 bytes of header"),
        ("HTTP/1.1 200 OK\r\n", "closed the connection without an answer"),
        ("", "closed the connection without an answer"),
    ] {
        let ConnectError::Broken(error) = error(proxy(), answer).await else { panic!("{answer:.40}") };
        assert!(
            error.starts_with(&format!("the proxy proxy.example:3128 {text}"))
                // Closing with unread bytes resets the connection.
                || error.contains("broke the connection off"),
            "{answer:.40}: {error}"
        );
    }
}

#[test]
fn takes_urls_of_plain_proxies_with_a_port() {
    for (text, shown) in [
        ("http://proxy:3128", "proxy:3128"),
        ("http://Proxy.Example:80/", "proxy.example:80"),
        ("http://10.0.0.1:8080", "10.0.0.1:8080"),
        ("http://[2001:db8::1]:3128", "[2001:db8::1]:3128"),
    ] {
        assert_eq!(text.parse::<Proxy>().map(|proxy| proxy.to_string()).as_deref(), Ok(shown));
    }
    for text in [
        "proxy:3128",
        "https://proxy:3128",
        "http://proxy",
        "http://:1",
        "http://p:0",
        "http://p:1/x",
        "",
        "http://127.1:80",
        "http://a.0x7f:80",
        "http://[::1:80",
        "http://::1:80",
        "http://a..b:80",
        "http://a b:80",
    ] {
        assert_eq!(text.parse::<Proxy>(), Err(ProxyError::Url(text.to_owned())), "{text}");
    }
    let error = "http://user:secret@proxy:3128".parse::<Proxy>().unwrap_err();
    assert_eq!(error, ProxyError::Credentials);
    assert!(!error.to_string().contains("secret"));
}

#[test]
fn credentials_are_one_line_with_a_colon() {
    for good in ["u:p", "u:", "u:p:q", "ü:ß"] {
        assert!(proxy().with_credentials(good).is_ok(), "{good}");
    }
    let long = format!("u:{}", "p".repeat(CREDENTIALS_BYTES));
    for bad in ["", "u", ":p", "u:p\r\nX: y", "u:p\n", "u:\u{7}", &long] {
        assert_eq!(proxy().with_credentials(bad), Err(ProxyError::NotUserPassword), "{bad:?}");
    }
}

#[tokio::test]
async fn a_server_that_would_end_the_line_is_never_asked_for() {
    let (mut ours, _theirs) = tokio::io::duplex(1000);
    for server in ["a b:1", "a:1\r\nX: y", "ä:1"] {
        let error = proxy().connect(&mut ours, server).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)), "{error}");
    }
}

proptest! {
    #[test]
    fn a_url_is_taken_or_refused_and_shown_as_it_was_taken(rest in "[a-z0-9:.\\[\\]_/-]{0,20}") {
        if let Ok(proxy) = format!("http://{rest}").parse::<Proxy>() {
            prop_assert_eq!(format!("http://{proxy}").parse(), Ok(proxy));
        }
    }

    #[test]
    fn no_answer_confuses_it(answer in prop::collection::vec(any::<u8>(), 0..200), good in any::<bool>()) {
        let answer = if good { [b"HTTP/1.1 200 OK\r\n".as_slice(), &answer].concat() } else { answer };
        if let Ok(Some(end)) = proxy().judge(&answer, SERVER) {
            prop_assert!(answer[..end].ends_with(b"\n"), "{answer:?}");
        }
    }
}
