//! `quorate watch -type=events`: the event stream, printed or told record by record, none left out and none twice (R5).

use std::process::ExitCode;

use anyhow::bail;

use super::handler::Handler;
use crate::cli::context::Context;
use crate::client::http::Http;
use crate::client::stream::follow::{Follower, Step};
use crate::client::stream::{self, Event, WatchOptions};

/// Follows the stream until it cannot go on or its handler fails. A handler is told of changes alone.
pub async fn run(
    cx: &mut Context,
    http: &Http,
    options: WatchOptions,
    handler: Option<&Handler>,
) -> anyhow::Result<ExitCode> {
    let mut follower = Follower::new(http, options);
    loop {
        let record = match follower.next().await? {
            Step::Record(record) => record,
            Step::Lost { why, pause } => {
                let from = follower.index().map_or(String::new(), |index| format!(" from index {index}"));
                writeln!(cx.err, "Warning: {why}; going on{from} in {pause:?}")?;
                continue;
            }
        };
        match (handler, &record.event) {
            (None, _) => {
                cx.out.write_all(&record.line)?;
                cx.out.write_all(b"\n")?;
                // Whoever reads a pipe waits for each.
                cx.out.flush()?;
            }
            (Some(handler), Event::Changes { index, .. }) => handler.tell(*index, record.line).await?,
            (Some(_), Event::Bookmark { .. } | Event::Gone { .. } | Event::Epoch { .. }) => {}
        }
        match record.event {
            Event::Gone { index, oldest } => bail!("{}", stream::gone(index, oldest)),
            Event::Epoch { index, oldest, .. } => {
                bail!("a backup was restored after index {index}: read anew, and watch from index {oldest}")
            }
            _ => {}
        }
    }
}
