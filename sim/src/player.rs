//! Who acts in a run, and by what name.
//!
//! A [`Player`] is no more than a name: what it does is in `workload`, and who plays in a run says its scene's
//! [cast](crate::scene::Scene::cast). Timeline, page, verdicts and `--without` all call it by the same one.

use std::fmt;

/// What a player does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `workload::kv`
    Client,
    /// `workload::locks`
    Locker,
    /// `workload::waits`
    Watcher,
    /// `workload::counters`
    Counter,
    /// `workload::streams`
    Reader,
    /// `workload::tenants`
    Tenant,
    /// `workload::operator`
    Operator,
    /// `observer`
    Observer,
}

/// One client. In the order of the cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Player {
    /// Counted from 1 over the whole cast: no two players write the same value, because they make theirs of it.
    pub number: u32,
    /// What it does.
    pub role: Role,
    /// Counted from 1 over those who do the same.
    pub nth: u32,
}

/// `c2`, `l1`; of operators and observers there is one.
impl fmt::Display for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.role {
            Role::Client => 'c',
            Role::Locker => 'l',
            Role::Watcher => 'w',
            Role::Counter => 'i',
            Role::Reader => 'r',
            Role::Tenant => 't',
            Role::Operator => return f.write_str("op"),
            Role::Observer => return f.write_str("obs"),
        };
        write!(f, "{letter}{}", self.nth)
    }
}

#[cfg(test)]
impl Player {
    /// A client of registers, and nobody else.
    pub fn client(number: u32) -> Self {
        Player { number, role: Role::Client, nth: number }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scene::{Options, Scene};

    #[test]
    fn no_two_players_have_the_same_name() {
        for seed in 1..=100 {
            let cast = Scene::draw(seed, &Options::of_everything()).cast();
            let names: BTreeSet<String> = cast.iter().map(Player::to_string).collect();
            assert_eq!(names.len(), cast.len(), "{names:?}");
        }
    }
}
