//! An HTTP proxy that knows `CONNECT`, and takes every host for 127.0.0.1.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// How long a server may take to speak first; one that waits for its client takes all of it.
const FIRST_WORDS: Duration = Duration::from_millis(200);

/// What the proxy lets pass.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The only port that it connects to; others are answered with 403.
    pub only_port: Option<u16>,
    /// The `user:password` in Base64 that it wants; others are answered with 407.
    pub credentials: Option<String>,
    /// Takes requests and never answers.
    pub silent: bool,
}

/// A running proxy. Dropping it ends it, and what goes through it.
#[derive(Debug)]
pub struct HttpProxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    rules: Arc<Mutex<Rules>>,
    task: JoinHandle<()>,
}

impl HttpProxy {
    /// Starts one on 127.0.0.1.
    pub async fn start(rules: Rules) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, rules).await
    }

    /// Starts one on this address.
    pub async fn start_at(address: Ipv4Addr, rules: Rules) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (requests, rules) = (Arc::default(), Arc::new(Mutex::new(rules)));
        let (seen, current) = (Arc::clone(&requests), Arc::clone(&rules));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let rules = current.lock().expect("nobody panics with it").clone();
                connections.spawn(serve(client, rules, Arc::clone(&seen)));
            }
        });
        Self { address, requests, rules, task }
    }

    /// Its URL, as the configuration wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The requests so far, header and all.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("nobody panics with it").clone()
    }

    /// Lets other things pass from now on.
    pub fn change(&self, rules: Rules) {
        *self.rules.lock().expect("nobody panics with it") = rules;
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, rules: Rules, seen: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        let byte = client.read_u8().await?;
        request.push(byte.into());
    }
    seen.lock().expect("nobody panics with it").push(request.clone());
    if rules.silent {
        return std::future::pending().await;
    }
    let target = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let port = target.and_then(|target| target.rsplit(':').next()).and_then(|port| port.parse::<u16>().ok());
    let Some(port) = port else { return client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await };
    if let Some(credentials) = &rules.credentials
        && !request.contains(&format!("\r\nProxy-Authorization: Basic {credentials}\r\n"))
    {
        let answer = "HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"site\"\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(answer.as_bytes()).await;
    }
    if rules.only_port.is_some_and(|only| only != port) {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    };
    // The first words of a server that speaks first come in the same segment as the answer, as they may.
    let mut first = vec![0; 4096];
    let length = timeout(FIRST_WORDS, server.read(&mut first)).await.unwrap_or(Ok(0))?;
    let answer = [b"HTTP/1.1 200 Connection established\r\nVia: 1.1 site\r\n\r\n", &first[..length]].concat();
    client.write_all(&answer).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
