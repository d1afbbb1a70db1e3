//! Every bound of the agent, with its reason.

use std::time::Duration;

/// Bytes of all configuration files together that are read: a hundred times a generous one.
pub const CONFIG_BYTES: u64 = 256 * 1024;
/// Files in `config.d`: one for each hand that a device passes through, and some more.
pub const CONFIG_FILES: usize = 32;
/// Bytes of a secret's or certificate's file that are read: a chain of ten certificates.
pub const SECRET_BYTES: u64 = 64 * 1024;
/// Bytes of an identity file: an OCPP identity has at most 48 characters in practice, and a newline.
pub const IDENTITY_BYTES: usize = 255;
/// Slots that the configuration may define; each has two OCPP keys.
pub const SLOTS: usize = 16;
/// Characters of a slot's key: with `Status` behind it, it still fits OCPP's 50.
pub const SLOT_KEY_CHARACTERS: usize = 44;
/// The highest rate of opens over OCPP in an hour: so many moments are remembered.
pub const OPENS_PER_HOUR: u32 = 10_000;
/// Patterns in the allow-list.
pub const PATTERNS: usize = 256;
/// Tunnels at once that were opened with forwards of their own.
pub const AD_HOC_TUNNELS: usize = 8;
/// Forwards in one such tunnel.
pub const FORWARDS: usize = 8;
/// Closed tunnels of that kind that `status` still shows.
pub const CLOSED_SHOWN: usize = 4;
/// Characters of a configuration value over OCPP (OCPP 1.6 edition 2, `CiString500Type`).
pub const OCPP_VALUE_CHARACTERS: usize = 500;
/// Keys of the standard whose changed values are kept: as many as the charge point has keys.
pub const KEPT_CONFIGURATION_KEYS: usize = ocpp_bridge::limits::MAX_KEYS;
/// Bytes of the file of changed values that are read: each at its longest, escaped, and the JSON around it.
pub const KEPT_CONFIGURATION_BYTES: u64 = 256 * 1024;
/// How long a changed value waits for others before it is written.
pub const KEPT_CONFIGURATION_DELAY: Duration = Duration::from_secs(1);
/// Changed values are written no more often, for the flash's sake: what a power cut may make us forget.
pub const KEPT_CONFIGURATION_INTERVAL: Duration = Duration::from_secs(60);
/// Security events that wait for the CSMS: a day without a link on which somebody is busy. Some 300 bytes each.
pub const REPORT_EVENTS: usize = 64;
/// Tunnels whose state the CSMS may have to be told: every slot and ad-hoc tunnel, and those that are gone already.
pub const REPORT_TUNNELS: usize = 64;
/// Characters of an error in a report; the whole of it can be read in `…Status`.
pub const REPORT_ERROR_CHARACTERS: usize = 200;
/// Characters of a security event's `techInfo` (OCPP 1.6 security whitepaper, SecurityEventNotification.req).
pub const TECH_INFO_CHARACTERS: usize = 255;
/// How long a tunnel's state waits for the next one before it is reported: each report costs 600 bytes of mobile data.
pub const REPORT_SETTLE: Duration = Duration::from_secs(1);
/// How long nothing is reported after a report that the CSMS didn't answer, at first.
pub const REPORT_PAUSE: Duration = Duration::from_secs(60);
/// How often that time doubles, to an hour.
pub const REPORT_PAUSE_DOUBLINGS: u32 = 6;
/// What has happened to tunnels and waits to be made a report: all of them close at once, and a half more.
pub const HAPPENINGS: usize = 32;

/// Lines of the log that one event may have at once. Its flood then takes an eighth of the log in memory at most.
pub const LOG_BURST: u32 = 60;
/// How often an event that has used them up gets another one.
pub const LOG_REFILL: Duration = Duration::from_secs(10);
/// How long lines that were left out wait to be told of, all in one.
pub const LOG_LEFT_OUT_INTERVAL: Duration = Duration::from_secs(60);

/// Bytes of the file that keeps the security settings of the link which are read: two keys of the longest, and more.
pub const KEPT_SECURITY_BYTES: u64 = 4096;
/// Changes of them that the CSMS may make in an hour: each is a write to the flash, and people make one a year.
pub const SECURITY_CHANGES_PER_HOUR: u32 = 20;
/// How often a new security profile may reach no CSMS before the old one is tried: a CSMS may take a moment to follow.
pub const PROFILE_ATTEMPTS: u32 = 3;
/// A client certificate that ends so soon is told of.
pub const CERTIFICATE_NOTICE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Threads that look up names and write files, at most; what needs more waits. A name server that doesn't answer holds one
/// for each tunnel that asks it, and each connection to a local service that has a name of its own takes one.
pub const BLOCKING_THREADS: usize = 32;
/// How long such a thread waits for more work before it ends, and frees its stack.
pub const IDLE_THREAD: Duration = Duration::from_secs(1);

