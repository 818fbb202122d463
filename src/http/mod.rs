//! The HTTP edge: takes a request apart, calls the agent, and writes its answer as Consul would.
//!
//! It holds no state: two requests meet only in the agent. Nothing that a client sends may make it panic, and every
//! size, wait and count is bounded before anything is allocated for it.
//!
//! Start with [`routes`], the one table of everything that is served. Then a request's way: [`server`] accepts,
//! [`extract`] reads path and parameters, [`body`] the value, a file per family (`kv`, `session`, `lock`, `stream`, `txn`, `catalog`, `health`,
//! `status`, `agent`, `authority`, `operator`, `snapshot`) does the work, and [`reply`] writes the headers that Consul's clients rely on.

mod agent;
mod authority;
mod body;
mod catalog;
mod extract;
mod health;
mod kv;
mod listing;
mod lock;
mod operator;
mod patience;
mod reply;
pub mod routes;
mod server;
mod session;
mod shown;
mod snapshot;
mod status;
mod stream;
#[cfg(test)]
mod testing;
mod txn;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::request::Parts;
use tokio::sync::watch;

use crate::agent::{Agent, Answer, Consistency, Found, ReadOptions, Scope};
use crate::api::json::{self, Style};
use crate::error::Error;
use crate::limits;
use crate::state::{State, Subject};

use extract::Query;
use reply::{Failure, Response};
pub use server::{Server, serve};

/// What an operator decides about the HTTP port.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Addresses to listen on (`addresses.http`, `ports.http`).
    pub listen: Vec<SocketAddr>,
    /// Largest value of a key, in bytes (`limits.kv_max_value_size`).
    pub max_value: usize,
    /// Largest JSON body, in bytes (`limits.txn_max_req_len`).
    pub max_body: usize,
    /// Connections from one client address at a time (`limits.http_max_conns_per_client`).
    pub connections_per_client: usize,
    /// Reads of catalog and health that name no mode may be this old (`discovery_max_stale`).
    pub discovery_max_stale: Option<Duration>,
    /// Whether JSON is always indented, as in `-dev` mode.
    pub pretty: bool,
    /// What happens to a request that no policy names, `allow` or `deny`: shown in a header of every answer.
    pub default_acl_policy: &'static str,
}

impl Default for HttpConfig {
    /// Consul's defaults, listening nowhere.
    fn default() -> Self {
        HttpConfig {
            listen: Vec::new(),
            max_value: limits::MAX_VALUE,
            max_body: limits::MAX_BODY,
            connections_per_client: limits::HTTP_CONNECTIONS_PER_CLIENT,
            discovery_max_stale: None,
            pretty: false,
            default_acl_policy: "allow",
        }
    }
}

/// What every request is served with.
pub(crate) struct Edge {
    agent: Agent,
    config: HttpConfig,
    /// Turns true, or loses its sender, when the server stops.
    stopping: watch::Receiver<bool>,
    backups: snapshot::Turns,
}

impl Edge {
    /// [`Agent::read`], except that a wait ends when the server stops.
    async fn read<T>(
        &self,
        options: &ReadOptions,
        scope: Scope,
        evaluate: impl Fn(&State) -> Found<T>,
    ) -> Result<Answer<T>, Failure> {
        let reading = self.agent.read(options, scope, evaluate);
        if options.index == 0 { Ok(reading.await?) } else { until_stopped(self.stopping.clone(), reading).await }
    }

    /// Once the server stops.
    fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

/// Ends a blocking query when the server stops: a rolling restart must not wait for the longest one, and its client is
/// told to ask another server.
async fn until_stopped<T>(
    mut stopping: watch::Receiver<bool>,
    reading: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        answer = reading => Ok(answer?),
        _ = stopping.wait_for(|stopping| *stopping) => {
            Err(Error::Retry("This server is shutting down; repeat the query at another one".into()).into())
        }
    }
}

/// One request on its way to its handler. The body comes beside it: it cannot be shared between threads, and this can.
pub(crate) struct Call {
    edge: Arc<Edge>,
    head: Parts,
}

/// What a handler gives.
pub(crate) type Outcome = Result<Response, Failure>;

impl Call {
    fn new(edge: Arc<Edge>, head: Parts) -> Self {
        // Blocking queries, requests for locks, and streams.
        let names = |query: &str| query.contains("index=") || query.contains("session=");
        let waits = head.uri.query().is_some_and(names) || head.uri.path() == stream::ROUTE;
        Call { edge, head: if waits { on_its_own(head) } else { head } }
    }

    /// The query parameters, after the checks that hold for every endpoint: the datacenter is ours and nothing that
    /// only Consul Enterprise has is asked for.
    fn query(&self) -> Result<Query<'_>, Failure> {
        let query = Query::parse(self.head.uri.query().unwrap_or_default())?;
        query.check_tenancy(&self.head.headers)?;
        query.check_datacenter(&self.edge.agent.identity().datacenter)?;
        Ok(query)
    }

    /// Answers a read of anything but keys, whose index is that of its whole subject.
    async fn answer_subject<T: serde::Serialize>(&self, scope: Scope, find: impl Fn(&State) -> Option<T>) -> Outcome {
        let query = self.query()?;
        let mut options = query.read_options()?;
        let subject = scope.subject();
        let discovery = !matches!(subject, Subject::Kv | Subject::Session | Subject::Root | Subject::Lock);
        if discovery && options.consistency == Consistency::Default && !query.has("leader") {
            options.max_stale = self.edge.config.discovery_max_stale;
        }
        let found = |state: &State| Found { value: find(state), index: state.index_of(subject) };
        let answer = self.edge.read(&options, scope, found).await?;
        let headers = if discovery { reply::discovered(&answer) } else { reply::indexed(&answer) };
        Ok(reply::json(&self.head.headers, headers, json::to_vec(&answer.value, self.style(&query))))
    }

    /// How JSON is to be laid out.
    fn style(&self, query: &Query<'_>) -> Style {
        match self.edge.config.pretty {
            _ if query.has("pretty") => Style::Pretty,
            true => Style::Indented,
            false => Style::Compact,
        }
    }
}

/// A head in memory of its own. hyper's is slices of the 8 KiB that it read into, too much to hold for as long as a
/// blocking query waits.
fn on_its_own(mut head: Parts) -> Parts {
    if let Ok(uri) = head.uri.to_string().parse() {
        head.uri = uri;
    }
    for value in head.headers.values_mut() {
        if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
            *value = copy;
        }
    }
    head
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_blocking_query_is_answered_when_the_server_stops() {
        let (stop, stopping) = watch::channel(false);
        let mut waiting = pin!(until_stopped(stopping.clone(), std::future::pending::<Result<(), Error>>()));
        assert!(waiting.as_mut().now_or_never().is_none());
        stop.send_replace(true);
        let failure = waiting.now_or_never().expect("it is answered").unwrap_err();
        assert_eq!(failure.to_string(), "500 This server is shutting down; repeat the query at another one");
        let ready = until_stopped(stopping, async { Ok(7) });
        assert_eq!(ready.now_or_never().unwrap().unwrap(), 7, "what is there is still given");
    }
}
