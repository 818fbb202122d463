//! Real-time order in O(n log n): the greatest number known before a moment, and the least known after it, each with the
//! operation that showed it.

use crate::history::Operation;

/// A number that an operation shows, at the moment at which it counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub moment: u64,
    pub number: u64,
    pub by: &'a Operation,
}

/// Answers: what was the greatest number shown before a moment?
pub(super) struct Past<'a>(Vec<Shown<'a>>);

impl<'a> Past<'a> {
    /// `moment` is an operation's end.
    pub fn new(shown: impl IntoIterator<Item = Shown<'a>>) -> Self {
        let mut shown: Vec<Shown<'a>> = shown.into_iter().collect();
        shown.sort_by_key(|shown| shown.moment);
        for i in 1..shown.len() {
            if shown[i].number < shown[i - 1].number {
                shown[i] = Shown { moment: shown[i].moment, ..shown[i - 1] };
            }
        }
        Past(shown)
    }

    /// The greatest number shown strictly before `moment`.
    pub fn before(&self, moment: u64) -> Option<Shown<'a>> {
        let count = self.0.partition_point(|shown| shown.moment < moment);
        count.checked_sub(1).map(|last| self.0[last])
    }
}

/// Answers: what is the least number shown after a moment?
pub(super) struct Future<'a>(Vec<Shown<'a>>);

impl<'a> Future<'a> {
    /// `moment` is an operation's start.
    pub fn new(shown: impl IntoIterator<Item = Shown<'a>>) -> Self {
        let mut shown: Vec<Shown<'a>> = shown.into_iter().collect();
        shown.sort_by_key(|shown| shown.moment);
        for i in (1..shown.len()).rev() {
            if shown[i].number < shown[i - 1].number {
                shown[i - 1] = Shown { moment: shown[i - 1].moment, ..shown[i] };
            }
        }
        Future(shown)
    }

    /// The least number shown strictly after `moment`.
    pub fn after(&self, moment: u64) -> Option<Shown<'a>> {
        self.0.get(self.0.partition_point(|shown| shown.moment <= moment)).copied()
    }
}
