//! Every bound in the system, with its reason.
//!
//! Nothing that grows is without a number here: queues, sizes, waits, lists. A limit that an operator may change is the
//! default of a configuration key, and says so.

use std::time::Duration;

/// Kibibytes and mebibytes, in bytes.
pub const KIB: usize = 1024;
/// See [`KIB`].
pub const MIB: usize = 1024 * KIB;

// --- Requests ---------------------------------------------------------------------------------------------------------

/// Largest value of a key, in bytes. Consul's default; `limits.kv_max_value_size` changes it, up to [`MAX_VALUE_CEILING`].
pub const MAX_VALUE: usize = 512 * KIB;
/// The largest that `limits.kv_max_value_size` may be set to: an entry must fit a quarter of a log segment.
pub const MAX_VALUE_CEILING: usize = 4 * MIB;
/// Longest key, in bytes after percent-decoding. Consul has no bound; hyper's default for a whole request head is near this.
pub const MAX_KEY: usize = 8 * KIB;
/// Largest body of a transaction and of other JSON requests; `limits.txn_max_req_len` changes it.
pub const MAX_BODY: usize = 512 * KIB;
/// Longest request head (request line and headers). hyper refuses more with 431.
pub const MAX_HEAD: usize = 32 * KIB;
/// A client must send its whole request head within this time, or is disconnected.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client must send its whole body within this time; a backup may take longer, as long as something of it comes within this.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections from one client address at a time; `limits.http_max_conns_per_client` changes it. Consul's default.
pub const HTTP_CONNECTIONS_PER_CLIENT: usize = 200;
/// Connections to the HTTP port over all clients: below the usual limit of open files with room for everything else.
pub const HTTP_CONNECTIONS: usize = 16_384;
/// A connection on which no byte moves for this long between two requests, or while an answer is being sent, is closed.
/// Far above the idle time of clients' connection pools (Go's keeps 90 s), so that the client closes first.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Query parameters of one request. The API knows about forty names; some may repeat.
pub const MAX_PARAMETERS: usize = 256;
/// Entries of one page (`?limit=`): the end of a page is found before its first byte is sent.
pub const MAX_PAGE: usize = 10_000;
/// Bytes of a listing that are written before the socket takes them. A longer listing is sent in chunks of about this, so
/// that its memory stays small and no other request waits for all of it.
pub const LIST_CHUNK: usize = 256 * KIB;
/// Bytes of a refused body that are read and thrown away, so that the client is still there to read the refusal: closing
/// a socket with unread bytes in it resets the connection.
pub const DRAIN_BYTES: usize = 4 * MIB;
/// How long that may take.
pub const DRAIN_TIME: Duration = Duration::from_secs(2);
/// How long the "too many connections" answer to one client may take.
pub const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Pause after a failed accept: the usual reason is a lack of open files, which passes as connections end.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a server that shuts down waits for requests in flight. Blocking queries are answered at once.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Shortest JSON body that is compressed for a client that accepts gzip. Consul's figure.
pub const GZIP_MIN: usize = 1_400;

/// How long a list of members waits for what the leader knows of them: people ask it when there is trouble.
pub const MEMBERS_WAIT: Duration = Duration::from_secs(1);

// --- Blocking queries (consul.md 2.2) ---------------------------------------------------------------------------------

/// How long a blocking query waits if it names no time; `default_query_time` changes it.
pub const DEFAULT_QUERY_TIME: Duration = Duration::from_secs(300);
/// The longest that a blocking query waits; `max_query_time` changes it.
pub const MAX_QUERY_TIME: Duration = Duration::from_secs(600);
/// A wait is stretched by a random part of up to 1/16, so that a herd of clients spreads.
pub const WAIT_JITTER_FRACTION: u32 = 16;
/// Blocking queries waiting on one node. Each holds a few kilobytes; more are refused with 503.
pub const MAX_WAITS: usize = 100_000;
/// How long an event stream is silent before a bookmark says that there was nothing. Below every proxy's patience, and far below
/// [`IDLE_TIMEOUT`].
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(15);
/// Changes that the watch index remembers, so that a repeated query of unchanged data costs one comparison.
pub const WATCH_RECENT: usize = 16_384;

// --- Leases (guarantees.md G1) ----------------------------------------------------------------------------------------

/// By how much the rate of any clock may differ from real time, in millionths: 1 %, far beyond what a working machine does.
pub const CLOCK_RATE_PPM: u32 = 10_000;
/// What a promised lease is shorter by than the clocks alone ask for: whatever is rounded to milliseconds on its way.
pub const LEASE_MARGIN: Duration = Duration::from_millis(10);