/// Commands that wait for the supervisor: one of each client, and OCPP's.
pub const SUPERVISOR_COMMANDS: usize = 16;
/// Events of the OCPP link that wait for the trigger.
pub const LINK_EVENTS: usize = 16;
/// Answers and values that wait for the OCPP link.
pub const LINK_COMMANDS: usize = 64;
/// Descriptors that the agent asks for: 16 full tunnels, and more than it ever takes besides.
pub const DESCRIPTORS: u64 = 32 * 1024;
/// Clients of the control socket at once.
pub const CONTROL_CLIENTS: usize = 16;
/// Bytes of one line on the control socket: a status with every slot and tunnel at their longest.
pub const CONTROL_LINE_BYTES: u64 = 256 * 1024;
/// Bytes of a request on the control socket.
pub const CONTROL_REQUEST_BYTES: u64 = 16 * 1024;

/// Bytes of the month's usage file that are read: ten times what we write.
pub const USAGE_BYTES: u64 = 4096;
/// How long after the first byte the month's count is written, for the flash's sake: what a power cut makes us forget.
pub const USAGE_WRITE_DELAY: Duration = Duration::from_secs(5 * 60);
/// How often the month's turn is looked for.
pub const USAGE_LOOK_INTERVAL: Duration = Duration::from_secs(3600);
/// How often the count is written although nothing has passed, so that a power cut doesn't take the days from it.
pub const USAGE_KEEP_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// A month's count begins anew no sooner, so that a clock that is moved gives twice the cap a month at most.
pub const MONTH_LEAST: Duration = Duration::from_secs(14 * 24 * 3600);
/// A month's count begins anew no later: the longest month, and a day in which its own turn comes.
pub const MONTH_MOST: Duration = Duration::from_secs(32 * 24 * 3600);
/// The highest cap on a month's bytes: 1 PB, which no sum of them overflows.
pub const MONTHLY_BYTES: u64 = 1_000_000_000_000_000;
/// Bytes of a netlink datagram: the kernel's own choice is a page, 8 KiB where pages are larger.
pub const NETLINK_BYTES: usize = 8 * 1024;
/// Links whose state is remembered; a charge controller has a handful.
pub const NETWORK_LINKS: usize = 64;
/// Addresses that are remembered, some for each link.
pub const NETWORK_ADDRESSES: usize = 256;
/// How long news of the network waits for what else changes: a link, its addresses and its routes come together.
pub const NETWORK_SETTLE: Duration = Duration::from_secs(1);
/// What is added at random, lest a site's chargers come back in the same instant.
pub const NETWORK_JITTER: Duration = Duration::from_millis(500);
/// So many times the news may follow each other: a link, DHCP's address, IPv6's, and one more.
pub const NETWORK_BURST: u32 = 4;
/// After that it is told once in this time, however often an interface flaps: an attempt costs 9 KB of mobile data.
pub const NETWORK_REFILL: Duration = Duration::from_secs(60);

