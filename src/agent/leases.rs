//! The leases of sessions, as their leader keeps them (guarantees.md G1): a value that is told the time and what the state
//! says, and tells what to propose. It knows no clock, no task and no network.
//!
//! A session with a TTL is alive until its lease has run out on the leader's clock, and then until an entry of the log ends
//! it. The leader moves a lease with each renewal that it answers. Nobody else's leases count: a new leader knows nothing of
//! the renewals that the old one answered, so it gives every session its whole TTL.
//!
//! The points of G1 that are kept here: 1 (with the caller, who has had its lead confirmed by a round that began after the
//! request came), 2, 3, 4 and 7. Points 5, 6 and 8 are the state's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use crate::limits;
use crate::state::Standing;
use crate::world::Instant;

/// The leases of one server: empty unless it leads. A renewal costs the logarithm of their number.
#[derive(Debug, Default)]
pub struct Leases {
    /// The term that this server leads in, once it has applied its first entry.
    term: Option<u64>,
    leases: BTreeMap<Uuid, Lease>,
    /// The leases whose end has not been proposed, by when they run out.
    queue: BTreeSet<(Instant, Uuid)>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl: Duration,
    /// When it runs out.
    until: Instant,
    /// Its end was proposed, and the log has not said yet what became of that.
    ending: bool,
}

/// What came of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The session lives for at least this long from now.
    Granted(Duration),
    /// The session has no TTL: there is nothing to renew.
    Endless,
    /// There is no such session.
    Gone,
    /// A check that the session named is critical (G1.7).
    Refused,
    /// The end of the session has been proposed: ask again when the log has decided (G1.4).
    Undecided,
    /// This server does not lead, or not yet.
    Elsewhere,
}

/// A session whose lease has run out. To be proposed once, and only in this term (G1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// The session.
    pub session: Uuid,
    /// The term whose leader decided it.
    pub term: u64,
}

impl Leases {
    /// This server leads in `term` and has applied its first entry. Every session with a TTL has all of it before it, from now
    /// on (G1.2).
    pub fn lead(&mut self, term: u64, now: Instant, sessions: impl IntoIterator<Item = (Uuid, Duration)>) {
        *self = Leases { term: Some(term), ..Leases::default() };
        for (session, ttl) in sessions {
            self.begin(session, ttl, now);
        }
    }

    /// This server leads no more. Expiries under way are the log's affair.
    pub fn follow(&mut self) {
        *self = Leases::default();
    }

    /// The term that this server leads in.
    pub fn term(&self) -> Option<u64> {
        self.term
    }

    /// What an entry of the log has left of a session: new ones have their TTL before them, ended ones are forgotten.
    pub fn learn(&mut self, session: Uuid, standing: Standing, now: Instant) {
        if self.term.is_none() {
            return;
        }
        match standing {
            Standing::Renewable(ttl) | Standing::Condemned(ttl) if !self.leases.contains_key(&session) => {
                self.begin(session, ttl, now);
            }
            Standing::Renewable(_) | Standing::Condemned(_) => {}
            Standing::Gone | Standing::Endless => self.forget(session),
        }
    }

    /// A renewal that came before a round of the quorum in which this server led, where `standing` is what the state says
    /// after that round (G1.1).
    pub fn renew(&mut self, session: Uuid, standing: Standing, now: Instant) -> Renewal {
        if self.term.is_none() {
            return Renewal::Elsewhere;
        }
        let ttl = match standing {
            Standing::Gone => return Renewal::Gone,
            Standing::Endless => return Renewal::Endless,
            Standing::Renewable(_) | Standing::Condemned(_) if self.is_ending(session) => return Renewal::Undecided,
            Standing::Condemned(_) => return Renewal::Refused,
            Standing::Renewable(ttl) => ttl,
        };
        self.begin(session, ttl, now);
        Renewal::Granted(ttl)
    }

