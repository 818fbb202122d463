//! The two system calls through which chance and time leak into a run: `getrandom` and `clock_gettime`.
//!
//! Both are defined here, so every crate of this binary that calls them calls these: std's hash seeds, tokio, and whatever
//! a dependency does behind our back. On a thread that runs a seed they give bytes of that seed and virtual time; on any
//! other thread they are the system's. Per thread, so that many seeds run side by side.
//!
//! A run must have a fresh thread: std counts the keys of its hash maps up per thread.

#![allow(unsafe_code, reason = "symbols of libc are replaced, which only unsafe attributes can")]

use std::cell::{Cell, RefCell};
use std::time::Duration;

use quorate_sim::rng::Rng;

thread_local! {
    static RANDOM: RefCell<Option<Rng>> = const { RefCell::new(None) };
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// What the monotonic clock says when a run begins: far enough from zero to subtract from.
const MONOTONIC: Duration = Duration::from_secs(1_000_000);
/// What the wall clock says then.
const WALL: Duration = Duration::from_secs(1_700_000_000);

/// From here on, this thread is a run of this seed.
pub fn enter(seed: u64) {
    RANDOM.set(Some(Rng::named(seed, "getrandom")));
    NOW.set(Some(Duration::ZERO));
}

/// Moves this thread's clocks.
pub fn set_now(now: Duration) {
    NOW.set(Some(now));
}

/// Replaces libc's.
///
/// # Safety
/// `buffer` is valid for writes of `len` bytes, as for the original.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, flags: u32) -> isize {
    let simulated = RANDOM.try_with(|random| {
        let mut random = random.try_borrow_mut().ok()?;
        // SAFETY: the caller's promise, see above.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
        random.as_mut().map(|rng| rng.fill(buffer))
    });
    match simulated {
        Ok(Some(())) => len as isize,
        // SAFETY: the arguments are the caller's, unchanged; this is what libc's own function does.
        _ => unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as isize },
    }
}

/// Replaces libc's.
///
/// # Safety
/// `time` is valid for a write, as for the original.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let Ok(Some(now)) = NOW.try_with(Cell::get) else {
        // SAFETY: the arguments are the caller's, unchanged; this is what libc's own function does.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int };
    };
    let wall = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
    let now = now + if wall { WALL } else { MONOTONIC };
    let simulated = libc::timespec { tv_sec: now.as_secs() as libc::time_t, tv_nsec: i64::from(now.subsec_nanos()) };
    // SAFETY: the caller's promise, see above.
    unsafe { time.write(simulated) };
    0
}