/// How often the disable file is looked for while something is open.
pub const DISABLE_FILE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a client of the control socket may take to send its request.
pub const CONTROL_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `open --wait` waits for the tunnel to come up.
pub const OPEN_WAIT: Duration = Duration::from_secs(60);
/// How long `host-keys scan` may take: five handshakes over a slow mobile link, and no test of patience.
pub const SCAN: Duration = Duration::from_secs(25);
/// How long `check` waits for the ports 80 and 443 of a server that its own port doesn't lead to: three SYNs.
pub const CHECK_PORT: Duration = Duration::from_secs(5);
/// Bytes of a password that is typed: what OpenSSH takes.
pub const PASSWORD_BYTES: usize = 1024;
/// Bytes of an answer that are read from the terminal: more than `yes`.
pub const ANSWER_BYTES: u64 = 64;
/// How long the CLI waits for an answer that needs no waiting.
pub const CONTROL_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent that was started in the background may take until it answers.
pub const BACKGROUND_START: Duration = Duration::from_secs(10);
/// How long `open` goes on asking when another process became the agent at the same moment: until that one answers.
pub const START_RACE: Duration = Duration::from_secs(10);
/// How often an agent looks whether its lock and its socket are still there.
pub const PLACE_INTERVAL: Duration = Duration::from_secs(20);
/// How often the lock is taken anew when its file was replaced in the meantime.
pub const LOCK_ATTEMPTS: usize = 5;
/// How long such an agent waits for the request that it was started for.
pub const BACKGROUND_REQUEST: Duration = Duration::from_secs(3);
/// How long SIGTERM may take: systemd and procd kill after that or a little more.
pub const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long a message to the service manager may wait until that takes it.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);
/// Reloads that wait for the one that is under way.
pub const RELOADS: usize = 4;
/// How long the command line waits for a reload: the files, and a message to each tunnel.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a syslog line with its header: BusyBox may read only 256.
pub const SYSLOG_LINE_BYTES: usize = 199;
/// Bytes of a message to a collector: what fits a datagram on any link with room to spare (RFC 5424, 6.1 wants 2048 taken).
pub const SYSLOG_MESSAGE_BYTES: usize = 1024;
/// Messages that wait for the collector; one that comes then is counted as dropped.
pub const COLLECTOR_QUEUE: usize = 256;
/// Addresses of its name that are tried.
pub const COLLECTOR_ADDRESSES: usize = 4;
/// How long its name, a connection to it, or a message on its way may take.
pub const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may leave what was sent unacknowledged before its connection counts as dead (TCP_USER_TIMEOUT).
pub const COLLECTOR_DEAD: Duration = Duration::from_secs(30);
/// How old its address may be where no connection tells that it has moved.
pub const COLLECTOR_RESOLVE: Duration = Duration::from_secs(600);
/// The wait after the first failure, which doubles.
pub const COLLECTOR_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait.
pub const COLLECTOR_BACKOFF_MOST: Duration = Duration::from_secs(60);
/// How long a connection to a collector that was lost must live before the collector counts as reached again.
pub const COLLECTOR_SETTLED: Duration = Duration::from_secs(10);
/// How long the agent's end waits for the last messages to be sent.
pub const COLLECTOR_STOP: Duration = Duration::from_secs(1);
/// Clients of the control socket that may follow the log at once, so that places are left for commands.
pub const LOG_FOLLOWERS: usize = 4;
/// How long a client may take for a piece of the log before it is dropped.
pub const LOG_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a line of the log with its time, as `logs` shows it; longer ones are cut.
pub const LOG_LINE_BYTES: usize = 4096;
/// Bytes of the log that are kept in memory: some 700 lines.
pub const LOG_RING_BYTES: usize = 64 * 1024;
/// Bytes of the log that one answer on the control socket carries; more than a line.
pub const LOG_CHUNK_BYTES: usize = 16 * 1024;

/// Characters of a text in an audit record that comes from outside: what tells an attack, and no room to hide one.
pub const AUDIT_TEXT_CHARACTERS: usize = 256;
/// Bytes of an audit record as a line: two such texts at their longest, six bytes for a half of a character, and some more.
pub const AUDIT_LINE_BYTES: usize = 8 * 1024;
/// Files that the records are spread over: with four, three quarters of them are kept when the oldest file goes.
pub const AUDIT_FILES: u64 = 4;
/// Files of audit records that are read: some more than we keep.
pub const AUDIT_FILES_READ: usize = 16;
/// The fewest bytes that all records may take: a few days of a quiet device.
pub const AUDIT_BYTES_LEAST: u64 = 64 * 1024;
/// The most: their newest file is read as a whole at each start.
pub const AUDIT_BYTES_MOST: u64 = 64 * 1024 * 1024;
/// Records that wait for the disk; one that comes then is counted as lost.
pub const AUDIT_QUEUE: usize = 256;
/// Records that are handed to the disk at once.
pub const AUDIT_BATCH: usize = 64;
/// Records of one kind that may come at once before they are summed up.
pub const AUDIT_BURST: u32 = 200;
/// As many of forwarded connections: a web page takes some, and a day's work a few hundred.
pub const AUDIT_CONNECTION_BURST: u32 = 1000;
/// Of all bytes, a record of a burst may take as many: so that a burst of the shortest takes a quarter of the files, in which the
/// records of what led to it are safe.
pub const AUDIT_BURST_BYTES: u64 = 1600;
/// After that one record of its own in this time: a flood fills the files in a day and not in half a minute.
pub const AUDIT_REFILL: Duration = Duration::from_secs(60);
/// How often what has no record of its own is summed up.
pub const AUDIT_SUM_INTERVAL: Duration = Duration::from_secs(600);
/// How long after a record the medium is asked to have it, for the flash's sake: what a power cut takes with it.
/// Forwarded connections don't ask; the kernel writes them within half a minute.
pub const AUDIT_SYNC_DELAY: Duration = Duration::from_secs(5);
/// How often a disk that refused a record is tried again.
pub const AUDIT_RETRY: Duration = Duration::from_secs(10);
/// How long the agent's end waits for its last records to be written.
pub const AUDIT_STOP: Duration = Duration::from_secs(2);