    /// Up to `most` sessions whose lease has run out, each given once: from now on the log decides.
    pub fn expire(&mut self, now: Instant, most: usize) -> Vec<Expiry> {
        let Some(term) = self.term else { return Vec::new() };
        let mut expired = Vec::new();
        while expired.len() < most
            && self.next().is_some_and(|until| until <= now)
            && let Some((_, session)) = self.queue.pop_first()
        {
            if let Some(lease) = self.leases.get_mut(&session) {
                lease.ending = true;
            }
            expired.push(Expiry { session, term });
        }
        expired
    }

    /// The log has decided about an expiry. If the session is still there, which the state then had a reason for, it goes on
    /// with a new lease.
    pub fn decided(&mut self, expiry: Expiry, now: Instant) {
        let ttl = self.leases.get(&expiry.session).filter(|lease| lease.ending).map(|lease| lease.ttl);
        if let Some(ttl) = ttl.filter(|_| self.term == Some(expiry.term)) {
            self.begin(expiry.session, ttl, now);
        }
    }

    /// When the next lease runs out.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(until, _)| *until)
    }

    /// How many sessions have one.
    pub fn count(&self) -> usize {
        self.leases.len()
    }

    fn is_ending(&self, session: Uuid) -> bool {
        self.leases.get(&session).is_some_and(|lease| lease.ending)
    }

    /// Gives a session its whole TTL, from now on.
    fn begin(&mut self, session: Uuid, ttl: Duration, now: Instant) {
        let lease = Lease { ttl, until: now + ttl, ending: false };
        if let Some(old) = self.leases.insert(session, lease) {
            self.queue.remove(&(old.until, session));
        }
        self.queue.insert((lease.until, session));
    }

    fn forget(&mut self, session: Uuid) {
        if let Some(old) = self.leases.remove(&session) {
            self.queue.remove(&(old.until, session));
        }
    }
}

