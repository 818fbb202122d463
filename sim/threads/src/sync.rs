//! `quorate::sync` over shuttle: its locks, and a `Notify` with the semantics of tokio's that our hand-offs rely on.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

pub use shuttle::sync::{Mutex, MutexGuard};
pub use std::sync::{Arc, PoisonError};

/// One permit for the next who asks; or all who have asked, whether polled or not.
#[derive(Default)]
pub struct Notify(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    permit: bool,
    /// How often all were notified.
    rounds: u64,
    waiting: VecDeque<Waker>,
}

impl Notify {
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn notify_one(&self) {
        let woken = {
            let mut inner = self.inner();
            inner.permit = true;
            inner.waiting.pop_front()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    pub fn notify_waiters(&self) {
        let woken = {
            let mut inner = self.inner();
            inner.rounds += 1;
            std::mem::take(&mut inner.waiting)
        };
        woken.into_iter().for_each(Waker::wake);
    }

    pub fn notified(&self) -> Notified<'_> {
        Notified { notify: self, round: self.inner().rounds }
    }
}

pub struct Notified<'a> {
    notify: &'a Notify,
    round: u64,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.notify.inner();
        if inner.rounds > self.round || std::mem::take(&mut inner.permit) {
            return Poll::Ready(());
        }
        inner.waiting.push_back(cx.waker().clone());
        Poll::Pending
    }
}
