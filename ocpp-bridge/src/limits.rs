//! Every bound of this crate, with its name and its reason.
//!
//! Nothing that arrives from the network decides how much memory is used or how long something is
//! waited for: the numbers here do.

use std::time::Duration;

// === messages ===

/// The largest WebSocket message that is read, in bytes. The largest message of the standard that a
/// charge point receives, a certificate chain, has 10 000 characters; CSMSs also send long lists.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The WebSocket read buffer, in bytes: it is allocated at once and kept, and usual frames are small.
pub const READ_BUFFER_BYTES: usize = 8 * 1024;

/// What the WebSocket layer gathers before it writes, in bytes, while there is more to come: some dozen usual messages.
pub const WRITE_BATCH_BYTES: usize = 4 * 1024;

/// What may wait in the WebSocket layer to be written, in bytes: one largest message and control frames.
pub const MAX_WRITE_BUFFER_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

/// The most bytes that one character takes in UTF-8: the standard counts characters, memory bytes.
const UTF8_MAX_BYTES: usize = 4;

/// The longest way to write one character in JSON: a surrogate pair, `\ud83d\udd0c`.
const JSON_MAX_BYTES: usize = 12;

/// The longest message id, in characters (OCPP-J 1.6 §4.1.4).
pub const MAX_ID_CHARS: usize = 36;

/// The longest message id, in bytes.
pub const MAX_ID_BYTES: usize = MAX_ID_CHARS * UTF8_MAX_BYTES;

/// The longest JSON text of a readable message id, quotes included, in bytes.
pub const MAX_ID_JSON_BYTES: usize = MAX_ID_CHARS * JSON_MAX_BYTES + 2;

/// The longest action that is looked at, in bytes; the longest of the standard has 32.
pub const MAX_ACTION_BYTES: usize = 64;

/// The longest JSON text of an action that is looked at, quotes included, in bytes.
pub const MAX_ACTION_JSON_BYTES: usize = MAX_ACTION_BYTES * JSON_MAX_BYTES + 2;

/// The longest description of a CALLERROR, in characters (OCPP-J 1.6 §4.2.3). What is longer is cut.
pub const MAX_DESCRIPTION_CHARS: usize = 255;

/// How many characters of a text from the network are quoted in a log line or an error.
pub const MAX_QUOTED_CHARS: usize = 80;

// === configuration keys ===

/// The longest configuration key, in characters (OCPP 1.6 §7.29 `CiString50Type`).
pub const MAX_KEY_CHARS: usize = 50;

/// The longest configuration key, in bytes.
pub const MAX_KEY_BYTES: usize = MAX_KEY_CHARS * UTF8_MAX_BYTES;

/// The longest value of a configuration key, in characters (OCPP 1.6 §7.29 `CiString500Type`).
pub const MAX_VALUE_CHARS: usize = 500;

/// The longest value of a configuration key, in bytes.
pub const MAX_VALUE_BYTES: usize = MAX_VALUE_CHARS * UTF8_MAX_BYTES;

/// How many keys the registry holds, the standard's included: an answer to GetConfiguration with all of
/// them, each with a value of the greatest length, stays below [`MAX_MESSAGE_BYTES`].
pub const MAX_KEYS: usize = 64;

/// How many keys one GetConfiguration may ask for: the value of `GetConfigurationMaxKeys`.
pub const MAX_REQUESTED_KEYS: usize = 100;

/// How many items a comma-separated list in a configuration value may have: more measurands than there are.
pub const MAX_LIST_ITEMS: usize = 50;

// === uploads ===

/// The longest location in GetLog, in characters (Improved security for OCPP 1.6-J, §5.9, `LogParametersType`).
pub const MAX_LOG_LOCATION_CHARS: usize = 512;

/// The longest location in GetDiagnostics, in characters: OCPP 1.6 has no bound, and servers take no longer URL.
pub const MAX_DIAGNOSTICS_LOCATION_CHARS: usize = 2000;

/// The longest name of an uploaded file, in characters (`GetLog.conf` and `GetDiagnostics.conf`).
pub const MAX_FILE_NAME_CHARS: usize = 255;

// === the charge point ===

/// How many frames wait to be sent. While that many wait, nothing is read, so that the peer is slowed down.
/// The embedder's answers and the one CALL of ours may come on top.
pub const MAX_OUTBOX: usize = 16;

/// How many events wait for the embedder. While that many wait, nothing is read. The outcomes of its own CALLs may
/// come on top: at most [`MAX_CALLS`] of them.
pub const MAX_EVENTS: usize = 16;

/// How many CALLs of the embedder may be under way: waiting, unanswered, or with an outcome that it hasn't taken.
pub const MAX_CALLS: usize = 16;

/// The longest answer to a CALL of the embedder, in bytes: what is longer counts as unreadable, lest answers that wait
/// take [`MAX_CALLS`] times [`MAX_MESSAGE_BYTES`]. The longest of the standard has a few dozen.
pub const MAX_RESULT_BYTES: usize = 8 * 1024;

/// How many triggered messages wait to be sent. One more is answered `Rejected`.
pub const MAX_TRIGGERED: usize = 16;

/// How many connectors there may be: each is a message after every acceptance. Sites with more have several controllers.
pub const MAX_CONNECTORS: u32 = 64;

/// The longest vendor id of a DataTransfer, in characters (OCPP 1.6 §6.15 `CiString255Type`).
pub const MAX_VENDOR_CHARS: usize = 255;

/// The longest message id of a DataTransfer, in characters (OCPP 1.6 §6.15 `CiString50Type`).
pub const MAX_TRANSFER_MESSAGE_CHARS: usize = 50;

/// The longest data of a DataTransfer, in characters: the standard has no bound, and
/// [`MAX_PENDING_ANSWERS`] of them may wait.
pub const MAX_TRANSFER_CHARS: usize = 16 * 1024;

