//! `quorate watch`: prints what is there, or runs a handler each time it changes. As in Consul, and `-type=events` beyond it.
//!
//! [`plan`] turns flags into a question, [`poll`] and [`events`] follow the answers, [`handler`] is told of them.

mod events;
pub mod handler;
mod plan;
mod poll;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args};

use super::argv::go_bool;
use super::context::Context;
use super::http_flags::HttpFlags;
use handler::{Handler, Post, Script};
use plan::{Kind, Plan, Target};

/// Prints what is there, or runs a command each time it changes
///
/// Without a command the first result is printed as JSON. With one, it is run at once and after each change, with the
/// result as JSON on its standard input and its index in CONSUL_INDEX; the watch ends when the command fails. A result
/// that is the same as the last one is not told again, and a command that is still running is told the newest result
/// when it has ended.
///
/// -type=events follows the event stream instead: every change, once, in order, one line of JSON for each index. Without a
/// command the lines are printed as they come, for ever. After a lost connection it goes on where it was.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    quorate watch -type=key -key=web/port\n  \
    quorate watch -type=keyprefix -prefix=web/ ./render.sh\n  \
    quorate watch -type=service -service=web -tag=v1 -passingonly ./reload.sh\n  \
    quorate watch -type=checks -service=web python health_watch.py\n  \
    quorate watch -type=checks -state=critical -http-handler=http://127.0.0.1:9000/alarm\n  \
    quorate watch -type=events -prefix=web/ -prev | jq .Changes\n\n\
    A key that is not there, and a prefix without keys, are null.")]
pub struct Watch {
    /// What to watch
    #[arg(long = "type", value_name = "TYPE")]
    kind: Kind,
    #[command(flatten)]
    target: Target,
    /// POST each result to this URL instead of running a command
    #[arg(long, value_name = "URL", help_heading = "Handler")]
    http_handler: Option<String>,
    /// Run the command by $SHELL or /bin/sh; if not, by its words as they are [default: true]
    #[arg(long, value_name = "true|false", help_heading = "Handler", num_args = 0..=1, require_equals = true)]
    #[arg(action = ArgAction::Set, default_value = "true", default_missing_value = "true", value_parser = truth)]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    shell: bool,
    /// What to run each time
    #[arg(value_name = "COMMAND", help_heading = "Handler")]
    command: Vec<String>,
    #[command(flatten)]
    http: HttpFlags,
}

fn truth(text: &str) -> Result<bool, &'static str> {
    go_bool(text).ok_or("use true or false")
}

/// Watches.
pub async fn run(cx: &mut Context, watch: Watch) -> anyhow::Result<ExitCode> {
    let plan = watch.target.plan(watch.kind, watch.http.datacenter.as_deref())?;
    if matches!(plan, Plan::Events(_)) && watch.http.stale {
        bail!("-stale means nothing for -type=events: any server sends the stream, and none leaves anything out");
    }
    let handler = watch.handler(cx)?;
    let http = watch.http.client(cx).await?;
    // A watch outlives its agent's absence. A wrong address is better said while whoever typed it is there.
    http.leader().await?;
    match plan {
        Plan::Query(question) => poll::run(cx, &http, &question, watch.http.read_options(), handler.as_ref()).await,
        Plan::Events(options) => events::run(cx, &http, options, handler.as_ref()).await,
    }
}

impl Watch {
    fn handler(&self, cx: &Context) -> anyhow::Result<Option<Handler>> {
        match &self.http_handler {
            Some(_) if !self.command.is_empty() => bail!("-http-handler and a command exclude each other"),
            Some(url) => {
                let post = Post::to(cx.world.clone(), url).context("-http-handler")?;
                return Ok(Some(Handler::Post(Box::new(post))));
            }
            None => {}
        }
        let script = match (self.shell, &self.command[..]) {
            (_, []) => None,
            (true, words) => {
                let shell = (cx.var)("SHELL").unwrap_or_else(|| "/bin/sh".into());
                Some(Script::line(shell, words.join(" ")))
            }
            (false, words) => Script::words(words.to_vec()),
        };
        Ok(script.map(Handler::Script))
    }
}
