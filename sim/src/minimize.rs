//! `cargo sim minimize`: the fewest faults, clients and operations with which a seed still fails.
//!
//! Delta debugging (Zeller and Hildebrandt 2002) over what a run is made of: the faults of the plan, the clients, the length
//! of the storm, the operations of each client. A smaller run is another run, so it counts only if the same checker finds
//! something. Each step that helps is printed; the end is a command.

use std::time::Duration;

use crate::engine::Engine;
use crate::player::{Player, Role};
use crate::run::{self, Report};
use crate::scene::{Options, Scene};
use crate::text;

/// Runs at most: enough for a plan of a hundred faults.
const RUNS: u32 = 400;

/// Makes a failing seed smaller; returns false if it does not fail.
pub fn minimize<E: Engine>(seed: u64, options: &Options) -> bool {
    let first = run::run::<E>(seed, options, || None);
    let Some(alarm) = first.alarms.first() else {
        println!("seed {seed} does not fail: there is nothing to make smaller");
        return false;
    };
    println!("seed {seed} fails: [{}]\n  {}", alarm.checker, size(&first));
    let checker = alarm.checker;
    let mut fails = |options: &Options| {
        let report = run::run::<E>(seed, options, || None);
        let fails = report.alarms.iter().any(|alarm| alarm.checker == checker);
        if fails {
            println!("  {}", size(&report));
        }
        fails
    };
    let mut search = Search { seed, best: options.clone(), runs: 0, fails: &mut fails };
    search.search(first.scene.draw.plan.len());
    let last = run::run::<E>(seed, &search.best, || None);
    println!("\nafter {} runs:\n", search.runs + 1);
    last.film.happenings.iter().for_each(|happening| println!("{happening}"));
    print!("{}", text::alarms(&last, &search.best.command(E::NAME, seed)));
    true
}

struct Search<'a> {
    seed: u64,
    best: Options,
    runs: u32,
    /// Whether a run fails in the same way.
    fails: &'a mut dyn FnMut(&Options) -> bool,
}

impl Search<'_> {
    /// Makes it as small as it gets. The first run's plan has so many faults.
    fn search(&mut self, faults: usize) {
        self.shorten();
        self.drop_clients();
        self.drop_faults(faults);
        self.drop_operations();
        self.shorten();
    }

    /// Takes a smaller run if it fails.
    fn try_it(&mut self, smaller: Options) -> bool {
        if self.runs >= RUNS {
            return false;
        }
        self.runs += 1;
        let fails = (self.fails)(&smaller);
        if fails {
            self.best = smaller;
        }
        fails
    }

    /// A shorter storm, by quarters, to half a second.
    fn shorten(&mut self) {
        loop {
            let span = Scene::draw(self.seed, &self.best).span;
            let shorter = [span / 4, span / 2, span * 3 / 4];
            let helped = shorter.into_iter().filter(|span| *span >= Duration::from_millis(500)).any(|span| {
                let millis = Duration::from_millis(span.as_millis() as u64);
                self.try_it(Options { span: Some(millis), ..self.best.clone() })
            });
            if !helped {
                return;
            }
        }
    }

    /// First all of a kind, then one by one.
    fn drop_clients(&mut self) {
        let cast = Scene::draw(self.seed, &self.best).cast();
        for role in [Role::Tenant, Role::Watcher, Role::Reader, Role::Counter, Role::Locker, Role::Client] {
            let all: Vec<Player> = cast.iter().copied().filter(|player| player.role == role).collect();
            if !self.leave_out(&all) {
                for player in all {
                    self.leave_out(&[player]);
                }
            }
        }
    }

    fn leave_out(&mut self, players: &[Player]) -> bool {
        let mut smaller = self.best.clone();
        smaller.without.extend(players.iter().map(Player::to_string));
        smaller != self.best && self.try_it(smaller)
    }

    /// Halves, quarters, and so on down to single faults, until none can go.
    fn drop_faults(&mut self, faults: usize) {
        let mut kept: Vec<usize> =
            self.best.only.clone().map_or_else(|| (0..faults).collect(), |only| only.into_iter().collect());
        let mut piece = kept.len();
        while piece > 0 {
            let mut at = 0;
            while at < kept.len() {
                let rest: Vec<usize> = kept
                    .iter()
                    .enumerate()
                    .filter(|(place, _)| !(at..at + piece).contains(place))
                    .map(|(_, fault)| *fault)
                    .collect();
                if self.try_it(Options { only: Some(rest.iter().copied().collect()), ..self.best.clone() }) {
                    kept = rest;
                } else {
                    at += piece;
                }
            }
            piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
        }
    }

    fn drop_operations(&mut self) {
        let mut most = 256;
        while most > 0 && self.try_it(Options { most: Some(most), ..self.best.clone() }) {
            most /= 2;
        }
    }
}

