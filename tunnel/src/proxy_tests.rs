//! What a proxy is asked, and what is made of its answers.

use proptest::prelude::*;
use tokio::net::TcpListener;

use super::*;

const TARGET: &str = "gw.example";

fn proxy() -> Proxy {
    "http://proxy.example:3128".parse().unwrap()
}

/// Sends the answer in pieces, and gives what came of it, with the request.
async fn ask(proxy: Proxy, pieces: &[&[u8]]) -> (Result<Vec<u8>, Failure>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
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
    let host: Host = TARGET.parse().unwrap();
    let (result, request) = tokio::join!(proxy.connect(stream, &host, 22), serve);
    let result = match result {
        Ok((mut stream, mut early)) => {
            // What comes later follows what came early.
            stream.read_to_end(&mut early).await.unwrap();
            Ok(early)
        }
        Err(failure) => Err(failure),
    };
    (result, request)
}

async fn error(proxy: Proxy, answer: &str) -> (FailureKind, String) {
    let failure = ask(proxy, &[answer.as_bytes()]).await.0.expect_err("a refusal");
    (failure.kind, failure.text)
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
        (proxy(), "HTTP/1.1 407 x\r\n\r\n", FailureKind::ProxyAuth, "wants to know who asks (407)"),
        (
            proxy(),
            "HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n",
            FailureKind::ProxyAuth,
            "wants to know who asks (407, by NTLM or Negotiate; only Basic is known here)",
        ),
        (
            with_password(),
            "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"r\"\r\n\r\n",
            FailureKind::ProxyAuth,
            "doesn't take our user and password (407)",
        ),
        (
            proxy(),
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            FailureKind::Proxy,
            "forbids connections to gw.example:22 (403)",
        ),
        (proxy(), "HTTP/1.1 405 x\r\n\r\n", FailureKind::Proxy, "takes no CONNECT (405)"),
        (proxy(), "HTTP/1.1 503 x\r\n\r\n", FailureKind::Proxy, "can't reach gw.example:22 (503)"),
        (proxy(), "HTTP/1.1 302 x\r\n\r\n", FailureKind::Proxy, "refuses to connect to gw.example:22 (302)"),
        (proxy(), "HTTP/1.1 101 x\r\n\r\n", FailureKind::Proxy, "refuses to connect to gw.example:22 (101)"),
    ] {
        assert_eq!(error(proxy, answer).await, (kind, format!("the proxy proxy.example:3128 {text}")));
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
        let (kind, error) = error(proxy(), answer).await;
        assert!(
            kind == FailureKind::Proxy
                && error.starts_with(&format!("the proxy proxy.example:3128 {text}"))
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
    for text in
        ["proxy:3128", "https://proxy:3128", "http://proxy", "http://:1", "http://p:0", "http://p:1/x", ""]
    {
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
    let long = format!("u:{}", "p".repeat(PROXY_CREDENTIALS_BYTES));
    for bad in ["", "u", ":p", "u:p\r\nX: y", "u:p\n", "u:\u{7}", &long] {
        assert_eq!(proxy().with_credentials(bad), Err(ProxyError::NotUserPassword), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_answer_confuses_it(answer in prop::collection::vec(any::<u8>(), 0..200), good in any::<bool>()) {
        let answer = if good { [b"HTTP/1.1 200 OK\r\n".as_slice(), &answer].concat() } else { answer };
        let host: Host = TARGET.parse().unwrap();
        if let Ok(Some(end)) = proxy().judge(&answer, &host, 22) {
            prop_assert!(answer[..end].ends_with(b"\n"), "{answer:?}");
        }
    }
}
