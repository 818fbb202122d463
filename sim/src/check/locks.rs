//! Locks and fences (guarantees.md L1, L2, L4, L10, L11): what clients believed, in true time, never contradicts itself.
//!
//! | invariant | what is looked at |
//! |---|---|
//! | L1 | the claims on a lock by different clients, or under different fences, do not overlap |
//! | L2 | a claim that begins after another has ended has a larger fence, unless it is the same hold |
//! | L4 | in the order of their revisions, the fences of the writes beside a lock do not fall |
//! | L10 | nobody is granted a lock inside the delay of a session that was destroyed |
//! | L11 | who was seen in the queue is granted the lock before who asked after that |

use std::time::Duration;

use super::verdict::Verdict;
use crate::workload::locks::{Book, Claim, Glimpse, Grant};
use crate::workload::restores::Restores;

/// By how much log time may run fast: ρ, in parts of a million.
const FAST: u32 = 10_000;

/// Judges a book. What a restore brought back beside a lock was written before it.
pub fn check(book: &Book, restores: &Restores) -> Verdict {
    let violation = |invariant, sentence: String| Some(Verdict::violation(invariant, sentence, []));
    let split =
        || overlap(book).and_then(|(one, other)| violation("L1", format!("two believe at once: {one}, and {other}")));
    let fallen =
        || falling(book).and_then(|(one, other)| violation("L2", format!("a fence fell: {one}, and then {other}")));
    let late = || {
        stale_write(book, restores)
            .and_then(|(one, other)| violation("L4", format!("written under {one:?}, and later under {other:?}")))
    };
    let early = || inside_delay(book).and_then(|text| violation("L10", text));
    let overtaken = || overtaking(book).and_then(|text| violation("L11", text));
    split().or_else(fallen).or_else(late).or_else(early).or_else(overtaken).unwrap_or(Verdict::Ok)
}

/// Claims in the order of their beginnings, each with those that come after it.
fn pairs(book: &Book) -> impl Iterator<Item = (Claim, Claim)> {
    let mut claims = book.claims.clone();
    claims.sort_by(|a, b| (&a.lock, a.from, a.fence).cmp(&(&b.lock, b.from, b.fence)));
    let rest = claims.clone();
    claims.into_iter().enumerate().flat_map(move |(place, one)| {
        let later = rest[place + 1..].to_vec();
        let lock = one.lock.clone();
        later.into_iter().take_while(move |other| other.lock == lock).map(move |other| (one.clone(), other))
    })
}

fn overlap(book: &Book) -> Option<(Claim, Claim)> {
    pairs(book).find(|(one, other)| other.from < one.until && (one.client != other.client || one.fence != other.fence))
}

fn falling(book: &Book) -> Option<(Claim, Claim)> {
    let same = |one: &Claim, other: &Claim| one.client == other.client && one.fence == other.fence;
    pairs(book).find(|(one, other)| other.fence <= one.fence && !same(one, other))
}

type Write = crate::workload::locks::FencedWrite;

fn stale_write(book: &Book, restores: &Restores) -> Option<(Write, Write)> {
    let mut writes = book.writes.clone();
    writes.retain(|write| !restores.may_be(write.revision));
    writes.sort_by(|a, b| (&a.lock, a.revision).cmp(&(&b.lock, b.revision)));
    let falls = |two: &&[Write]| two[0].lock == two[1].lock && two[1].fence < two[0].fence;
    writes.windows(2).find(falls).map(|two| (two[0].clone(), two[1].clone()))
}

fn inside_delay(book: &Book) -> Option<String> {
    book.destroyed.iter().find_map(|end| {
        // Log time runs at most this much faster than true time.
        let free = end.sent + end.delay * (1_000_000 - FAST) / 1_000_000;
        let next = book.claims.iter().filter(|claim| claim.lock == end.lock && claim.fence > end.fence);
        let early = next.filter(|claim| claim.from < free).min_by_key(|claim| claim.from)?;
        (end.delay > Duration::ZERO).then(|| format!("{early}, inside the delay of {end:?}"))
    })
}

/// A request in the queue is in it from when it was seen there to its answer. It counts only if it was asked before it was
/// seen, so that it, and no earlier one, is what was seen; and what is granted again is no new grant.
fn overtaking(book: &Book) -> Option<String> {
    let waited = book.grants.iter().filter(|grant| grant.queued);
    waited.filter_map(|late| Some((late, overtaker(book, late)?))).next().map(|(late, early)| {
        format!("{early:?} was asked for after {late:?} was seen in the queue, and granted before it")
    })
}

