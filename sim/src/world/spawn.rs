//! Tasks that a machine may hold back: a pause, a slow machine, another order.
//!
//! Every task of a machine is polled through its [`Gate`]. Paused, it withholds all polls, and wakes every task when it
//! opens: what `SIGSTOP` and a long garbage collection do. Slow, it lets time pass before a poll. Late, it lets time pass
//! before a new task's first poll: what a pool of busy threads does. And it may let a task wait for one more turn, so that
//! others come first: one thread then shows more of the orders that several would.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quorate::world::{Abort, BoxTask, Sleep, Spawn};

use super::hold;
use crate::engine::Time;
use crate::rng::Rng;
use crate::trace;

/// What holds back the tasks of one machine.
pub struct Gate {
    name: Arc<str>,
    state: Mutex<State>,
    /// Tasks that have begun and not ended.
    tasks: AtomicUsize,
}

struct State {
    rng: Rng,
    /// Of a thousand polls, so many let others go first.
    skip_per_mille: u64,
    /// Longest time that a poll waits.
    slow: Option<Duration>,
    /// Longest time that a new task waits.
    late: Option<Duration>,
    /// The tasks that were woken while paused.
    paused: Option<Vec<Waker>>,
}

/// What is to happen to one poll.
enum Ruling {
    Poll,
    Withheld,
    Later,
    After(Duration),
}

impl Gate {
    /// An open gate.
    pub fn new(name: &str, rng: Rng) -> Self {
        Gate {
            name: name.into(),
            state: Mutex::new(State { rng, skip_per_mille: 0, slow: None, late: None, paused: None }),
            tasks: AtomicUsize::new(0),
        }
    }

    /// Of a thousand polls, how many let other tasks go first.
    pub fn set_jitter(&self, per_mille: u64) {
        hold(&self.state).skip_per_mille = per_mille;
    }

    /// Makes a tenth of all polls wait for up to this long.
    pub fn set_slow(&self, slow: Option<Duration>) {
        hold(&self.state).slow = slow;
    }

    /// Makes half of all new tasks wait for up to this long before they begin.
    pub fn set_late(&self, late: Option<Duration>) {
        hold(&self.state).late = late;
    }

    /// Withholds all polls, or lets all tasks go on that were to be polled meanwhile.
    pub fn set_paused(&self, paused: bool) {
        let held = {
            let mut state = hold(&self.state);
            if paused {
                state.paused.get_or_insert_default();
                return;
            }
            state.paused.take()
        };
        held.into_iter().flatten().for_each(Waker::wake);
    }

    /// Runs a future of this machine behind the gate.
    pub fn guard<F: Future>(
        self: &Arc<Self>,
        time: Arc<dyn Time>,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        Gated { task: Counted(self.clone()), time, is_new: true, delay: None, future }
    }

    /// How many tasks of this machine there are.
    pub fn tasks(&self) -> usize {
        self.tasks.load(Ordering::Relaxed)
    }

    fn rule(&self, waker: &Waker, is_new: bool) -> Ruling {
        let mut state = hold(&self.state);
        if let Some(held) = &mut state.paused {
            if !held.iter().any(|other| other.will_wake(waker)) {
                held.push(waker.clone());
            }
            return Ruling::Withheld;
        }
        if let Some(late) = state.late.filter(|_| is_new)
            && state.rng.chance(500)
        {
            return Ruling::After(state.rng.within(late));
        }
        if let Some(slow) = state.slow
            && state.rng.chance(100)
        {
            return Ruling::After(state.rng.within(slow));
        }
        let skip = state.skip_per_mille;
        if skip > 0 && state.rng.chance(skip) { Ruling::Later } else { Ruling::Poll }
    }
}

