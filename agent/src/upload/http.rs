//! One request that carries a file, and the status of its answer: as much of HTTP/1.1 (RFC 9112) as that takes.
//!
//! A client library would follow redirects, keep connections and understand bodies, none of which is wanted here.

use std::io;
use std::pin::pin;

use httparse::{EMPTY_HEADER, Response, Status};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::content::File;
use super::failure::Failure;
use super::location::Location;
use crate::limits::{
    UPLOAD_ANSWER, UPLOAD_ANSWER_BYTES, UPLOAD_CHUNK_BYTES, UPLOAD_HEADERS, UPLOAD_LAST_WORDS, UPLOAD_STALL,
};

/// How a file is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// The file becomes what the URL names (RFC 9110, 9.3.4).
    Put,
    /// The server knows what to do with it (RFC 9110, 9.3.3).
    Post,
}

/// Sends `file`. `Ok` once the server has answered 2xx to all of it.
pub(super) async fn send<S: AsyncRead + AsyncWrite>(
    stream: S,
    method: Method,
    location: &Location,
    file: &File,
) -> Result<(), Failure> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let head = head(method, location, file);
    let mut writing = pin!(write(&mut writer, head.as_bytes(), &file.bytes));
    let mut reading = pin!(read_status(&mut reader));
    // A server may refuse a file before it has seen all of it, and close.
    let early = tokio::select! {
        biased;
        status = &mut reading => Some(status?),
        written = &mut writing => match written {
            Ok(()) => None,
            Err(failure) => match timeout(UPLOAD_LAST_WORDS, &mut reading).await {
                Ok(Ok(status)) => Some(status),
                _ => return Err(failure),
            },
        },
    };
    let status = match early {
        None => timeout(UPLOAD_ANSWER, reading)
            .await
            .map_err(|_| Failure::Timeout { step: "the server's answer", after: UPLOAD_ANSWER })??,
        Some(200..=299) => return Err(Failure::NotHttp("it accepted a file that it hadn't got")),
        Some(status) => status,
    };
    match status {
        200..=299 => Ok(()),
        status => Err(Failure::Refused(status)),
    }
}

/// The request's head. The target and the host can't hold anything that ends a line, and the file's name is our own.
fn head(method: Method, location: &Location, file: &File) -> String {
    let method = match method {
        Method::Put => "PUT",
        Method::Post => "POST",
    };
    let authorization =
        location.authorization().map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    format!(
        "{method} {target} HTTP/1.1\r\n\
         Host: {host}\r\n\
         User-Agent: ocpp-tunnel/{version}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Length: {length}\r\n\
         Connection: close\r\n\
         {authorization}\r\n",
        target = location.target(&file.name),
        host = location.authority(),
        version = env!("CARGO_PKG_VERSION"),
        content_type = file.content_type,
        name = file.name,
        length = file.bytes.len(),
    )
}

/// In pieces, so that a slow server is told from a dead one.
async fn write(writer: &mut (impl AsyncWrite + Unpin), head: &[u8], body: &[u8]) -> Result<(), Failure> {
    let stalled = |_| Failure::Timeout { step: "sending", after: UPLOAD_STALL };
    for chunk in std::iter::once(head).chain(body.chunks(UPLOAD_CHUNK_BYTES)) {
        let written = async {
            writer.write_all(chunk).await?;
            writer.flush().await
        };
        timeout(UPLOAD_STALL, written).await.map_err(stalled)?.map_err(Failure::Broken)?;
    }
    Ok(())
}

/// The status of the final answer; interim ones (RFC 9110, 15.2) are passed over, and a body is not read.
async fn read_status(reader: &mut (impl AsyncRead + Unpin)) -> Result<u16, Failure> {
    let mut answer = Vec::new();
    loop {
        if let Some(status) = final_status(&answer)? {
            return Ok(status);
        }
        let room = UPLOAD_ANSWER_BYTES.saturating_sub(answer.len());
        if room == 0 {
            return Err(Failure::NotHttp("its answer's head is too long"));
        }
        match reader.take(room as u64).read_buf(&mut answer).await {
            Ok(0) => return Err(Failure::NoAnswer),
            Ok(_) => {}
            // Many servers end TLS without saying so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Failure::NoAnswer),
            Err(error) => return Err(Failure::Broken(error)),
        }
    }
}

