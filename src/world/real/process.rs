//! CPU time of processes, for the load generator's report.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that this process has used so far, over all its threads.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time that another process has used so far, to a hundredth of a second.
///
/// # Errors
/// If there is no such process, or no `/proc`.
pub fn cpu_of(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses and may hold anything, also spaces and parentheses.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    // utime and stime are fields 14 and 15 of proc(5), so 11 and 12 behind the name.
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<u64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok(Duration::from_millis((user + system) * TICK_MILLIS)),
        _ => Err(io::Error::other(format!("/proc/{pid}/stat is not in the form of proc(5)"))),
    }
}

/// Linux shows user space a hundred ticks a second, whatever its own clock does.
const TICK_MILLIS: u64 = 10;

/// This process's id.
pub fn own_pid() -> u32 {
    std::process::id()
}