fn overtaker<'a>(book: &'a Book, late: &Grant) -> Option<&'a Grant> {
    let sees = |glimpse: &&Glimpse| glimpse.lock == late.lock && glimpse.queue.contains(&late.session);
    let seen = book
        .glimpses
        .iter()
        .filter(sees)
        .filter(|glimpse| late.sent < glimpse.seen.0 && glimpse.seen.1 < late.answered);
    let seen = seen.map(|glimpse| glimpse.seen.1).min()?;
    book.grants.iter().find(|early| {
        let first = || !book.grants.iter().any(|other| other.fence == early.fence && other.sent < early.sent);
        early.lock == late.lock && early.fence < late.fence && early.sent > seen && first()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::player::Player;
    use crate::workload::locks::{Destroyed, FencedWrite};

    fn claim(number: u32, fence: u64, from: u64, until: u64) -> Claim {
        let (from, until) = (Duration::from_millis(from), Duration::from_millis(until));
        Claim { client: Player::client(number), lock: "l".into(), fence, from, until }
    }

    fn write(fence: u64, revision: u64) -> FencedWrite {
        FencedWrite { lock: "l".into(), fence, revision }
    }

    fn invariant(book: &Book) -> Option<&'static str> {
        match check(book, &Restores::default()) {
            Verdict::Violation(violation) => Some(violation.invariant),
            _ => None,
        }
    }

    #[test]
    fn holds_one_after_another_are_good() {
        let claims = vec![claim(1, 5, 0, 10), claim(2, 7, 10, 20), claim(2, 7, 20, 30), claim(1, 9, 30, 40)];
        let writes = vec![write(9, 12), write(5, 6), write(7, 8), write(5, 6)];
        assert_eq!(invariant(&Book { claims, writes, ..Book::default() }), None);
    }

    #[test]
    fn each_contradiction_is_found() {
        let of_claims = |claims: &[Claim]| invariant(&Book { claims: claims.to_vec(), ..Book::default() });
        assert_eq!(of_claims(&[claim(1, 5, 0, 11), claim(2, 7, 10, 20)]), Some("L1"));
        assert_eq!(of_claims(&[claim(1, 5, 0, 30), claim(2, 7, 40, 50), claim(3, 8, 20, 35)]), Some("L1"));
        assert_eq!(of_claims(&[claim(1, 7, 0, 10), claim(2, 5, 10, 20)]), Some("L2"));
        assert_eq!(of_claims(&[claim(1, 7, 0, 10), claim(2, 7, 10, 20)]), Some("L2"));
        let writes = vec![write(5, 6), write(7, 8), write(5, 9)];
        assert_eq!(invariant(&Book { writes, ..Book::default() }), Some("L4"));
    }

    #[test]
    fn who_is_seen_in_the_queue_must_not_be_overtaken() {
        let at = Duration::from_millis;
        let grant = |session: &str, sent, answered, fence, queued| Grant {
            lock: "l".into(),
            session: session.into(),
            queued,
            sent: at(sent),
            answered: at(answered),
            fence,
        };
        let seen = |from, until| Glimpse { lock: "l".into(), seen: (at(from), at(until)), queue: vec!["a".into()] };
        let of = |grants: &[Grant], glimpse: Glimpse| {
            invariant(&Book { grants: grants.to_vec(), glimpses: vec![glimpse], ..Book::default() })
        };
        let waits = grant("a", 10, 90, 9, true);
        for overtakes in [true, false] {
            assert_eq!(of(&[waits.clone(), grant("b", 40, 50, 7, overtakes)], seen(20, 30)), Some("L11"));
        }
        assert_eq!(
            of(&[waits.clone(), grant("b", 29, 50, 7, true)], seen(20, 30)),
            None,
            "asked before the look ended"
        );
        assert_eq!(of(&[waits.clone(), grant("b", 40, 95, 11, true)], seen(20, 30)), None, "granted after it");
        assert_eq!(of(&[waits.clone(), grant("b", 40, 50, 7, true)], seen(5, 30)), None, "seen before it asked");
        assert_eq!(of(&[waits.clone(), grant("b", 92, 95, 7, true)], seen(91, 91)), None, "seen after its answer");
        let again = [grant("b", 1, 2, 7, true), waits, grant("b", 40, 50, 7, true)];
        assert_eq!(of(&again, seen(20, 30)), None, "held before, and asked for again");
    }

    #[test]
    fn a_grant_inside_a_delay_is_found_and_one_at_its_end_is_not() {
        let (delay, sent) = (Duration::from_millis(1_000), Duration::from_millis(100));
        let destroyed = vec![Destroyed { lock: "l".into(), fence: 5, delay, sent }];
        let book =
            |from| Book { claims: vec![claim(2, 7, from, 9_000)], destroyed: destroyed.clone(), ..Book::default() };
        assert_eq!(invariant(&book(1_089)), Some("L10"));
        assert_eq!(invariant(&book(1_090)), None);
    }
}
