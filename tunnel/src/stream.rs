//! The TCP stream below an SSH connection: it acknowledges at once while the handshake runs, and reads ahead.
//!
//! sshd leaves Nagle's algorithm on: its next small packet waits until we have acknowledged the one before, and our
//! kernel delays that for 40 ms because it expects us to answer. Measured with OpenSSH 9.2 on loopback, the delay was
//! half of the time until a forward was open. Once data flows, delayed acknowledgements are the better choice.
//!
//! russh reads the length of a packet and then its rest, with two calls of the kernel for each packet. Reading what is
//! there behind the packet in the same call saves most of them, and half of the acknowledgements that each would cause.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::limits::READ_AHEAD;

/// The stream of one SSH connection.
pub(crate) struct SshStream {
    inner: TcpStream,
    prompt: Prompt,
    /// What the kernel was told last.
    quick: bool,
    /// Holds what was read behind what was asked for.
    ahead: Box<[u8]>,
    /// The part of `ahead` that hasn't been asked for yet.
    waiting: Range<usize>,
}

/// Says whether a [`SshStream`] acknowledges at once.
#[derive(Clone)]
pub(crate) struct Prompt(Arc<AtomicBool>);

impl SshStream {
    /// A stream that is prompt until its switch says otherwise. It begins with `early`, which was read already: at most
    /// a proxy's answer, which fits into what is read ahead.
    pub(crate) fn new(inner: TcpStream, early: &[u8]) -> (Self, Prompt) {
        const { assert!(http_connect::ANSWER_BYTES <= READ_AHEAD) };
        let prompt = Prompt(Arc::new(AtomicBool::new(true)));
        let mut ahead: Box<[u8]> = vec![0; READ_AHEAD].into();
        let mut waiting = 0..0;
        for (place, byte) in ahead.iter_mut().zip(early) {
            *place = *byte;
            waiting.end += 1;
        }
        (Self { inner, prompt: prompt.clone(), quick: false, ahead, waiting }, prompt)
    }
}

impl Prompt {
    pub(crate) fn set(&self, prompt: bool) {
        self.0.store(prompt, Ordering::Relaxed);
    }
}

impl SshStream {
    /// Reads into `buffer`, and what comes behind it ahead.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.inner.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            let asked = room.len();
            let mut slices = [IoSliceMut::new(room), IoSliceMut::new(&mut self.ahead[..])];
            match self.inner.try_read_vectored(&mut slices) {
                Ok(read) => {
                    buffer.advance(read.min(asked));
                    self.waiting = 0..read.saturating_sub(asked);
                    if read < asked + self.ahead.len() {
                        drained(&self.inner);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives what was read ahead.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let ahead = self.ahead.get(self.waiting.clone()).unwrap_or_default();
        let now = ahead.len().min(buffer.remaining());
        buffer.put_slice(ahead.get(..now).unwrap_or_default());
        self.waiting.start += now;
    }
}

/// Says that a read got all that there was, so that the next one waits for more instead of asking the kernel in vain: with
/// small messages, that was every second read. What arrives from now on wakes whoever waits, as does the end.
pub(crate) fn drained(stream: &TcpStream) {
    let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}

impl AsyncRead for SshStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let given = !this.waiting.is_empty();
        if given {
            this.give(buffer);
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let result = match this.poll_fill(cx, buffer) {
            Poll::Ready(result) => result,
            Poll::Pending if given => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
        };
        let prompt = this.prompt.0.load(Ordering::Relaxed);
        if prompt || this.quick {
            // The kernel forgets it with the next packet that we send, so it is told each time. Where it fails, the
            // handshake is only slower.
            let _ = SockRef::from(&this.inner).set_tcp_quickack(prompt);
            this.quick = prompt;
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn bytes_come_as_they_were_sent_however_they_are_asked_for() {
        const LENGTH: usize = 5_000_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let sent: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
        let (mut stream, prompt) = SshStream::new(stream, b"early");
        let send = async {
            // Pieces of all sizes, with pauses in which the reader has to wait.
            for piece in sent.chunks(77_777) {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(server);
        };
        let receive = async {
            let mut early = [0; 5];
            stream.read_exact(&mut early).await.unwrap();
            assert_eq!(&early, b"early");
            let mut received = Vec::new();
            for size in [4, 100, 4, 65_000, 4, 1, 300_000, 4].into_iter().cycle() {
                prompt.set(size == 100);
                let mut part = vec![0; size.min(LENGTH - received.len())];
                stream.read_exact(&mut part).await.unwrap();
                received.extend(part);
                if received.len() == LENGTH {
                    break;
                }
            }
            assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0, "the server has ended");
            received
        };
        let ((), received) = tokio::join!(send, receive);
        assert!(received == sent);
    }
}
