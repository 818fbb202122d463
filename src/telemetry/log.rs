//! Log lines in Consul's form, as text or JSON, on standard output.
//!
//! `2006-01-02T15:04:05.000Z [INFO]  agent.raft: elected: term=3`, so that what reads Consul's logs reads ours. The
//! level can be changed while the node runs. Libraries may say the same hundreds of times in a second, about a server that is
//! down for instance: of each of their lines one is written in [`limits::LIBRARY_LOG_PAUSE`], and the next says how many were
//! left out. What this never does: log by itself, or know what a line is about.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use crate::limits;
use crate::world::{Clock, Instant, WallTime};

/// Changes the level of a running logger.
pub struct Logs {
    filter: reload::Handle<Targets, Registry>,
}

/// A logger that writes to `out`, and the handle to change its level. The caller makes it the global one.
pub fn logger<W>(level: Level, json: bool, clock: Arc<dyn Clock>, out: W) -> (impl Subscriber + Send + Sync, Logs)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(out).event_format(Lines {
        json,
        clock,
        repeated: Mutex::default(),
    });
    (Registry::default().with(lines.with_filter(filter)), Logs { filter: handle })
}

impl Logs {
    /// Logs this level and everything graver from now on.
    pub fn set_level(&self, level: Level) {
        // It fails only once the logger is gone, and then nobody logs.
        let _ = self.filter.modify(|filter| *filter = targets(level));
    }
}

/// Our own lines at the level asked for; those of libraries only from warnings on, unless everything is wanted.
fn targets(level: Level) -> Targets {
    let libraries = if level == Level::TRACE { Level::TRACE } else { Level::WARN.min(level) };
    Targets::new().with_default(libraries).with_target(env!("CARGO_PKG_NAME"), level)
}

struct Lines {
    json: bool,
    clock: Arc<dyn Clock>,
    /// By file and line of a library, of which there are so many: when its line was last written, and how often not since.
    repeated: Mutex<BTreeMap<&'static str, (Instant, u64)>>,
}

impl Lines {
    /// How many like this were left out before it; `None` leaves it out, too.
    fn left_out(&self, meta: &'static Metadata<'static>) -> Option<u64> {
        // Finer lines are written for nobody but who asked for all of it.
        if meta.target().starts_with(env!("CARGO_PKG_NAME")) || *meta.level() >= Level::DEBUG {
            return Some(0);
        }
        let now = self.clock.now();
        let mut repeated = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((written, left_out)) = repeated.get_mut(meta.name()) else {
            repeated.insert(meta.name(), (now, 0));
            return Some(0);
        };
        if now.since(*written) < limits::LIBRARY_LOG_PAUSE {
            *left_out += 1;
            return None;
        }
        *written = now;
        Some(std::mem::take(left_out))
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(left_out) = self.left_out(event.metadata()) else { return Ok(()) };
        let mut fields = Fields::default();
        event.record(&mut fields);
        if left_out > 0 {
            fields.others.push(("left_out", left_out.into()));
        }
        let (time, meta) = (timestamp(self.clock.wall()), event.metadata());
        let module = module(meta.target());
        if self.json {
            let level = meta.level().as_str().to_ascii_lowercase();
            let head = [("@level", level), ("@message", fields.message), ("@module", module), ("@timestamp", time)];
            let mut line: Map<String, Value> = head.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
            line.extend(fields.others.into_iter().map(|(name, value)| (name.to_owned(), value)));
            return writeln!(out, "{}", Value::Object(line));
        }
        // A pad of seven keeps modules in one column.
        let level = format!("[{}]", meta.level());
        write!(out, "{time} {level:7} {module}: {}", fields.message)?;
        for (i, (name, value)) in fields.others.iter().enumerate() {
            out.write_str(if i == 0 { ": " } else { " " })?;
            match value {
                Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '=', '\n']) => {
                    write!(out, "{name}={text}")?;
                }
                // JSON's quotes also keep a line break inside a value from making a second line.
                value => write!(out, "{name}={value}")?,
            }
        }
        out.write_char('\n')
    }
}

/// `quorate::raft::log` is `agent.raft.log`, as Consul calls its parts.
fn module(target: &str) -> String {
    let path = target.strip_prefix(concat!(env!("CARGO_PKG_NAME"), "::")).unwrap_or(target).replace("::", ".");
    let path = path.strip_prefix("cli.").unwrap_or(&path);
    if path.starts_with("agent") { path.to_owned() } else { format!("agent.{path}") }
}