fn size(report: &Report) -> String {
    let (scene, operations) = (&report.scene, report.operations.all);
    format!(
        "{:>6.1} s, {:>3} faults, {:>3} clients, {operations:>5} operations",
        scene.span.as_secs_f64(),
        scene.draw.plan.len(),
        scene.cast().len()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn count(scene: &Scene, role: Role) -> usize {
        scene.cast().iter().filter(|player| player.role == role).count()
    }

    /// A seed whose cast has two of every role: one that may be needed, and one to leave out beside it.
    fn seed() -> u64 {
        const ROLES: [Role; 5] = [Role::Locker, Role::Watcher, Role::Counter, Role::Reader, Role::Tenant];
        let has_all =
            |seed: &u64| ROLES.iter().all(|role| count(&Scene::draw(*seed, &Options::of_everything()), *role) > 1);
        (1..).find(has_all).unwrap()
    }

    #[test]
    fn what_a_failure_does_not_need_is_left_out() {
        let seed = seed();
        // It takes two faults, far apart, a client, a reader, three operations and four seconds.
        let needed = |scene: &Scene| {
            let cast: Vec<String> = scene.cast().into_iter().map(|player| player.to_string()).collect();
            ["c2", "r1"].iter().all(|name| cast.iter().any(|player| player == name))
        };
        let mut fails = |options: &Options| {
            let kept = |fault: usize| options.only.as_ref().is_none_or(|only| only.contains(&fault));
            let scene = Scene::draw(seed, options);
            let long = scene.span >= Duration::from_secs(4) && options.most.is_none_or(|most| most >= 3);
            long && kept(1) && kept(6) && needed(&scene)
        };
        assert!(fails(&Options::of_everything()));
        let mut search = Search { seed, best: Options::of_everything(), runs: 0, fails: &mut fails };
        search.search(20);
        let (best, runs) = (search.best, search.runs);
        assert_eq!(best.only, Some(BTreeSet::from([1, 6])));
        assert_eq!(best.most, Some(4));
        assert!(best.span.is_some_and(|span| (4.0..6.0).contains(&span.as_secs_f64())), "{:?}", best.span);
        let small = Scene::draw(seed, &best);
        let roles = [Role::Client, Role::Reader, Role::Locker, Role::Counter, Role::Watcher, Role::Tenant];
        assert_eq!(roles.map(|role| count(&small, role)), [1, 1, 0, 0, 0, 0]);
        assert!(runs < RUNS, "{runs} runs");
    }

    #[test]
    fn a_failure_that_needs_everything_stays_as_it_is() {
        let mut tried = 0;
        let mut never = |_: &Options| {
            tried += 1;
            false
        };
        let mut search = Search { seed: 7, best: Options::of_everything(), runs: 0, fails: &mut never };
        search.search(1_000);
        assert_eq!(search.best, Options::of_everything());
        assert_eq!(search.runs, RUNS, "it ends");
        assert_eq!(tried, RUNS);
    }
}
