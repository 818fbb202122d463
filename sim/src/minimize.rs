//! `cargo sim minimize`: the fewest faults, clients and operations with which a seed still fails.
//!
//! Delta debugging (Zeller and Hildebrandt 2002) over what a run is made of: the faults of the plan, the clients, the length
//! of the storm, the operations of each client. A smaller run is another run, so it counts only if the same checker finds
//! something. Each step that helps is printed; the end is a command.

use std::time::Duration;

use crate::engine::Engine;
use crate::run::{self, Report};
use crate::scene::{Options, Role, Scene};
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
    let mut search =
        Search::<E> { seed, checker: alarm.checker, best: options.clone(), runs: 0, engine: Default::default() };
    search.shorten();
    search.drop_clients();
    search.drop_faults(first.scene.draw.plan.len());
    search.drop_operations();
    search.shorten();
    let last = run::run::<E>(seed, &search.best, || None);
    println!("\nafter {} runs:\n", search.runs + 1);
    last.film.happenings.iter().for_each(|happening| println!("{happening}"));
    print!("{}", text::alarms(&last, &search.best.arguments(seed)));
    true
}

struct Search<E> {
    seed: u64,
    checker: &'static str,
    best: Options,
    runs: u32,
    engine: std::marker::PhantomData<E>,
}

impl<E: Engine> Search<E> {
    /// Takes a smaller run if it fails in the same way.
    fn try_it(&mut self, smaller: Options) -> bool {
        if self.runs >= RUNS {
            return false;
        }
        self.runs += 1;
        let report = run::run::<E>(self.seed, &smaller, || None);
        let fails = report.alarms.iter().any(|alarm| alarm.checker == self.checker);
        if fails {
            println!("  {}", size(&report));
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
        for role in [Role::Tenant, Role::Watcher, Role::Locker, Role::Client] {
            let all: Vec<&str> =
                cast.iter().filter(|player| player.role == role).map(|player| player.name.as_str()).collect();
            if !self.leave_out(&all) {
                for name in all {
                    self.leave_out(&[name]);
                }
            }
        }
    }

    fn leave_out(&mut self, names: &[&str]) -> bool {
        let mut smaller = self.best.clone();
        smaller.without.extend(names.iter().map(|name| (*name).to_owned()));
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