fn final_status(answer: &[u8]) -> Result<Option<u16>, Failure> {
    let mut start = 0;
    loop {
        let mut headers = [EMPTY_HEADER; UPLOAD_HEADERS];
        let mut response = Response::new(&mut headers);
        match response.parse(answer.get(start..).unwrap_or_default()) {
            Ok(Status::Complete(length)) => start += length,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(Failure::NotHttp("its answer isn't one of HTTP/1.1")),
        }
        match response.code.unwrap_or_default() {
            // Nobody asked to change the protocol, so 101 ends it.
            100 | 102..=199 => {}
            status => return Ok(Some(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    fn file(bytes: usize) -> File {
        File { name: "CP001-diagnostics.txt".into(), content_type: "text/plain", bytes: vec![b'x'; bytes] }
    }

    fn location() -> Location {
        Location::parse("https://me:secret@logs.example.com:8443/in/?sig=1").unwrap()
    }

    /// What `send` makes of a server.
    async fn with_server<F: Future<Output = ()> + Send + 'static>(
        bytes: usize,
        server: impl FnOnce(DuplexStream) -> F,
    ) -> Result<(), Failure> {
        let (ours, theirs) = duplex(4096);
        let server = tokio::spawn(server(theirs));
        let result = send(ours, Method::Put, &location(), &file(bytes)).await;
        server.abort();
        result
    }

    async fn read_all(stream: &mut DuplexStream, bytes: usize) -> String {
        let mut text = String::new();
        while text.split_once("\r\n\r\n").is_none_or(|(_, body)| body.len() < bytes) {
            let mut chunk = [0; 1024];
            let length = stream.read(&mut chunk).await.unwrap();
            text.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
        }
        text
    }

    async fn answered(bytes: usize, answer: &'static str) -> Result<(), Failure> {
        with_server(bytes, async move |mut stream| {
            read_all(&mut stream, bytes).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        })
        .await
    }

    #[tokio::test]
    async fn the_request_is_what_the_standards_want() {
        let (ours, mut theirs) = duplex(4096);
        let (location, file) = (location(), file(3));
        let server = async {
            let text = read_all(&mut theirs, 3).await;
            theirs.write_all(b"HTTP/1.1 201 Created\r\n\r\n").await.unwrap();
            text
        };
        let (result, text) = tokio::join!(send(ours, Method::Put, &location, &file), server);
        assert!(result.is_ok(), "{result:?}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some("PUT /in/CP001-diagnostics.txt?sig=1 HTTP/1.1"));
        let lines: Vec<&str> = lines.collect();
        for line in [
            "Host: logs.example.com:8443",
            "Content-Type: text/plain",
            "Content-Length: 3",
            "Connection: close",
            "Authorization: Basic bWU6c2VjcmV0",
        ] {
            assert!(lines.contains(&line), "{line} in {head}");
        }
        assert_eq!(body, "xxx");
    }

    #[tokio::test]
    async fn answers_are_told_apart() {
        assert!(answered(10, "HTTP/1.1 204 No Content\r\n\r\n").await.is_ok());
        assert!(
            answered(10, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
                .await
                .is_ok()
        );
        let refused = answered(10, "HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\n\r\n").await;
        assert!(matches!(refused, Err(Failure::Refused(302))), "{refused:?}");
        let other = answered(10, "220 ftp.example.com ready\r\n").await;
        assert!(matches!(other, Err(Failure::NotHttp(_))), "{other:?}");
        let upgrade = answered(10, "HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
        assert!(matches!(upgrade, Err(Failure::Refused(101))), "{upgrade:?}");
    }

    #[tokio::test]
    async fn a_server_may_refuse_a_large_file_before_it_has_seen_it() {
        let refused = with_server(1_000_000, async |mut stream| {
            let mut some = [0; 100];
            stream.read_exact(&mut some).await.unwrap();
            stream.write_all(b"HTTP/1.1 413 Content Too Large\r\n\r\n").await.unwrap();
        })
        .await;
        assert!(matches!(refused, Err(Failure::Refused(413))), "{refused:?}");
        let hasty = with_server(1_000_000, async |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        assert!(hasty.is_err(), "nothing has arrived, so nothing is uploaded");
    }

    #[tokio::test]
    async fn an_endless_head_is_not_read_to_its_end() {
        let endless = with_server(1, async |mut stream| {
            read_all(&mut stream, 1).await;
            let mut written = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while written.is_ok() {
                written = stream
                    .write_all(b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
                    .await;
            }
        })
        .await;
        assert!(matches!(endless, Err(Failure::NotHttp(_))), "{endless:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_in_time_while_sending_and_while_waiting() {
        let began = Instant::now();
        let stalled = with_server(100_000, async |_stream| std::future::pending().await).await;
        assert!(matches!(stalled, Err(Failure::Timeout { step: "sending", .. })), "{stalled:?}");
        assert!(began.elapsed() < UPLOAD_STALL + UPLOAD_LAST_WORDS + Duration::from_secs(1));

        let began = Instant::now();
        let mute = with_server(10, async |mut stream| {
            read_all(&mut stream, 10).await;
            std::future::pending::<()>().await;
        })
        .await;
        assert!(matches!(mute, Err(Failure::Timeout { .. })), "{mute:?}");
        assert!(began.elapsed() >= UPLOAD_ANSWER);
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_read_without_panic(status in "(HTTP/1.[01] )?[0-9]{0,4}[ -~]{0,8}(\r\n)?", rest in ".{0,40}") {
            let _ = final_status(format!("{status}{rest}").as_bytes());
            let _ = final_status(format!("HTTP/1.1 100 Continue\r\n\r\n{status}\r\n\r\n{rest}").as_bytes());
        }
    }

    #[tokio::test]
    async fn a_server_that_closes_has_not_answered() {
        let closed = with_server(1, async |mut stream| drop(read_all(&mut stream, 1).await)).await;
        assert!(matches!(closed, Err(Failure::NoAnswer | Failure::Broken(_))), "{closed:?}");
    }
}
