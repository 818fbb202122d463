//! A blocking query, again and again: whoever is told of its results gets each once.
//!
//! The next query is sent when the handler has ended. It is answered at once if there is something new by then, with the
//! newest; what came and went in between is not told.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::handler::Handler;
use super::plan::Question;
use crate::cli::context::Context;
use crate::client::http::Http;
use crate::client::kv::{Answer, ReadOptions};
use crate::error::{Error, Result};
use crate::limits;

/// Follows a query until its handler fails; without one, until its first result is printed.
pub async fn run(
    cx: &mut Context,
    http: &Http,
    question: &Question,
    options: ReadOptions,
    handler: Option<&Handler>,
) -> anyhow::Result<ExitCode> {
    let mut seen = Seen::default();
    let mut failures = 0;
    loop {
        // After a failure it may be another server that answers, which may never have come as far: first see what it has.
        let index = if failures == 0 { seen.index } else { 0 };
        let options = ReadOptions { index, wait: Some(limits::WATCH_WAIT), ..options.clone() };
        let answer = match ask(http, question, &options).await {
            Ok(answer) => answer,
            // Refused at once, it would be refused for ever. Later on, rights may come back.
            Err(error @ (Error::Request(_) | Error::TooLarge(_))) if seen.last.is_none() => return Err(error.into()),
            Err(error) => {
                failures += 1;
                let pause = pause(failures);
                writeln!(cx.err, "Warning: {error}; asking again in {pause:?}")?;
                cx.world.sleep(pause).await;
                continue;
            }
        };
        failures = 0;
        let result = question.result(answer.data);
        let Some(handler) = handler else {
            print(cx, &result)?;
            return Ok(ExitCode::SUCCESS);
        };
        let json = Bytes::from(serde_json::to_vec(&result)?);
        if seen.is_news(answer.index, &json) {
            handler.tell(answer.index, json).await?;
        }
    }
}

async fn ask(http: &Http, question: &Question, options: &ReadOptions) -> Result<Answer<Value>> {
    let answer: Answer<Value> = http.read(question.path.clone(), options).await?;
    if answer.index == 0 {
        // There would be nothing to wait by.
        return Err(Error::Retry(format!("{} gave no index", http.address())));
    }
    Ok(answer)
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    limits::WATCH_RETRY.saturating_mul(failures.saturating_mul(failures)).min(limits::WATCH_RETRY_CAP)
}

fn print(cx: &mut Context, result: &Value) -> anyhow::Result<()> {
    let mut text = Vec::new();
    result.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    ")))?;
    cx.out.write_all(&text)?;
    Ok(writeln!(cx.out)?)
}

/// What was told.
#[derive(Default)]
struct Seen {
    /// What the next query waits beyond.
    index: u64,
    last: Option<Bytes>,
}

impl Seen {
    /// Whether a result must be told: not with the index of the one before, nor if it is the same as the last one told.
    fn is_news(&mut self, index: u64, json: &Bytes) -> bool {
        if index == self.index {
            return false;
        }
        // An index that goes back is of another server, or of one that was set back: whatever it has is to be seen.
        self.index = if index < self.index { 0 } else { index };
        if self.last.as_ref() == Some(json) {
            return false;
        }
        self.last = Some(json.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_told_once_and_an_index_that_goes_back_begins_anew() {
        let mut seen = Seen::default();
        for (index, json, told, next) in [
            (5, "1", true, 5),
            (5, "1", false, 5),
            (7, "1", false, 7),
            (8, "2", true, 8),
            (3, "3", true, 0),
            (3, "3", false, 3),
            (2, "3", false, 0),
            (9, "1", true, 9),
        ] {
            assert_eq!((seen.is_news(index, &json.into()), seen.index), (told, next), "{index} {json}");
        }
    }

    #[test]
    fn pauses_grow_with_the_square_up_to_their_bound() {
        let seconds = [1, 2, 3, 5, 6, 7, u32::MAX].map(|failures| pause(failures).as_secs());
        assert_eq!(seconds, [5, 20, 45, 125, 180, 180, 180]);
    }
}