/// How long a client may rely on a session after it *sent* the request that was granted: the TTL as a clock measures it that is
/// as fast as ours may be slow, less a margin (G1).
pub fn promised(ttl: Duration) -> Duration {
    let rate = limits::CLOCK_RATE_PPM;
    (ttl * (1_000_000 - rate) / (1_000_000 + rate)).saturating_sub(limits::LEASE_MARGIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(10);
    const ALIVE: Standing = Standing::Renewable(TTL);

    fn session(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    /// A leader of term 5, ready at 0, with session 1.
    fn leader() -> Leases {
        let mut leases = Leases::default();
        leases.lead(5, at(0), [(session(1), TTL)]);
        leases
    }

    #[test]
    fn a_server_that_does_not_lead_or_is_not_ready_renews_and_expires_nothing() {
        let mut leases = Leases::default();
        leases.learn(session(1), ALIVE, at(0));
        assert_eq!(leases.renew(session(1), ALIVE, at(1)), Renewal::Elsewhere);
        let mut leases = leader();
        leases.follow();
        assert_eq!(leases.renew(session(1), ALIVE, at(1)), Renewal::Elsewhere);
        assert_eq!((leases.next(), leases.expire(at(99_999), 9), leases.term()), (None, Vec::new(), None));
    }

    #[test]
    fn a_renewal_is_granted_only_to_a_session_that_the_state_has() {
        let mut leases = leader();
        assert_eq!(leases.renew(session(1), Standing::Gone, at(1)), Renewal::Gone, "whatever the leases say");
        assert_eq!(leases.renew(session(2), Standing::Gone, at(1)), Renewal::Gone);
        assert_eq!(leases.renew(session(2), ALIVE, at(1)), Renewal::Granted(TTL), "whatever the leases say");
        assert_eq!(leases.renew(session(3), Standing::Endless, at(1)), Renewal::Endless);
        assert_eq!(leases.count(), 2, "a session without a TTL has no lease");
    }

    #[test]
    fn a_lease_runs_out_exactly_its_ttl_after_the_last_renewal() {
        let mut leases = leader();
        assert_eq!(leases.renew(session(1), ALIVE, at(7_000)), Renewal::Granted(TTL));
        assert_eq!(leases.next(), Some(at(17_000)));
        assert_eq!(leases.expire(at(16_999), 9), []);
        assert_eq!(leases.expire(at(17_000), 9), [Expiry { session: session(1), term: 5 }]);
    }

    #[test]
    fn a_new_leader_gives_every_session_its_whole_ttl_from_when_it_is_ready() {
        let mut leases = leader();
        leases.lead(7, at(9_000), [(session(1), TTL), (session(2), TTL)]);
        assert_eq!(leases.expire(at(18_999), 9), []);
        let expiry = |number| Expiry { session: session(number), term: 7 };
        assert_eq!(leases.expire(at(19_000), 9), [expiry(1), expiry(2)]);
        leases.lead(9, at(20_000), [(session(2), TTL)]);
        assert_eq!(leases.count(), 1, "what ended under another leader is not remembered");
    }

    #[test]
    fn an_expiry_names_its_term_and_comes_once() {
        let mut leases = leader();
        assert_eq!(leases.expire(at(10_000), 9), [Expiry { session: session(1), term: 5 }]);
        leases.learn(session(1), ALIVE, at(11_000));
        assert_eq!(leases.expire(at(99_000), 9), [], "nothing but the log's word or a new term brings it back");
        assert_eq!(leases.next(), None);
        leases.lead(6, at(99_000), [(session(1), TTL)]);
        assert_eq!(leases.expire(at(109_000), 9), [Expiry { session: session(1), term: 6 }]);
        leases.decided(Expiry { session: session(1), term: 5 }, at(109_500));
        assert_eq!(leases.renew(session(1), ALIVE, at(109_501)), Renewal::Undecided, "that was another term's");
    }

    #[test]
    fn a_renewal_waits_while_the_end_is_undecided() {
        let mut leases = leader();
        let [expiry] = leases.expire(at(10_000), 9)[..] else { panic!("it has run out") };
        for standing in [ALIVE, Standing::Condemned(TTL)] {
            assert_eq!(leases.renew(session(1), standing, at(10_001)), Renewal::Undecided);
        }
        assert_eq!(leases.renew(session(1), Standing::Gone, at(10_002)), Renewal::Gone, "applied");
        leases.decided(expiry, at(10_003));
        assert_eq!(leases.renew(session(1), ALIVE, at(10_004)), Renewal::Granted(TTL), "discarded");
        assert_eq!(leases.next(), Some(at(20_004)));
    }

    #[test]
    fn a_condemned_session_is_not_renewed_and_ends_with_its_last_lease() {
        let mut leases = leader();
        leases.renew(session(1), ALIVE, at(2_000));
        assert_eq!(leases.renew(session(1), Standing::Condemned(TTL), at(5_000)), Renewal::Refused);
        leases.learn(session(1), Standing::Condemned(TTL), at(6_000));
        assert_eq!(leases.next(), Some(at(12_000)));
        assert_eq!(leases.expire(at(12_000), 9).len(), 1);
    }

    #[test]
    fn a_session_that_ended_leaves_nothing_behind() {
        let mut leases = leader();
        leases.learn(session(2), ALIVE, at(1_000));
        assert_eq!(leases.expire(at(10_000), 9).len(), 1);
        leases.learn(session(1), Standing::Gone, at(10_001));
        leases.learn(session(2), Standing::Gone, at(10_002));
        assert_eq!((leases.count(), leases.queue.len()), (0, 0));
    }

    #[test]
    fn no_more_expire_at_once_than_are_asked_for_and_the_rest_is_still_due() {
        let mut leases = Leases::default();
        leases.lead(1, at(0), (0..5).map(|number| (session(number), TTL)));
        assert_eq!(leases.expire(at(10_000), 2).len(), 2);
        assert_eq!(leases.next(), Some(at(10_000)));
        assert_eq!(leases.expire(at(10_000), 9).len(), 3);
    }

    #[test]
    fn the_promise_is_short_by_what_two_clocks_may_differ_and_the_margin() {
        assert_eq!(promised(Duration::from_secs(101)), Duration::from_secs(99) - limits::LEASE_MARGIN);
        assert!(promised(Duration::from_secs(86_400)) > Duration::from_secs(84_600), "nothing overflows");
        assert_eq!(promised(Duration::ZERO), Duration::ZERO);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Pass(u64),
        Learn(u128, bool),
        Renew(u128),
        Expire(usize),
        Decide(bool),
        Lead,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_000u64).prop_map(Step::Pass),
            (0..4u128, any::<bool>()).prop_map(|(number, there)| Step::Learn(number, there)),
            (0..4u128).prop_map(Step::Renew),
            (1..3usize).prop_map(Step::Expire),
            any::<bool>().prop_map(Step::Decide),
            Just(Step::Lead),
        ]
    }

    proptest! {
        /// L5 and G4 against the plainest model: the sessions that exist, with when each may end.
        #[test]
        fn nothing_expires_early_or_twice_and_nothing_is_forgotten(steps in proptest::collection::vec(step(), 1..80)) {
            let (mut leases, mut model) = (Leases::default(), BTreeMap::<u128, Instant>::new());
            let (mut term, mut now, mut undecided) = (1, at(0), Vec::<Expiry>::new());
            leases.lead(term, now, []);
            for step in steps {
                match step {
                    Step::Pass(millis) => now = now + Duration::from_millis(millis),
                    Step::Learn(number, true) => {
                        leases.learn(session(number), ALIVE, now);
                        model.entry(number).or_insert(now + TTL);
                    }
                    Step::Learn(number, false) => {
                        leases.learn(session(number), Standing::Gone, now);
                        model.remove(&number);
                        undecided.retain(|expiry| expiry.session != session(number));
                    }
                    Step::Renew(number) => {
                        let there = model.contains_key(&number);
                        let standing = if there { ALIVE } else { Standing::Gone };
                        let ending = undecided.iter().any(|expiry| expiry.session == session(number));
                        let expected = match (there, ending) {
                            (false, _) => Renewal::Gone,
                            (true, true) => Renewal::Undecided,
                            (true, false) => Renewal::Granted(TTL),
                        };
                        prop_assert_eq!(leases.renew(session(number), standing, now), expected);
                        if expected == Renewal::Granted(TTL) {
                            model.insert(number, now + TTL);
                        }
                    }
                    Step::Expire(most) => {
                        for expiry in leases.expire(now, most) {
                            prop_assert_eq!(expiry.term, term);
                            prop_assert!(model[&expiry.session.as_u128()] <= now, "early");
                            prop_assert!(!undecided.contains(&expiry), "twice");
                            undecided.push(expiry);
                        }
                    }
                    Step::Decide(ended) => {
                        let Some(expiry) = undecided.pop() else { continue };
                        if ended {
                            leases.learn(expiry.session, Standing::Gone, now);
                            model.remove(&expiry.session.as_u128());
                        } else {
                            model.insert(expiry.session.as_u128(), now + TTL);
                        }
                        leases.decided(expiry, now);
                    }
                    Step::Lead => {
                        term += 1;
                        undecided.clear();
                        model.values_mut().for_each(|until| *until = now + TTL);
                        leases.lead(term, now, model.keys().map(|number| (session(*number), TTL)));
                    }
                }
                let waiting = model.iter().filter(|(number, _)| {
                    !undecided.iter().any(|expiry| expiry.session == session(**number))
                });
                prop_assert_eq!(leases.next(), waiting.map(|(_, until)| *until).min());
                prop_assert_eq!(leases.count(), model.len());
            }
        }
    }
}
