//! Every bound of this crate, with its reason. Nothing that comes from outside decides how much memory we use.

use std::time::Duration;

/// Longest destination text in characters: an OCPP configuration value (OCPP 1.6 edition 2, 7.x `CiString500Type`).
pub const DESTINATION_CHARACTERS: usize = 500;
/// Longest user name in bytes: `LOGIN_NAME_MAX` of every Linux since `useradd` exists.
pub const USER_BYTES: usize = 32;
/// Longest host name in bytes without the trailing dot (RFC 1035, 2.3.4).
pub const HOST_BYTES: usize = 253;
/// Longest label of a host name in bytes (RFC 1035, 2.3.4).
pub const LABEL_BYTES: usize = 63;
/// Longest path of a Unix socket in bytes: `sun_path` of Linux, less its final NUL.
pub const SOCKET_PATH_BYTES: usize = 107;

/// Addresses of one name that are tried; a name with more has its first ones tried.
pub const ADDRESSES: usize = 16;
/// Ports of one server that are tried besides its own: with 443 the usual holes of a firewall are covered.
pub const ALTERNATIVE_PORTS: usize = 4;
/// Bytes of a known-hosts file that are read: some 500 servers, far above what one device meets.
pub const KNOWN_HOSTS_BYTES: u64 = 256 * 1024;
/// Bytes of one of its lines: an RSA-16384 key has 3 KB, and certificates nested in a longer line could exhaust the stack.
pub const KNOWN_HOSTS_LINE_BYTES: usize = 16 * 1024;
/// Keys that the known-hosts file may hold for another one to be learned, so that a hostile CSMS can't fill the flash.
pub const LEARNED_KEYS: usize = 256;
/// Characters of a text in a certificate that an error shows: a host name, or a few.
pub const SHOWN_CHARACTERS: usize = 120;
/// Host keys that one server may announce for them to be learned: OpenSSH has one of each of four types, twice while they
/// are exchanged.
pub const ANNOUNCED_KEYS: usize = 8;
/// Bytes of a private key file that are read: an RSA-16384 key has 13 KB.
pub const KEY_FILE_BYTES: u64 = 32 * 1024;
/// The shortest RSA key in bits: NIST SP 800-131A, and what servers ask for more and more (`RequiredRSASize`).
pub const RSA_BITS: u32 = 2048;
/// Servers of which is kept which key they took: a device meets a few, and a rotation waits for all of them.
pub const LEDGER_SERVERS: usize = 256;
/// Bytes of that file that are read: so many of the longest lines.
pub const LEDGER_BYTES: u64 = 256 * 640;
/// How long a command that rotates the device key waits for another process that does.
pub const ROTATION_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a message to the agent in memory: a certificate of a key file's size, twice, and what is signed besides.
pub const AGENT_MESSAGE_BYTES: usize = 3 * 32 * 1024;

/// Bytes that one read from a local service may take: one SSH packet's payload.
pub const READ_BYTES: usize = 32 * 1024;
/// Pieces that one write to a local service may gather.
pub const BATCH: usize = 16;
/// Bytes that the server may have under way on one channel. russh renews it on receipt, so once the budget for slow
/// services is spent, so much of a slow connection's data stands before everybody else's: with 256 KiB and a service that
/// takes 200 KB/s they wait 1.3 s, with OpenSSH's 2 MiB they waited 10 s. On a line of 100 ms it still carries 2.5 MB/s.
pub const CHANNEL_WINDOW: u32 = 256 * 1024;
/// What is read of the SSH connection beyond the packet that is asked for.
pub const READ_AHEAD: usize = 64 * 1024;
/// The largest packet that the server may send on a channel: russh's own maximum, for the fewest packets.
pub const CHANNEL_PACKET: u32 = 65_535;
/// What waits for a local service is kept in chunks of this size.
pub const CHUNK: usize = 64 * 1024;
/// Empty chunks that a tunnel keeps while it has connections: what one write at full speed takes.
pub const SPARE_CHUNKS: usize = 5;
/// A local service is written to as soon as so much waits for it; less waits until no packet is left to read. Larger
/// pieces make nothing faster, and 256 KiB filled the budget with what 64 busy connections were waiting to gather.
pub const GATHER: usize = 64 * 1024;
/// A local service's socket takes more as soon as less than half of this is still to be sent. Without it the kernel waits
/// until a third of megabytes is gone, which takes seconds with a slow service and looks as if it had stalled. A service that
/// takes 200 KB/s is told from a stalled one with as much as this.
pub const UNSENT: u32 = 256 * 1024;
/// The least budget that a tunnel works with: a few packets.
pub const LEAST_BUFFER_BYTES: usize = 256 * 1024;
/// How long a connection may make no progress while the budget is spent, before it is reset.
pub const STALLED: Duration = Duration::from_secs(2);
/// What a local service has to take for it to count as progress: one packet, the least that lets the SSH connection's
/// task go on. With [`STALLED`], a service that takes less than 32 KB/s while others wait for it is reset.
pub const PROGRESS: usize = 64 * 1024;
/// How long a service may make no progress after its client has left, before what it hasn't taken is dropped: it may be
/// writing to a slow flash, but must not keep its connection for ever.
pub const LINGER: Duration = Duration::from_secs(10);
/// How long nothing may move after the client's EOF. It may wait for an answer that takes long to compute; but sshd
/// doesn't tell when it has gone, and a hanging service would keep the connection for ever.
pub const HALF_CLOSED: Duration = Duration::from_secs(3600);
/// How long the server is given to close a channel whose local service is gone. Whoever closes first leaves a few KB
/// behind in russh until the SSH connection ends, so it should be the server, which closes when its client does.
pub const CHANNEL_CLOSE: Duration = Duration::from_secs(1);
/// So many channels may be closed by us first before the SSH connection is made anew, which frees what they left behind:
/// a few MB.
pub const LEFTOVERS: usize = 1024;
/// Characters of a forwarded connection's originator that are kept: an IPv6 address and a port have 47.
pub const ORIGINATOR_CHARACTERS: usize = 64;
/// Refused channels of one SSH session, and failed connections of a tunnel, that the log tells of.
pub const REFUSALS_TOLD: u32 = 20;

