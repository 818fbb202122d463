//! What a checker says, and how a violation is shown: a sentence, then the operations that prove it, in columns.

use std::fmt;

use crate::history::Operation;

/// Operations shown with a violation. More would not be read; what is left out is counted.
const SHOWN: usize = 40;

/// What a checker found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong, as far as this checker looks.
    Ok,
    /// Something is certainly wrong.
    Violation(Violation),
    /// The search was ended before it knew. Neither good nor bad, and counted.
    GaveUp {
        /// Steps taken.
        steps: u64,
    },
}

/// A broken promise and its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's id in the project's list of guarantees: `R1`, `R4`; or the property of Raft.
    pub invariant: &'static str,
    /// What is wrong, in one sentence.
    pub sentence: String,
    /// The operations that contradict each other, in the order of their starts.
    pub proof: Vec<Operation>,
    /// Other operations that had to be considered: none of them resolves the contradiction.
    pub context: Vec<Operation>,
}

impl Verdict {
    /// A violation that these operations prove.
    pub(super) fn violation<'a>(
        invariant: &'static str,
        sentence: impl Into<String>,
        proof: impl IntoIterator<Item = &'a Operation>,
    ) -> Verdict {
        let mut proof: Vec<Operation> = proof.into_iter().cloned().collect();
        proof.sort_by_key(|operation| operation.start);
        proof.dedup();
        Verdict::Violation(Violation { invariant, sentence: sentence.into(), proof, context: Vec::new() })
    }

    /// Whether something is certainly wrong.
    pub fn is_violation(&self) -> bool {
        matches!(self, Verdict::Violation(_))
    }
}

/// The sentence, then a line per operation; `>` marks the proof.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.sentence)?;
        if self.proof.is_empty() {
            return Ok(());
        }
        let mut lines: Vec<(bool, &Operation)> = self.proof.iter().map(|operation| (true, operation)).collect();
        let room = SHOWN.saturating_sub(lines.len());
        lines.extend(self.context.iter().rev().take(room).map(|operation| (false, operation)));
        lines.sort_by_key(|(_, operation)| operation.start);
        let rows: Vec<[String; 7]> = lines.into_iter().map(|(proof, operation)| row(proof, operation)).collect();
        let head = ["", "start", "end", "client", "key", "call", "answer"].map(String::from);
        let rows: Vec<[String; 7]> = [head].into_iter().chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let [_, start, end, client, key, call, _] = std::array::from_fn(width);
        for [mark, a, b, c, d, e, answer] in &rows {
            write!(f, "\n{mark:1} {a:>start$}  {b:>end$}  {c:<client$}  {d:<key$}  {e:<call$}  {answer}")?;
        }
        match self.context.len().saturating_sub(room) {
            0 => Ok(()),
            left_out => write!(f, "\n  ({left_out} earlier operations that do not resolve it are left out)"),
        }
    }
}

fn row(proof: bool, operation: &Operation) -> [String; 7] {
    let Operation { client, key, call, start, end, outcome } = operation;
    [
        if proof { ">" } else { "" }.into(),
        start.to_string(),
        end.map_or("-".into(), |end| end.to_string()),
        client.to_string(),
        key.clone(),
        call.to_string(),
        outcome.to_string(),
    ]
}