/// Shortest TTL of a session; `session_ttl_min` changes it. An election takes a second, and a holder must live through one.
pub const SESSION_TTL_MIN: Duration = Duration::from_secs(1);
/// Pause before the end of a session is proposed again by a leader that could not have it agreed upon.
pub const EXPIRY_RETRY: Duration = Duration::from_millis(250);
/// Ends of sessions that a leader has proposed and the log has not decided: after an election very many may be due at once.
pub const EXPIRIES_IN_FLIGHT: usize = 256;

// --- The catalog ------------------------------------------------------------------------------------------------------

/// How long a server is not heard before its `serfHealth` turns critical: as long as Consul's gossip takes on a LAN.
pub const SILENCE: Duration = Duration::from_secs(5);
/// How often a leader compares the catalog with the servers it has.
pub const RECONCILE: Duration = Duration::from_millis(250);

/// How long a root certificate holds. Consul's figure.
pub const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long before it is made it begins to hold: clocks differ.
pub const ROOT_LEEWAY: Duration = Duration::from_secs(60);
/// Longest root certificate, in bytes of PEM: ours has about 700.
pub const MAX_ROOT: usize = 16 * KIB;

// --- Writes -----------------------------------------------------------------------------------------------------------

/// Bytes of commands between admission and their answer, for a log with segments of this size. A full segment must be able
/// to take them all after the disk has filled, so it is half of one.
pub const fn admitted_bytes(segment: usize) -> usize {
    segment / 2
}
/// Commands between admission and their answer; one more waits, at most [`ADMISSION_WAIT`].
pub const ADMITTED_COMMANDS: usize = 16_384;
/// How long a write waits for its turn before it is refused with 503.
pub const ADMISSION_WAIT: Duration = Duration::from_secs(5);
/// How long a write waits for its outcome before it is answered "unknown" (R3).
pub const WRITE_WAIT: Duration = Duration::from_secs(10);
/// How long a request waits for a leader before it is answered `No cluster leader`. Consul's `rpc_hold_timeout`.
pub const LEADER_WAIT: Duration = Duration::from_secs(7);
/// How soon a new leader asks again whether it is ready.
pub const LEADER_RETRY: Duration = Duration::from_millis(10);
/// Linearizable reads that wait for the next read-index round; more wait before they join.
pub const READ_QUEUE: usize = 65_536;
/// How long one read-index round may take.
pub const READ_ROUND: Duration = Duration::from_secs(2);
/// How long a linearizable read waits for its read-index round.
pub const READ_WAIT: Duration = Duration::from_secs(10);

// --- The state --------------------------------------------------------------------------------------------------------