/// The longest id tag, in characters (OCPP 1.6 §7.28 `CiString20Type`).
pub const MAX_ID_TAG_CHARS: usize = 20;

/// How many requests wait for the embedder's answer. While that many wait, nothing is read.
pub const MAX_PENDING_ANSWERS: usize = 8;

/// How long an answer to a CALL of ours is waited for: the default of the key `MessageTimeout`.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest `MessageTimeout`: nothing else may be asked while an answer is waited for.
pub const MAX_CALL_TIMEOUT: Duration = Duration::from_secs(600);

/// The heartbeat interval where the CSMS leaves the choice to us: four an hour cost little mobile data.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(900);

/// The wait before BootNotification is sent again where the CSMS leaves the choice to us, and the
/// first one after a BootNotification without a proper answer, which doubles from try to try.
pub const BOOT_RETRY_MIN: Duration = Duration::from_secs(60);

/// Where the doubling of the wait between unanswered BootNotifications ends.
pub const BOOT_RETRY_MAX: Duration = Duration::from_secs(900);

/// The longest interval that is taken from a CSMS: a mistyped one may not silence a charge point for years.
pub const MAX_INTERVAL: Duration = Duration::from_secs(7 * 24 * 3600);

// === the link ===

/// How long the name of a CSMS may take to resolve.
pub const DNS_TIMEOUT: Duration = Duration::from_secs(10);

/// How many addresses of one name are tried.
pub const MAX_ADDRESSES: usize = 8;

/// How long one TCP connection may take: three SYNs on a bad mobile link.
pub const TCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a proxy may take to answer `CONNECT`: it has to resolve the CSMS's name and connect to it.
pub const PROXY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the TLS handshake may take on a slow controller and a slow link.
pub const TLS_TIMEOUT: Duration = Duration::from_secs(20);

/// How many TLS sessions are kept for resumption: there are a few URLs, and each session takes memory.
pub const MAX_TLS_SESSIONS: usize = 8;

/// While the clock isn't set, how often a CSMS's certificates may move the time that they are judged at: a chain
/// has a handful of certificates, and each moves it once.
pub const MAX_CERTIFICATE_BEGINNINGS: usize = 8;

/// How long the WebSocket handshake may take; some CSMSs look the charge point up in a slow database.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest that a CSMS can make us stay away by `Retry-After`: a mistyped one may not silence a charge point.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How often a ping is sent by default: below the 60 s after which peers drop a silent connection.
pub const PING_INTERVAL: Duration = Duration::from_secs(50);

/// How long after a ping something must arrive.
pub const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// How many CALLs of ours in a row a CSMS may leave unanswered, saying nothing of its own, before it is connected to anew:
/// what answers pings may be a load balancer that has lost it.
pub const MAX_UNANSWERED_CALLS: u32 = 3;

/// How long the kernel keeps unacknowledged data before it ends the connection (TCP_USER_TIMEOUT), and how long it may take
/// nothing more of what we write: what guards writing, with pings and without.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the CSMS may take to answer our last CALL before the link is closed.
pub const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// How long a closing handshake may take, the wait for that answer included.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection must live until the CSMS is taken to have accepted its credentials, if it has said nothing
/// earlier: some accept the WebSocket, look the charge point up, and close.
pub const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// How long a connection must live before the back-off starts anew, if its boot isn't accepted earlier.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);

/// `RetryBackOffWaitMinimum` (OCPP 2.0.1 part 4 §5.3), as widely used.
pub const BACKOFF_MINIMUM: Duration = Duration::from_secs(10);

/// `RetryBackOffRandomRange` (OCPP 2.0.1 part 4 §5.3), as widely used.
pub const BACKOFF_RANDOM: Duration = Duration::from_secs(15);

/// `RetryBackOffRepeatTimes` (OCPP 2.0.1 part 4 §5.3), as widely used.
pub const BACKOFF_DOUBLINGS: u32 = 5;

// === the bridge ===

/// How many messages of a connection are moved in a row before they are written, and others get their turn.
pub const MAX_BATCH: usize = 16;

/// How many unanswered CALLs of the controller the bridge remembers: the standard allows one at a time.
pub const MAX_WATCHED_CALLS: usize = 16;

/// How long a CALL of the controller counts as unanswered: twice what charge points commonly wait.
pub const CONTROLLER_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How many GetConfiguration requests may wait for the controller's answer; the oldest ones then go without our keys.
pub const MAX_MERGES: usize = 8;

/// How many CALLs of ours that the CSMS didn't answer in time are remembered, so that a late answer isn't passed on.
pub const MAX_GIVEN_UP: usize = 16;

/// How long a CALL of the controller waits for the answer to one of ours: a CSMS that takes longer has to take two.
pub const HOLD_TIMEOUT: Duration = Duration::from_secs(5);

/// How many CALLs of each side are timed at once: the standard allows one at a time.
pub const MAX_TIMED_CALLS: usize = 4;

/// How many controllers one bridge serves: a large site's.
pub const MAX_CONTROLLERS: usize = 32;

/// How many connections may be on their way to being relayed: each controller's, and one more of each that has lost
/// patience. What comes then waits in the kernel.
pub const MAX_ADMISSIONS: usize = 2 * MAX_CONTROLLERS;

/// How long a controller may take to send its request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a controller that comes back waits at most for the bridge's own connection to the CSMS to be closed.
pub const RESCUE_FAREWELL: Duration = Duration::from_millis(500);

/// How long no connection is accepted after the system had no descriptor left for one.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The longest request of a controller, in bytes: what servers commonly take.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024;

/// How many header fields it may have.
pub const MAX_REQUEST_HEADERS: usize = 64;