/// A task, counted as long as it lives.
struct Counted(Arc<Gate>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project_lite::pin_project! {
    struct Gated<F> {
        task: Counted,
        time: Arc<dyn Time>,
        is_new: bool,
        delay: Option<Sleep>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let served = match this.delay {
            Some(delay) => delay.as_mut().poll(cx).is_ready(),
            None => false,
        };
        if this.delay.is_some() && !served {
            return Poll::Pending;
        }
        *this.delay = None;
        let gate = &this.task.0;
        match gate.rule(cx.waker(), std::mem::take(this.is_new)) {
            Ruling::Withheld => return Poll::Pending,
            Ruling::Later => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // A poll that has waited does not wait again.
            Ruling::After(wait) if !served => {
                let mut delay = this.time.sleep(wait);
                if delay.as_mut().poll(cx).is_pending() {
                    *this.delay = Some(delay);
                    return Poll::Pending;
                }
            }
            Ruling::After(_) | Ruling::Poll => {}
        }
        let _host = trace::on(&gate.name);
        this.future.poll(cx)
    }
}

/// Lets other tasks have a turn. Tokio's own needs tokio's scheduler, which is not every engine's.
pub(super) async fn turn() {
    let mut had = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Tasks of one process.
pub struct SimSpawn {
    gate: Arc<Gate>,
    time: Arc<dyn Time>,
    run: fn(BoxTask) -> Box<dyn Abort>,
}

impl SimSpawn {
    /// Tasks behind a gate, run by the engine.
    pub fn new(gate: Arc<Gate>, time: Arc<dyn Time>, run: fn(BoxTask) -> Box<dyn Abort>) -> Self {
        SimSpawn { gate, time, run }
    }
}

impl Spawn for SimSpawn {
    fn spawn(&self, task: BoxTask) -> Box<dyn Abort> {
        (self.run)(Box::pin(self.gate.guard(self.time.clone(), task)))
    }

    // There are no threads in here: it is done before the next task runs, and takes no time.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time that the test lets pass.
    #[derive(Default)]
    struct Hand(Arc<Mutex<Duration>>);

    impl Time for Hand {
        fn elapsed(&self) -> Duration {
            *hold(&self.0)
        }

        fn sleep(&self, duration: Duration) -> Sleep {
            let (now, until) = (self.0.clone(), self.elapsed() + duration);
            Box::pin(std::future::poll_fn(move |_| if *hold(&now) >= until { Poll::Ready(()) } else { Poll::Pending }))
        }
    }

    /// How many of a hundred new tasks are through by now, and a second later.
    fn begun(gate: &Arc<Gate>) -> (usize, usize) {
        let time = Arc::new(Hand::default());
        let guard = |_| Box::pin(gate.guard(time.clone(), turn()));
        let mut tasks: Vec<_> = (0..100).map(guard).collect();
        let mut poll = || {
            let mut poll =
                || tasks.retain_mut(|task| task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            // Each gives others one turn.
            (poll(), poll());
            100 - tasks.len()
        };
        let before = poll();
        *hold(&time.0) = Duration::from_secs(1);
        (before, poll())
    }

    #[test]
    fn half_of_the_new_tasks_are_late() {
        let gate = Arc::new(Gate::new("n1", Rng::new(7)));
        assert_eq!(begun(&gate), (100, 100));
        gate.set_late(Some(Duration::from_millis(400)));
        let (before, after) = begun(&gate);
        assert!((30..70).contains(&before), "{before} of 100 began at once");
        assert_eq!(after, 100, "and none waits twice");
        assert_eq!(gate.tasks(), 0);
    }

    #[test]
    fn a_task_that_lets_others_go_first_is_not_late_for_that() {
        let gate = Arc::new(Gate::new("n1", Rng::new(7)));
        gate.set_late(Some(Duration::from_millis(400)));
        gate.set_jitter(900);
        let late = |_: &usize| {
            let mut task = Box::pin(gate.guard(Arc::new(Hand::default()), turn()));
            // Time stands still: whoever is not through after this many turns waits for it.
            (0..1000).all(|_| task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending())
        };
        let late = (0..100_usize).filter(late).count();
        assert!((30..70).contains(&late), "{late} of 100 were late");
    }
}