/// An index stays below this, so that every JSON reader holds it exactly.
pub const MAX_REVISION: u64 = 1 << 53;
/// How long a tombstone is kept, in log time. Consul's figure.
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(15 * 60);
/// Tombstones kept at most; the oldest is reaped early and raises the floor of every list's index (R4).
pub const MAX_TOMBSTONES: usize = 100_000;
/// Revisions of keys whose changes are kept, for readers of the event stream that lag and reads of the past; `history.revisions`
/// changes it. A few seconds of the fastest writers.
pub const HISTORY_REVISIONS: u64 = 100_000;
/// Bytes of them, in memory and in each checkpoint; `history.bytes` changes it.
pub const HISTORY_BYTES: u64 = 64 * MIB as u64;
/// Most that may be chosen of either.
pub const MAX_HISTORY_REVISIONS: u64 = 10_000_000;
/// See [`MAX_HISTORY_REVISIONS`].
pub const MAX_HISTORY_BYTES: u64 = 4096 * MIB as u64;
/// What a change takes beside its key and value: measured, 100,000 overwritten values of 256 bytes take 103 MB.
pub const HISTORY_OVERHEAD: usize = 768;
/// A part of a backup as it goes through the log. Smaller than the smallest log admits at once.
pub const RESTORE_PART: usize = MIB;
/// Bytes of rows that a restore brings in at most. They are staged in memory, beside the content that they replace.
pub const MAX_RESTORE: u64 = 4096 * MIB as u64;
/// A restore is given up when it has not gone on for so long, by log time.
pub const RESTORE_PATIENCE: Duration = Duration::from_secs(60);
/// And once sealed, when leases stand still, sooner. It ought to be one entry from its end.
pub const SEAL_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a step of a restore that was not taken is tried again.
pub const RESTORE_RETRY: Duration = Duration::from_millis(100);
/// How far ahead of another cluster's backup the revision jumps: further than the fences that it can have given since, one
/// a revision.
pub const FOREIGN_JUMP: u64 = 1 << 40;
/// Lock-delays that one entry ends; the rest stays due and holds nothing back.
pub const DUE_DELAYS: usize = 256;
/// Sessions that wait for locks, over all locks: each is a row.
pub const MAX_WAITERS: usize = 100_000;
/// The longest that one request waits for a lock; it may be repeated, and keeps its place.
pub const MAX_LOCK_WAIT: Duration = MAX_QUERY_TIME;
/// Waits that are ended by one entry, and locks that are handed over by it.
pub const DUE_WAITERS: usize = 256;
/// Longest TTL of a session. Consul's figure.
pub const MAX_SESSION_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest lock-delay. Consul's figure.
pub const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);
/// Checks that one session is bound to.
pub const MAX_SESSION_CHECKS: usize = 64;
/// Longest name of a node, service, check or session, in bytes; far more than DNS allows.
pub const MAX_NAME: usize = 512;
/// Pairs of metadata, tags or tagged addresses of one node or service; Consul's figure for metadata.
pub const MAX_PAIRS: usize = 64;
/// Longest key and value of metadata, in bytes. Consul's figures.
pub const MAX_META_KEY: usize = 128;
/// See [`MAX_META_KEY`].
pub const MAX_META_VALUE: usize = 512;
/// Largest output or notes of a check, in bytes; Consul cuts what its own checks print at 4 KiB.
pub const MAX_CHECK_OUTPUT: usize = 64 * KIB;
/// Operations of one transaction. Consul's figure.
pub const MAX_TXN_OPERATIONS: usize = 128;
/// Bytes of keys and values that a transaction which writes may read: its answer is remembered, and travels in one frame.
pub const MAX_TXN_RESULTS: usize = 2 * MIB;
/// Tombstones reaped by one entry; the rest stays due. An entry makes fewer, so this keeps up.
pub const DUE_TOMBSTONES: usize = 128;
/// Open request ids remembered per incarnation (R3).
pub const OPEN_REQUESTS: usize = 4_096;
/// Incarnations whose request ids are remembered; the least recently used is forgotten first.
pub const MAX_INCARNATIONS: usize = 16_384;
/// Answers remembered over all incarnations, about 40 MiB; the least recently used incarnation is forgotten first. Many
/// times [`OPEN_REQUESTS`], so the one in use is never it.
pub const MAX_ANSWERS: usize = 262_144;
/// An incarnation that is idle for this long, in log time, is forgotten (W of R3); an agent stops repeating after half.
pub const REQUEST_MEMORY: Duration = Duration::from_secs(10 * 60);

// --- The log ----------------------------------------------------------------------------------------------------------

/// Size of a log segment on disk; `raft_logstore.wal.segment_size_mb` changes it. Half of Consul's default, as two of
/// them are there for an empty log, and two more are kept for reuse.
pub const SEGMENT_BYTES: usize = 32 * MIB;
/// The smallest that may be chosen: [`MAX_ENTRY`] fits, whatever other servers admit.
pub const MIN_SEGMENT_BYTES: usize = 8 * MIB;
/// Largest segment that is read: what a file found on disk may make us allocate.
pub const MAX_SEGMENT_BYTES: usize = 8 * SEGMENT_BYTES;
/// Zeros written and synced at once while a segment is made ready: a batch that is written meanwhile waits for no more.
pub const PREPARE_STEP_BYTES: usize = 256 * KIB;
/// Largest batch that is written with one sync. One larger entry is a batch of its own.
pub const BATCH_BYTES: usize = 4 * MIB;
/// Largest encoded entry: a value at its ceiling, its key and its frame.
pub const MAX_ENTRY: usize = MAX_VALUE_CEILING + 2 * MIB;
/// Segments kept for reuse after a purge. More are removed.
pub const SPARE_SEGMENTS: usize = 2;
/// How often a full disk is tried again.
pub const FULL_DISK_RETRY: Duration = Duration::from_millis(500);

// --- The checkpoint ---------------------------------------------------------------------------------------------------

