//! Time of madsim's runtime, with sleeps that can be given up.
//!
//! A timer of madsim's stays until its time has come, wakes its task then, and is set once more whenever its sleep is
//! polled. A server gives up nearly all its sleeps, which are time-outs: left to madsim, half of all polls would be for
//! nothing. So all sleeps of a run wait here, and one task, [`Timers::drive`], waits for the first of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quorate::world::Sleep;
use quorate_sim::engine::{Engine, Time};

use crate::Madsim;

/// All sleeps of a run.
#[derive(Default)]
pub struct Timers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By deadline, then by number.
    sleeps: BTreeMap<(Duration, u64), Waker>,
    number: u64,
    /// What the driver waits for.
    next: Option<Duration>,
    driver: Option<Waker>,
}

impl Timers {
    /// Wakes whoever sleeps, for as long as the run takes.
    pub async fn drive(self: Arc<Self>) {
        let mut sleep: Option<madsim::time::Sleep> = None;
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            state.driver = Some(cx.waker().clone());
            loop {
                let now = Madsim::now();
                let later = state.sleeps.split_off(&(now + Duration::from_nanos(1), 0));
                for waker in std::mem::replace(&mut state.sleeps, later).into_values() {
                    waker.wake();
                }
                let first = state.sleeps.first_key_value().map(|((deadline, _), _)| *deadline);
                if first == state.next && sleep.as_ref().is_none_or(|sleep| !sleep.is_elapsed()) {
                    return Poll::Pending;
                }
                state.next = first;
                sleep = first.map(|first| madsim::time::sleep(first.saturating_sub(now)));
                if let Some(sleep) = &mut sleep {
                    // Never ready: it is at least a millisecond long.
                    let _ = Pin::new(sleep).poll(cx);
                }
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock and the sleeps of a host's tasks.
pub struct MadsimTime(pub Arc<Timers>);

impl Time for MadsimTime {
    fn elapsed(&self) -> Duration {
        // Dropped with its runtime, a task may still ask.
        Madsim::now()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(Nap { timers: self.0.clone(), deadline: Madsim::now() + duration, place: None })
    }
}

struct Nap {
    timers: Arc<Timers>,
    deadline: Duration,
    /// Its key among the sleeps, while it is there.
    place: Option<u64>,
}

impl Future for Nap {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Madsim::now() >= self.deadline {
            return Poll::Ready(());
        }
        let timers = self.timers.clone();
        let mut state = timers.lock();
        let number = *self.place.get_or_insert_with(|| {
            state.number += 1;
            state.number
        });
        state.sleeps.insert((self.deadline, number), cx.waker().clone());
        if state.next.is_none_or(|next| self.deadline < next)
            && let Some(driver) = &state.driver
        {
            driver.wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Nap {
    fn drop(&mut self) {
        if let Some(number) = self.place {
            self.timers.lock().sleeps.remove(&(self.deadline, number));
        }
    }
}