/// How long a name may take to resolve. The resolver itself asks each server twice for five seconds.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a TCP connection may take to one address: five SYNs. A proxy has to connect in this time, too.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a local service may take to accept a forwarded connection.
pub const LOCAL_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take to prove the host keys that it announced.
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that a server may send before its version's line has ended. RFC 4253, 4.2 allows lines before it, and gives that one
/// 255 bytes; what is read ahead of the key exchange has to fit into [`READ_AHEAD`].
pub const BANNER_BYTES: usize = 8 * 1024;
/// Characters of that line: 255 bytes with CR and LF.
pub const VERSION_CHARACTERS: usize = 253;
/// How long a server may take to say that line: sshd resolves the client's name before.
pub const BANNER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each further step of a [`Probe`](crate::Probe) may take, but for a password, which a person types.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a TCP connection may take that asks whether a published port can be reached from outside.
pub const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// Rounds of questions in a keyboard-interactive login: a password, a code, and a new password twice.
pub const QUESTION_ROUNDS: usize = 8;
/// Questions of one round that are asked.
pub const QUESTIONS: usize = 8;
/// Characters of a question that are shown.
pub const QUESTION_CHARACTERS: usize = 200;
/// Bytes of a command's output that are kept, of each stream: what an account says at every login, and our answer.
pub const COMMAND_OUTPUT_BYTES: usize = 16 * 1024;
/// How long a connection is given to say goodbye before its socket is shut.
pub const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes in each direction after which we ask for new keys ourselves. Servers do so earlier: OpenSSH after 1 GB with
/// ChaCha20-Poly1305, dropbear always. RFC 4253, 9 recommends 1 GB, RFC 4344, 3.2 allows 64 GiB for AES; at the shortest
/// messages, 16 GiB keep the 32-bit packet number from coming round, which ChaCha20-Poly1305 takes as its nonce.
///
/// It is far away because russh ends a connection on which more than two windows arrive between our request and the
/// server's answer, as three busy connections may have under way. After the server's request nothing arrives.
pub const REKEY_BYTES: usize = 1 << if usize::BITS > 32 { 34 } else { 31 };
/// Time after which we ask for new keys, the same as dropbear's. An hour, as RFC 4253, 9 recommends, would cost a tunnel
/// at rest a third of its mobile data, and OpenSSH has no such limit: what wears a key out is data.
pub const REKEY_TIME: Duration = Duration::from_secs(8 * 3600);
/// How long a tunnel must have been up for the next back-off to start small again.
pub const SETTLED: Duration = Duration::from_secs(60);
/// How long refusals of the key or of a forward are tried again before they end a tunnel:
/// an operator may be mending it, or the server may still hold our own dead session's port.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often a refused forward is asked for again on the same connection.
pub const FORWARD_RETRY: Duration = Duration::from_secs(5);
/// How long before its end a tunnel says so.
pub const NOTICE: Duration = Duration::from_secs(600);