/// Log bytes after which a checkpoint is taken: bounds the log's memory, its disk use and a restart's replay.
pub const CHECKPOINT_LOG_BYTES: u64 = 32 * MIB as u64;
/// A checkpoint is taken this long after the last one if anything was written since; `raft_snapshot_interval` changes it.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);
/// Log bytes kept behind the checkpoint, for followers that lag a little; `raft_trailing_logs` can make it less.
pub const KEEP_LOG_BYTES: u64 = 8 * MIB as u64;
/// Unpurged log bytes beyond which writes are refused: checkpoints must be failing.
pub const MAX_LOG_BYTES: u64 = 256 * MIB as u64;
/// Longest key of a row, in bytes: fjall takes 64 KiB, of which the checkpoint uses a few for itself.
pub const MAX_CHECKPOINT_KEY: usize = 32 * KIB;
/// Cache of the checkpoint's database, in bytes. It is read once, from front to back, so more would not help.
pub const CHECKPOINT_CACHE_BYTES: u64 = MIB as u64;
/// Files that the checkpoint's database keeps open: with 64 MiB each, enough for any state that fits in memory.
pub const CHECKPOINT_OPEN_FILES: usize = 64;
/// Block size of the checkpoint's files, in bytes: large, because a load reads all of them in order.
pub const CHECKPOINT_BLOCK_BYTES: u32 = 32 * KIB as u32;
/// How often the log is measured for a checkpoint.
pub const CHECKPOINT_POLL: Duration = Duration::from_millis(200);
/// How long a failed checkpoint waits before it tries again.
pub const CHECKPOINT_RETRY: Duration = Duration::from_secs(1);

// --- Backups ----------------------------------------------------------------------------------------------------------

/// Largest backup, before it is compressed: no more than a restore takes.
pub const MAX_ARCHIVE: u64 = MAX_RESTORE;
/// Largest of the small files in a backup: the description of [`MAX_SERVERS`] servers takes some tens of KiB.
pub const MAX_ARCHIVE_META: u64 = MIB as u64;
/// Largest backup as it is sent, saved and given back: compressed, and in memory at each of these. A larger one is refused when
/// it is saved, not when it is needed.
pub const MAX_SNAPSHOT_UPLOAD: usize = 1024 * MIB;
/// How long a backup may be on its way: the largest takes this long at 300 KB/s.
pub const SNAPSHOT_TIME: Duration = Duration::from_secs(3600);
/// How long a backup waits while this node makes, or takes back, another one.
pub const SNAPSHOT_TURN: Duration = Duration::from_secs(60);

// --- Agreement --------------------------------------------------------------------------------------------------------

/// Time between a leader's heartbeats at `raft_multiplier` 1. Long enough for a disk's stall.
pub const HEARTBEAT: Duration = Duration::from_millis(100);
/// Election time-outs are drawn between this and twice this, at `raft_multiplier` 1. They begin when the leader's lease
/// ends, which is twice this after its last word: a follower is patient for 1.05 to 1.4 s, ten heartbeats and more, and
/// writes flow again within 1.5 s of a leader's death.
pub const ELECTION: Duration = Duration::from_millis(350);
/// Consul's range for `performance.raft_multiplier`.
pub const RAFT_MULTIPLIER: std::ops::RangeInclusive<u32> = 1..=10;

/// Servers of one cluster, at most: what a list of them may make us remember.
pub const MAX_SERVERS: usize = 64;
/// Longest name and longest address of a server that is taken from another, in bytes.
pub const MEMBER_TEXT: usize = 256;
/// Entries in one append message; openraft's own default is below it.
pub const APPEND_ENTRIES: usize = 1024;
/// Bytes of entries in one append message; one larger entry is a message of its own.
pub const APPEND_BYTES: usize = MIB;
/// Append messages that a follower has not answered yet; more wait.
pub const APPENDS_IN_FLIGHT: usize = 64;
/// How long a follower may take to answer an append: longer than a disk's stall, shorter than nobody's patience.
pub const APPEND_WAIT: Duration = Duration::from_secs(5);
/// Bytes of one chunk of a snapshot. One larger row is a chunk of its own.
pub const SNAPSHOT_CHUNK: usize = MIB;
/// Bytes of a snapshot that are encoded ahead of the network.
pub const SNAPSHOT_WINDOW: usize = 64 * MIB;
/// How long a snapshot may stand still on its way.
pub const SNAPSHOT_WAIT: Duration = Duration::from_secs(20);
/// How long a server may take to store a whole snapshot.
pub const SNAPSHOT_INSTALL: Duration = Duration::from_secs(600);
/// How long a request is repeated, under one request id, until its outcome is known. Far below half of
/// [`REQUEST_MEMORY`], and below [`CLIENT_PATIENCE`].
pub const FORWARD_WAIT: Duration = Duration::from_secs(17);
/// Pause before a request is given to the leader again.
pub const FORWARD_RETRY: Duration = Duration::from_millis(25);
/// How long a question to another server about the cluster may take.
pub const GREETING_WAIT: Duration = Duration::from_secs(3);
/// How long a greeted server is remembered: a few rounds.
pub const GREETING_MEMORY: Duration = Duration::from_secs(10);
/// Pause between rounds of greetings while anyone answers.
pub const GREETING_PAUSE: Duration = Duration::from_millis(500);
/// How often a leader looks for learners that have caught up.
pub const PROMOTE_POLL: Duration = Duration::from_millis(200);
/// Entries that a learner may be behind when it becomes a voter.
pub const PROMOTE_LAG: u64 = 200;
/// How long a change of the membership may take.
pub const MEMBERSHIP_WAIT: Duration = Duration::from_secs(15);
/// How long a leader waits for the one it has handed over to.
pub const HAND_OVER_WAIT: Duration = Duration::from_secs(3);