/// The fields of one event; its message apart.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text.replace('\n', "\\n"),
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

/// `2006-01-02T15:04:05.000Z`.
pub fn timestamp(time: WallTime) -> String {
    let (seconds, millis) = (time.0 / 1000, time.0 % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date of a day since 1970-01-01, by Howard Hinnant's algorithm
/// (<https://howardhinnant.github.io/date_algorithms.html>): years begin in March, so that the leap day is the last of
/// its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::world::Sleep;

    /// It stands still until it is set.
    #[derive(Default)]
    struct Still(AtomicU64);
    impl Clock for Still {
        fn now(&self) -> Instant {
            Instant(self.0.load(Ordering::Relaxed))
        }
        fn wall(&self) -> WallTime {
            WallTime(1_136_214_245_007)
        }
        fn sleep_until(&self, _: Instant) -> Sleep {
            Box::pin(std::future::pending())
        }
    }

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(level: Level, json: bool, log: impl FnOnce(&Logs)) -> String {
        written_at(level, json, Arc::default(), log)
    }

    fn written_at(level: Level, json: bool, clock: Arc<Still>, log: impl FnOnce(&Logs)) -> String {
        let page = Page::default();
        let out = page.clone();
        let (subscriber, logs) = logger(level, json, clock, move || out.clone());
        tracing::subscriber::with_default(subscriber, || log(&logs));
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_lines_have_consuls_form() {
        let lines = written(Level::INFO, false, |_| {
            tracing::info!(target: "quorate::agent::leader", term = 3, peer = "10.0.0.1:8300", why = "a b", "elected");
            tracing::warn!(target: "quorate::raft", "slow\ndisk");
        });
        let first = "2006-01-02T15:04:05.007Z [INFO]  agent.leader: elected: term=3 peer=10.0.0.1:8300 why=\"a b\"\n";
        assert_eq!(lines, first.to_owned() + "2006-01-02T15:04:05.007Z [WARN]  agent.raft: slow\\ndisk\n");
    }

    #[test]
    fn json_lines_have_consuls_keys() {
        let line = written(Level::INFO, true, |_| tracing::error!(target: "quorate::http", code = 500, "refused"));
        let expected = r#"{"@level":"error","@message":"refused","@module":"agent.http","@timestamp":"2006-01-02T15:04:05.007Z","code":500}"#;
        assert_eq!(line, format!("{expected}\n"));
    }

    #[test]
    fn the_level_can_change_and_libraries_stay_quiet() {
        let lines = written(Level::INFO, false, |logs| {
            tracing::debug!(target: "quorate::agent", "one");
            tracing::info!(target: "openraft::core", "two");
            logs.set_level(Level::DEBUG);
            tracing::debug!(target: "quorate::agent", "three");
            tracing::info!(target: "openraft::core", "four");
            logs.set_level(Level::ERROR);
            tracing::warn!(target: "openraft::core", "five");
        });
        assert_eq!(lines, "2006-01-02T15:04:05.007Z [DEBUG] agent: three\n");
    }

    #[test]
    fn libraries_repeat_themselves_once_in_a_while() {
        let clock = Arc::<Still>::default();
        let lines = written_at(Level::INFO, false, clock.clone(), |_| {
            for second in [0, 1, 9, 10, 11, 25] {
                clock.0.store(Duration::from_secs(second).as_nanos() as u64, Ordering::Relaxed);
                tracing::warn!(target: "openraft::core", second, "no answer");
                tracing::warn!(target: "quorate::raft", second, "ours");
            }
        });
        let lines: Vec<&str> =
            lines.lines().filter_map(|line| line.split_once("[WARN]  agent.")).map(|(_, line)| line).collect();
        let library: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("openraft.core: ")).collect();
        assert_eq!(
            library,
            ["no answer: second=0", "no answer: second=10 left_out=2", "no answer: second=25 left_out=1"]
        );
        assert_eq!(lines.len() - library.len(), 6);
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (days, date) in [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (11_017, (2000, 3, 1)), (20_819, (2027, 1, 1))]
        {
            assert_eq!(civil(days), date);
        }
    }
}
