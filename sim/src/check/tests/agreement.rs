//! The checkers against a correct store, and against the judge that tries every order.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::brute::{Rule, is_possible};
use super::store::{Mutation, Plan, mutate, plans, run};
use super::*;
use crate::check::{Verdict, index, linear, revision_order};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_correct_store_passes(plan in plans(1..=120, 2)) {
        let report = crate::check::run(&run(&plan), &Default::default(), &Default::default(), &[], &[], linear::BUDGET);
        prop_assert!(report.is_ok(), "{report}");
        prop_assert_eq!(report.gave_up(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_checkers_agree_with_a_search_of_every_order(
        plan in plans(1..=6, 1),
        mutations in prop::collection::vec(any::<Mutation>(), 0..3),
    ) {
        judge(&plan, &mutations)?;
    }
}

fn judge(plan: &Plan, mutations: &[Mutation]) -> Result<(), TestCaseError> {
    let mut operations = run(plan).operations().to_vec();
    prop_assume!(!operations.is_empty());
    mutations.iter().for_each(|&mutation| mutate(&mut operations, mutation));
    let history = history(operations);
    let all: Vec<&Operation> = history.operations().iter().collect();
    let linear = linear::check(&all, linear::BUDGET);
    prop_assert_eq!(linear.is_violation(), !is_possible(&all, Rule::Names), "{:?}", linear);
    // What is shown is all that is needed.
    if let Verdict::Violation(violation) = linear {
        let mut shown: Vec<&Operation> = violation.proof.iter().chain(&violation.context).collect();
        shown.sort_by_key(|operation| operation.start);
        prop_assert!(!is_possible(&shown, Rule::Names), "{violation}");
    }
    // These two may miss something, but what they report is wrong.
    for verdict in [revision_order::check(&all), index::check_key(&all)] {
        if let Verdict::Violation(violation) = verdict {
            prop_assert!(!is_possible(&all, Rule::Numbers), "a correct store could show this: {violation}");
        }
    }
    Ok(())
}

#[test]
fn a_long_history_of_one_key_is_searched_within_the_budget() {
    let mut runner = TestRunner::deterministic();
    let plan = plans(10_000..=10_000, 1).new_tree(&mut runner).expect("nothing is filtered").current();
    let history = run(&plan);
    assert!(history.operations().len() > 5_000);
    let all: Vec<&Operation> = history.operations().iter().collect();
    assert_eq!(revision_order::check(&all), Verdict::Ok);
    assert_eq!(linear::check(&all, linear::BUDGET), Verdict::Ok);
}