// --- Between nodes ----------------------------------------------------------------------------------------------------

/// Largest body of one frame, in bytes: an encoded entry and its envelope. A snapshot goes in many.
pub const RPC_BODY: usize = 8 * MIB;
/// A body up to this size is copied beside its head; a larger one is written from where it is.
pub const RPC_COPIED_BODY: usize = KIB;
/// Bytes made room for when a frame's head is believed; the rest of a large body makes its room as it arrives.
pub const RPC_FIRST_READ: usize = 64 * KIB;
/// Frames queued each way on one connection: what one write may carry.
pub const RPC_QUEUE_FRAMES: usize = 256;
/// Bytes queued each way on one connection: two of the largest frames, so that one is written while one waits.
pub const RPC_QUEUE_BYTES: usize = 2 * RPC_BODY;
/// Calls in flight on one connection; on the client more wait for their turn. Forwarded long polls count among them.
pub const RPC_IN_FLIGHT: usize = 16_384;
/// Calls of all peers that a node works on; more are answered "later".
pub const RPC_CALLS: usize = 65_536;
/// Bytes of the calls of all peers that a node works on; more are answered "later".
pub const RPC_CALL_BYTES: usize = 256 * MIB;
/// Longest text of an error that travels between nodes, in bytes.
pub const RPC_ERROR_TEXT: usize = 4 * KIB;
/// Connections of all peers: the largest cluster in use has a few thousand clients, each with one or two.
pub const RPC_CONNECTIONS: usize = 8_192;
/// Connections of one peer: calls and a few streams, twice, because lost ones take [`RPC_SILENCE`] to be noticed.
pub const RPC_CONNECTIONS_PER_PEER: usize = 32;
/// Connections whose handshake is not finished; more wait in the kernel's queue.
pub const RPC_HANDSHAKES: usize = 256;
/// How long a client tries to connect, handshake included: a lost SYN is sent again after one second.
pub const RPC_CONNECT: Duration = Duration::from_secs(3);
/// How long a server waits for the handshake of a new connection.
pub const RPC_HANDSHAKE: Duration = Duration::from_secs(3);
/// How long a side sends nothing before it sends a ping.
pub const RPC_PING: Duration = Duration::from_secs(2);
/// A peer that sends nothing for this long is gone: three pings lost.
pub const RPC_SILENCE: Duration = Duration::from_secs(7);
/// A peer that takes nothing of what we send for this long is cut off: longer than a disk's stall.
pub const RPC_STALL: Duration = Duration::from_secs(20);
/// First pause after a failed connection; each further failure doubles it, up to [`RPC_BACKOFF_CAP`].
pub const RPC_BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between attempts to connect: a node that is back is noticed within it.
pub const RPC_BACKOFF_CAP: Duration = Duration::from_secs(1);
/// How long a finished stream waits for its peer to read the end, and a lost one for its handler to notice.
pub const RPC_LINGER: Duration = Duration::from_secs(2);
/// How long the server pauses when it cannot accept (no files left).
pub const RPC_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Peers that a pool remembers; the one unused for longest is forgotten first.
pub const RPC_POOL: usize = 4_096;

// --- Configuration ----------------------------------------------------------------------------------------------------

/// Largest configuration file that is read.
pub const MAX_CONFIG_FILE: u64 = 16 * MIB as u64;
/// Files read from one configuration directory.
pub const MAX_CONFIG_FILES: usize = 10_000;

// --- Log lines -------------------------------------------------------------------------------------------------------