/// Bytes of the URL that a file is uploaded to: what servers commonly take as a request line.
pub const UPLOAD_URL_BYTES: usize = 2000;
/// Entries of `policy.allow_uploads`.
pub const UPLOAD_PATTERNS: usize = 64;
/// Requests and outcomes that wait for who uploads: twice what a charge point leaves unanswered.
pub const UPLOAD_REQUESTS: usize = 16;
/// Uploads that are begun in an hour, for the sake of a SIM card's contract: a file has up to a megabyte.
pub const UPLOADS_PER_HOUR: u32 = 20;
/// Notifications about uploads that wait for the CSMS while there is no link; the oldest give way.
pub const UPLOAD_NOTICES: usize = 16;
/// How long a notification waits that was lost with the link, so that a link which is lost again costs little.
pub const UPLOAD_NOTICE_PAUSE: Duration = Duration::from_secs(2);
/// Characters of the identity in a file's name.
pub const UPLOAD_IDENTITY_CHARACTERS: usize = 64;
/// Bytes of a security log: all audit records that are kept.
pub const UPLOAD_AUDIT_BYTES: usize = 1024 * 1024;
/// Bytes of audit records in diagnostics: the newest.
pub const UPLOAD_TAIL_BYTES: usize = 64 * 1024;
/// Bytes that are written at once, each with [`UPLOAD_STALL`] to go: a second and a half at 64 kbit/s.
pub const UPLOAD_CHUNK_BYTES: usize = 12 * 1024;
/// Bytes of an answer's head, and of what a proxy or a cache may have put into it.
pub const UPLOAD_ANSWER_BYTES: usize = 16 * 1024;
/// Fields of an answer's head.
pub const UPLOAD_HEADERS: usize = 64;
/// Addresses of one name that are tried.
pub const UPLOAD_ADDRESSES: usize = 8;
/// How long a name may take to resolve.
pub const UPLOAD_DNS: Duration = Duration::from_secs(10);
/// How long one TCP connection may take: three SYNs on a bad mobile link.
pub const UPLOAD_CONNECT: Duration = Duration::from_secs(10);
/// How long TLS may take on a slow controller and a slow link.
pub const UPLOAD_TLS: Duration = Duration::from_secs(20);
/// How long a server may take none of what is sent.
pub const UPLOAD_STALL: Duration = Duration::from_secs(30);
/// How long a server may take to answer when it has the whole file.
pub const UPLOAD_ANSWER: Duration = Duration::from_secs(30);
/// How long an answer is waited for after the server has ended the connection early.
pub const UPLOAD_LAST_WORDS: Duration = Duration::from_secs(1);
/// How long one try may take in all: a megabyte at 16 kbit/s.
pub const UPLOAD_ATTEMPT: Duration = Duration::from_secs(10 * 60);
/// Tries after the first where the CSMS leaves it to us.
pub const UPLOAD_RETRIES: u32 = 2;
/// Tries after the first, whatever the CSMS asks for.
pub const UPLOAD_RETRIES_MOST: u32 = 10;
/// The wait between two tries where the CSMS leaves it to us.
pub const UPLOAD_RETRY_WAIT: Duration = Duration::from_secs(60);
/// The shortest wait between two tries.
pub const UPLOAD_RETRY_LEAST: Duration = Duration::from_secs(1);
/// The longest wait between two tries.
pub const UPLOAD_RETRY_MOST: Duration = Duration::from_secs(3600);
/// How often `status --watch` asks the agent.
pub const WATCH: Duration = Duration::from_secs(1);
/// Processes above this one in whose environment its SSH login is looked for.
pub const ANCESTORS: usize = 64;
/// Bytes of such an environment that are read.
pub const ENVIRONMENT_BYTES: u64 = 256 * 1024;
/// Bytes of a process's status that are read: it is one line of numbers and a short name.
pub const PROCESS_STATUS_BYTES: u64 = 4096;
