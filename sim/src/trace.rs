//! What happened, in order: an order-sensitive hash of every event, and a line for each if asked for.
//!
//! The trace is how determinism is tested: two runs are the same if their traces are, byte for byte. Each run has a thread
//! of its own, so the trace is the thread's. The subscriber is the process's, because tracing caches per call site what
//! any subscriber wants.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Where lines go.
pub type Sink = Box<dyn std::io::Write>;

struct Trace {
    hash: u64,
    events: u64,
    sink: Option<Sink>,
    now: fn() -> Duration,
}

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
    static HOST: RefCell<Arc<str>> = RefCell::new("".into());
    /// Virtual time at the beginning of the engine's step, for engines that know it no better.
    static STEP: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Whether messages and raft's steps are traced too.
static DETAILED: AtomicBool = AtomicBool::new(false);

/// Takes over the process's log. `detailed` adds every message on the network and raft's steps: ten times slower.
///
/// # Panics
/// If it is called twice.
pub fn install(detailed: bool) {
    DETAILED.store(detailed, Ordering::Relaxed);
    tracing::subscriber::set_global_default(ToTrace).expect("nobody else takes the log");
}

/// Begins this thread's trace. `now` is virtual time.
pub fn start(sink: Option<Sink>, now: fn() -> Duration) {
    STEP.set(Duration::ZERO);
    TRACE.set(Some(Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, sink, now }));
}

/// Ends it; returns its hash and the number of its events.
pub fn finish() -> (u64, u64) {
    let Some(mut trace) = TRACE.take() else { return (0, 0) };
    if let Some(sink) = &mut trace.sink {
        // A reader that went away (`| head`) wants no more.
        let _ = sink.flush();
    }
    (trace.hash, trace.events)
}

/// Virtual time of this thread's run.
pub fn now() -> Duration {
    TRACE.with_borrow(|trace| trace.as_ref().map_or(Duration::ZERO, |trace| (trace.now)()))
}

/// The engine's step begins at this time.
pub fn step(now: Duration) {
    STEP.set(now);
}

/// Virtual time at the beginning of the engine's step.
pub fn step_time() -> Duration {
    STEP.get()
}

/// Until the guard is dropped, events belong to this host.
pub fn on(host: &Arc<str>) -> OnHost {
    OnHost(HOST.replace(host.clone()))
}

/// See [`on`].
pub struct OnHost(Arc<str>);

impl Drop for OnHost {
    fn drop(&mut self) {
        HOST.with_borrow_mut(|host| std::mem::swap(host, &mut self.0));
    }
}

/// Traces an event of this host; the text is made only once.
pub fn event(kind: &str, text: std::fmt::Arguments<'_>) {
    // An event inside an event (a `Debug` that logs) is dropped.
    let _: Option<()> = TRACE.with(|trace| {
        let mut trace = trace.try_borrow_mut().ok()?;
        let trace = trace.as_mut()?;
        let now = (trace.now)().as_micros();
        let host = HOST.with_borrow(Arc::clone);
        let mut line = String::with_capacity(96);
        let host = if host.is_empty() { "-" } else { &host };
        write!(line, "{:>5}.{:06} {host:<4} {kind:<8} {text}", now / 1_000_000, now % 1_000_000).ok()?;
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        trace.events += 1;
        if let Some(sink) = &mut trace.sink
            && writeln!(sink, "{line}").is_err()
        {
            trace.sink = None;
        }
        None
    });
}

/// [`event`] with a format string.
#[macro_export]
macro_rules! event {
    ($kind:expr, $($text:tt)+) => { $crate::trace::event($kind, format_args!($($text)+)) };
}

struct ToTrace;

impl Subscriber for ToTrace {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return false;
        }
        let detailed = DETAILED.load(Ordering::Relaxed);
        match metadata.target().split("::").next().unwrap_or_default() {
            "quorate" => *metadata.level() <= if detailed { Level::TRACE } else { Level::INFO },
            "openraft" => *metadata.level() <= if detailed { Level::DEBUG } else { Level::ERROR },
            "turmoil" => detailed,
            _ => false,
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if DETAILED.load(Ordering::Relaxed) { LevelFilter::TRACE } else { LevelFilter::INFO })
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, log: &Event<'_>) {
        let mut fields = Fields(String::new());
        log.record(&mut fields);
        event(log.metadata().level().as_str(), format_args!("{}{}", log.metadata().target(), fields.0));
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let name = if field.name() == "message" { "" } else { field.name() };
        let equals = if name.is_empty() { "" } else { "=" };
        // Writing to a string cannot fail.
        let _ = write!(self.0, " {name}{equals}{value:?}");
    }
}