/// A library's line is written once in this time, however often it is said.
pub const LIBRARY_LOG_PAUSE: Duration = Duration::from_secs(10);

// --- The client and the command line ----------------------------------------------------------------------------------

/// How long the client tries to connect.
pub const CLIENT_CONNECT: Duration = Duration::from_secs(5);
/// How long the client waits for an answer: longer than a server waits for a leader and then for an outcome.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer the client takes: a list of keys much larger than this is a mistake.
pub const CLIENT_REPLY: usize = 1024 * MIB;
/// Largest standard input or file that a command reads as data; `kv import` is the one that needs more than a value.
pub const MAX_INPUT: usize = 1024 * MIB;
/// How long a node may take to stop after a signal; then the process ends. Consul's figure.
pub const LEAVE_WAIT: Duration = Duration::from_secs(15);
/// How long a node that stops tries to leave its cluster; what is left of [`LEAVE_WAIT`] is for the rest.
pub const LEAVE_TRIES: Duration = Duration::from_secs(10);
/// TTL of the session that holds a client's lock, unless it says otherwise. Consul's figure.
pub const LOCK_TTL: Duration = Duration::from_secs(15);
/// Into how many parts a TTL is divided: a renewal begins when two have passed, and each attempt may take one. So two attempts
/// fail before a third of the lease is left, which is when what the lock protects is asked to stop.
pub const LEASE_PARTS: u32 = 6;
/// Longest pause before something that failed is tried again for a lock; a short lease shortens it.
pub const LOCK_RETRY: Duration = Duration::from_millis(250);
/// How long one request waits in a lock's queue before it is repeated, which keeps its place: below the idle time of the
/// proxies that may be in between.
pub const LOCK_TURN: Duration = Duration::from_secs(30);
/// How long a lock is tried to be given up, at most: without an answer its session ends by itself.
pub const LOCK_FAREWELL: Duration = Duration::from_secs(5);
/// How long what a lock protects may take to end after SIGTERM, before SIGKILL; a short lease shortens it. Consul's figure.
pub const LOCK_STOP: Duration = Duration::from_secs(5);
/// How long before the end of its lease it is killed: longer than a busy machine keeps a process waiting.
pub const LOCK_KILL_MARGIN: Duration = Duration::from_millis(500);
/// How often it is looked whether what was killed is gone.
pub const LOCK_GONE_POLL: Duration = Duration::from_millis(20);
/// Clients of one `bench`: as many connections as a process may usually open, with room for the rest.
pub const MAX_BENCH_CLIENTS: usize = 16_384;
/// Keys of one `bench`, so that its bookkeeping stays in memory.
pub const MAX_BENCH_KEYS: u64 = 10_000_000;
/// How long `bench` waits for one answer before it counts an error and connects again.
pub const BENCH_PATIENCE: Duration = Duration::from_secs(15);
/// Pause of a `bench` client whose connection failed: a dead server must not cost the load generator a core.
pub const BENCH_RECONNECT: Duration = Duration::from_millis(20);
/// How long `bench -check` tries to read a key back, so that a restarted cluster can elect a leader first.
pub const BENCH_VERIFY: Duration = Duration::from_secs(60);

/// Longest record of the event stream that the client takes: the deletion of a prefix names every key in one, and its value
/// if that was asked for.
pub const STREAM_LINE: usize = 256 * MIB;
/// An event stream on which nothing comes for this long is lost: three of the bookmarks that an idle one sends.
pub const STREAM_SILENCE: Duration = Duration::from_secs(3 * BOOKMARK_INTERVAL.as_secs());
/// First pause before a lost event stream is opened again; each further failure doubles it, up to [`STREAM_RETRY_CAP`].
pub const STREAM_RETRY: Duration = Duration::from_millis(250);
/// Longest pause before a lost event stream is opened again.
pub const STREAM_RETRY_CAP: Duration = Duration::from_secs(10);
/// How long one blocking query of `quorate watch` waits: a connection that died without a word is noticed within it.
pub const WATCH_WAIT: Duration = Duration::from_secs(60);
/// Pause of `quorate watch` after a failed query; the n-th failure in a row takes n² times as long. Consul's figure.
pub const WATCH_RETRY: Duration = Duration::from_secs(5);
/// Longest pause of `quorate watch` after a failed query. Consul's figure.
pub const WATCH_RETRY_CAP: Duration = Duration::from_secs(180);
/// How long the HTTP handler of a watch may take to answer. Consul's figure.
pub const HANDLER_PATIENCE: Duration = Duration::from_secs(10);
