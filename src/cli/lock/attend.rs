//! While the child runs: the supervisor is told of each new deadline, and stops the child when the lock is lost or a signal says so.
//!
//! The supervisor stops the child by itself before the lease ends. Here is only what it cannot know, and a second line behind it:
//! if it does not do what it must, it is killed, and the child with it.

use std::pin::pin;

use super::held::Held;
use crate::client::keeper::{Loss, Standing};
use crate::limits;
use crate::world::real::Signals;
use crate::world::real::supervise::{self, Event, Exit, Job, Supervised};
use crate::world::{Instant, World};

/// Why the child was stopped, or never ran.
pub enum Reason {
    /// A signal said so.
    Asked,
    /// The lock was lost.
    Lost(Loss),
    /// Its lease is about to end, because of this trouble with renewals.
    Late(String),
    /// The supervisor was killed.
    Unsupervised,
    /// It could not be started, and why.
    Unstarted(String),
}

/// A child that runs.
pub struct Attendance<'a> {
    world: World,
    held: &'a Held,
    child: Supervised,
    job: Job,
    /// The end of the lease.
    until: Instant,
    /// Why the last renewal had no answer.
    trouble: Option<String>,
    /// Why it is being stopped, and when its supervisor's patience with it has ended.
    stopped: Option<(Reason, Instant)>,
    /// Whether the supervisor was killed, because it hung.
    gave_up: bool,
    /// What is told to who wants to know.
    say: &'a mut (dyn FnMut(String) + Send),
}

impl<'a> Attendance<'a> {
    /// Starts the child.
    pub fn begin(
        world: World,
        held: &'a Held,
        job: Job,
        say: &'a mut (dyn FnMut(String) + Send),
    ) -> Result<Attendance<'a>, Reason> {
        let until = held.until().ok_or_else(|| Reason::Late(HELD_UP.into()))?;
        let child = supervise::start(&job, until).map_err(|error| Reason::Unstarted(error.to_string()))?;
        Ok(Attendance { world, held, child, job, until, trouble: None, stopped: None, gave_up: false, say })
    }

    /// Until the child has ended: how, if that is known, and why it was stopped, if it was.
    pub async fn attend(mut self, signals: &mut Signals) -> (Option<Exit>, Option<Reason>) {
        let held = self.held;
        let mut standing = held.keeper().watch();
        let mut lost = pin!(held.lost());
        loop {
            let running = self.stopped.is_none();
            let overdue = self.world.clock.sleep_until(self.last_moment());
            tokio::select! {
                biased;
                event = self.child.next() => if let Some(exit) = self.hear(event).await {
                    return (exit, self.stopped.map(|(reason, _)| reason));
                },
                loss = &mut lost, if running => {
                    (self.say)(format!("The lock is lost: {loss}"));
                    self.stop(Reason::Lost(loss));
                }
                signal = signals.next(), if running => {
                    (self.say)(format!("Stopping on {signal:?}"));
                    self.stop(Reason::Asked);
                }
                Ok(()) = standing.changed() => {
                    let now = standing.borrow_and_update().clone();
                    self.note(now);
                }
                () = overdue, if !self.gave_up => self.give_up_on_supervisor(),
            }
        }
    }

    /// What the supervisor tells. How the child has ended, once it has.
    async fn hear(&mut self, event: Event) -> Option<Option<Exit>> {
        match event {
            Event::Started(pid) => (self.say)(format!("CHILD runs as process {pid}")),
            Event::Stopping(how) => {
                (self.say)(format!("CHILD is being stopped {how}"));
                self.late();
            }
            Event::Ended(exit) => {
                (self.say)(format!("CHILD has ended: {}", shown(exit)));
                return Some(Some(exit));
            }
            Event::Failed(why) => {
                self.stopped = Some((Reason::Unstarted(why), self.until));
                return Some(None);
            }
            Event::Gone => {
                self.stopped.get_or_insert((Reason::Unsupervised, self.until));
                self.bury().await;
                return Some(None);
            }
        }
        None
    }

    fn late(&mut self) {
        let why = self.trouble.clone().unwrap_or_else(|| HELD_UP.into());
        self.stopped.get_or_insert((Reason::Late(why), self.until));
    }

    fn stop(&mut self, reason: Reason) {
        self.child.stop();
        self.stopped = Some((reason, self.world.clock.now() + 2 * limits::LOCK_STOP));
    }

    fn note(&mut self, standing: Standing) {
        let Standing::Held { until, trouble } = standing else { return };
        self.until = until;
        self.child.extend(until);
        if let Some(why) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            (self.say)(format!("The lease is not renewed: {why}"));
        }
        self.trouble = trouble;
    }

    /// When the child must have ended: the supervisor was to kill it before.
    fn last_moment(&self) -> Instant {
        let end = self.until - self.job.margins.kill / 2;
        self.stopped.as_ref().map_or(end, |(_, patience)| end.min(*patience))
    }

    fn give_up_on_supervisor(&mut self) {
        // A sleep may end early by a rounding; what it waits for is looked at again.
        if self.world.clock.now() >= self.last_moment() {
            (self.say)("The supervisor of CHILD hangs: killing both".into());
            self.late();
            // Once is enough: its end is what is waited for now.
            self.gave_up = true;
            self.child.kill_all();
        }
    }

    /// The supervisor is gone: kills what it ran, and waits until that is gone too, or until its lease has ended.
    async fn bury(&self) {
        let until = self.held.until().unwrap_or_default();
        self.child.kill_group();
        while self.child.group_lives() && self.world.clock.now() < until {
            self.world.sleep(limits::LOCK_GONE_POLL).await;
        }
    }
}

/// Why there is trouble, if the agent has not made it.
const HELD_UP: &str = "this process was held up";

fn shown(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
    }
}
