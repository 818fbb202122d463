//! Everything that is served, in one table. The router, 405 and `Allow`, `OPTIONS`, and the hint of a 404 come from it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum_core::body::Body;
use axum_core::extract::Request;
use http::header::{ALLOW, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::reply::{self, Response};
use super::server::Answers;
use super::{
    Call, Edge, Outcome, agent, authority, catalog, health, kv, lock, operator, session, snapshot, status, stream, txn,
};

/// A handler's answer in the making.
type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// One method on one path.
pub struct Route {
    /// The method; `OPTIONS` is answered on every path.
    pub method: Method,
    /// The path, with `{*key}` for all that follows, slashes included.
    pub path: &'static str,
    /// What it does, in one sentence.
    pub docs: &'static str,
    handler: fn(Call, Body) -> Answering,
}

/// The table.
pub static ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "/v1/kv/{*key}",
        docs: "Reads a key (`raw`: its bare value), every key with a prefix (`recurse`) or their names (`keys`, \
               `separator`), in pages if asked to (`limit`, `start_after`), and waits for a change after an `index` or shows what was there `at` one.",
        handler: |call, _| answer(kv::get(call)),
    },
    Route {
        method: Method::PUT,
        path: "/v1/kv/{*key}",
        docs: "Writes a key: always, only at a given index (`cas`), or with its lock (`acquire`, `release`).",
        handler: |call, body| answer(kv::put(call, body)),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/kv/{*key}",
        docs: "Deletes a key: always, only at a given index (`cas`), or with all keys that begin with it (`recurse`).",
        handler: |call, _| answer(kv::delete(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/lock/{*key}",
        docs: "Shows who holds a lock and who waits for it (blocking).",
        handler: |call, _| answer(lock::get(call)),
    },
    Route {
        method: Method::PUT,
        path: "/v1/lock/{*key}",
        docs: "Waits for a lock, first come, first served.",
        handler: |call, _| answer(lock::put(call)),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/lock/{*key}",
        docs: "Lets go of a lock, and leaves its value.",
        handler: |call, _| answer(lock::delete(call)),
    },
    Route {
        method: Method::GET,
        path: stream::ROUTE,
        docs: "Streams every change of the keys with a `prefix`, from any index still kept (`since`), with what was there \
               before (`prev`).",
        handler: |call, _| answer(stream::get(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/session/list",
        docs: "Lists the sessions (blocking).",
        handler: |call, _| answer(session::all(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/session/info/{*id}",
        docs: "Shows a session, or an empty list (blocking).",
        handler: |call, _| answer(session::info(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/session/node/{*node}",
        docs: "Lists the sessions of a node (blocking).",
        handler: |call, _| answer(session::node(call)),
    },
    Route {
        method: Method::PUT,
        path: "/v1/session/create",
        docs: "Makes a session, which can hold locks.",
        handler: |call, body| answer(session::create(call, body)),
    },
    Route {
        method: Method::PUT,
        path: "/v1/session/destroy/{*id}",
        docs: "Ends a session and lets go of its locks.",
        handler: |call, _| answer(session::destroy(call)),
    },
    Route {
        method: Method::PUT,
        path: "/v1/session/renew/{*id}",
        docs: "Renews a session, and says for how long its holder may rely on it.",
        handler: |call, _| answer(session::renew(call)),
    },
    Route {
        method: Method::PUT,
        path: "/v1/txn",
        docs: "Does several things or none of them.",
        handler: |call, body| answer(txn::put(call, body)),
    },
    Route {
        method: Method::GET,
        path: "/v1/catalog/datacenters",
        docs: "Lists the datacenters.",
        handler: |call, _| answer(catalog::datacenters(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/catalog/nodes",
        docs: "Lists the nodes (blocking).",
        handler: |call, _| answer(catalog::nodes(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/catalog/services",
        docs: "Lists the services with their tags (blocking).",
        handler: |call, _| answer(catalog::services(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/catalog/service/{*name}",
        docs: "Lists the instances of a service with their nodes (blocking).",
        handler: |call, _| answer(catalog::service(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/catalog/node/{*node}",
        docs: "Shows a node with its services (blocking).",
        handler: |call, _| answer(catalog::node(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/catalog/node-services/{*node}",
        docs: "Shows a node with its services as a list (blocking).",
        handler: |call, _| answer(catalog::node_services(call)),
    },
    Route {
        method: Method::PUT,
        path: "/v1/catalog/register",
        docs: "Registers a node, a service and checks.",
        handler: |call, body| answer(catalog::register(call, body)),
    },
    Route {
        method: Method::PUT,
        path: "/v1/catalog/deregister",
        docs: "Deregisters a node, a service or a check.",
        handler: |call, body| answer(catalog::deregister(call, body)),
    },
    Route {
        method: Method::GET,
        path: "/v1/health/node/{*node}",
        docs: "Lists the checks on a node (blocking).",
        handler: |call, _| answer(health::node(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/health/checks/{*service}",
        docs: "Lists the checks of a service (blocking).",
        handler: |call, _| answer(health::checks(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/health/service/{*service}",
        docs: "Lists the instances of a service with their checks (blocking), only those that pass (`passing`) if asked to.",
        handler: |call, _| answer(health::service(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/health/state/{*state}",
        docs: "Lists the checks in a state (blocking).",
        handler: |call, _| answer(health::state(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/status/leader",
        docs: "Shows the leader's address, or an empty string if there is none.",
        handler: |call, _| answer(status::leader(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/status/peers",
        docs: "Lists the addresses of the voting servers.",
        handler: |call, _| answer(status::peers(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/operator/raft/configuration",
        docs: "Lists the servers of the cluster as its leader knows them (`stale`: as this server does).",
        handler: |call, _| answer(operator::configuration(call)),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/operator/raft/peer",
        docs: "Removes a server from the cluster, by its `id` or its `address`.",
        handler: |call, _| answer(operator::remove_peer(call)),
    },
    Route {
        method: Method::POST,
        path: "/v1/operator/raft/transfer-leader",
        docs: "Has another server lead, the one with this `id` or the one that is closest behind.",
        handler: |call, _| answer(operator::transfer_leader(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/snapshot",
        docs: "Gives a backup of everything, as one file.",
        handler: |call, _| answer(snapshot::save(call)),
    },
    Route {
        method: Method::PUT,
        path: "/v1/snapshot",
        docs: "Replaces everything by what a backup holds; sessions end and no index goes back.",
        handler: |call, body| answer(snapshot::restore(call, body)),
    },
    Route {
        method: Method::GET,
        path: "/v1/agent/self",
        docs: "Describes this node: its configuration, its membership and its figures.",
        handler: |call, _| answer(agent::own(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/agent/members",
        docs: "Lists the nodes of the cluster and whether its leader hears them.",
        handler: |call, _| answer(agent::members(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/agent/connect/ca/roots",
        docs: "Shows the root certificate that was made when the cluster began (blocking).",
        handler: |call, _| answer(authority::roots(call)),
    },
    Route {
        method: Method::GET,
        path: "/v1/agent/version",
        docs: "Shows this program's version.",
        handler: |call, _| answer(agent::version(call)),
    },
    Route {
        method: Method::GET,
        path: "/",
        docs: "Says what is listening here.",
        handler: |call, _| answer(agent::root(call)),
    },
];

/// The table, ready to be looked up. The radix tree is axum's own, without the router around it, which clones itself,
/// boxes its futures and decodes path parameters for each request.
pub(crate) struct Router {
    endpoints: matchit::Router<Endpoint>,
    acl_policy: HeaderValue,
}

impl Router {
    /// The router of a node.
    pub fn new(edge: &Arc<Edge>) -> Self {
        let mut endpoints = matchit::Router::new();
        let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
        paths.dedup();
        for pattern in paths {
            // `{*key}` stands for at least one byte, but the empty key is a key too: the prefix of all.
            for path in prefix(pattern).into_iter().chain([pattern]) {
                endpoints
                    .insert(path, Endpoint::new(pattern, edge.clone()))
                    .expect("the table's paths are distinct and well formed");
            }
        }
        Router { endpoints, acl_policy: HeaderValue::from_static(edge.config.default_acl_policy) }
    }
}

impl Answers for Router {
    async fn answer(&self, request: Request) -> Response {
        let mut response = match self.endpoints.at(request.uri().path()) {
            Ok(found) => found.value.serve(request).await,
            Err(_) => unknown(&request),
        };
        response.headers_mut().insert(reply::DEFAULT_ACL_POLICY, self.acl_policy.clone());
        response
    }
}

/// What comes before the `{*key}`, if there is one.
fn prefix(path: &'static str) -> Option<&'static str> {
    path.split_once("{*").map(|(prefix, _)| prefix)
}

fn answer(handling: impl Future<Output = Outcome> + Send + 'static) -> Answering {
    Box::pin(async { handling.await.unwrap_or_else(reply::Failure::into_response) })
}

/// All methods of one path.
struct Endpoint {
    edge: Arc<Edge>,
    routes: Vec<&'static Route>,
    /// `OPTIONS,GET,…`
    allow: HeaderValue,
}

impl Endpoint {
    fn new(path: &str, edge: Arc<Edge>) -> Self {
        let routes: Vec<&Route> = ROUTES.iter().filter(|route| route.path == path).collect();
        let allow = routes.iter().fold("OPTIONS".to_string(), |allow, route| allow + "," + route.method.as_str());
        let allow = HeaderValue::try_from(allow).expect("method names are header text");
        Endpoint { edge, routes, allow }
    }

    async fn serve(&self, request: Request) -> Response {
        let method = request.method();
        match self.routes.iter().find(|route| route.method == *method) {
            Some(route) => {
                let (head, body) = request.into_parts();
                (route.handler)(Call::new(self.edge.clone(), head), body).await
            }
            None if *method == Method::OPTIONS => self.allowing(reply::empty(StatusCode::OK, HeaderMap::new())),
            None => {
                let text = format!("method {method} not allowed");
                self.allowing(reply::text(StatusCode::METHOD_NOT_ALLOWED, text))
            }
        }
    }

    fn allowing(&self, mut response: Response) -> Response {
        response.headers_mut().insert(ALLOW, self.allow.clone());
        response
    }
}

/// A path outside the table.
fn unknown(request: &Request) -> Response {
    let path = request.uri().path();
    // Go's router redirects `/v1/kv` to `/v1/kv/`, and so do we. Taking it for the empty key would be kinder to a GET,
    // but a `DELETE /v1/kv?recurse` that lost its slash, harmless with Consul, would empty the store.
    if ROUTES.iter().filter_map(|route| prefix(route.path)).any(|prefix| prefix.strip_suffix('/') == Some(path)) {
        let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
        let location = HeaderValue::try_from(format!("{path}/{query}"));
        let headers = location.into_iter().map(|location| (LOCATION, location)).collect();
        return reply::empty(StatusCode::MOVED_PERMANENTLY, headers);
    }
    reply::text(StatusCode::NOT_FOUND, hint(path))
}

/// One line that names the served path which begins most like the one asked for.
fn hint(path: &str) -> String {
    let alike = |route: &&Route| route.path.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
    match ROUTES.iter().rev().max_by_key(alike).filter(|route| alike(route) > "/v1/".len()) {
        Some(route) => {
            format!("No endpoint at this path; the closest is {}", route.path.replace("{*", ":").replace('}', ""))
        }
        None => "No endpoint at this path; the HTTP API is under /v1/".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_says_what_it_does_in_one_sentence() {
        for Route { method, path, docs, .. } in ROUTES {
            assert!(docs.ends_with('.') && !docs.trim_end_matches('.').contains(". "), "{method} {path}: {docs}");
        }
    }

    #[test]
    fn no_method_is_listed_twice_and_the_methods_of_a_path_stand_together() {
        let rows: Vec<(&Method, &str)> = ROUTES.iter().map(|route| (&route.method, route.path)).collect();
        for (at, (method, path)) in rows.iter().enumerate() {
            assert!(!rows[..at].contains(&(*method, *path)), "{method} {path}");
            let apart = at > 0 && rows[at - 1].1 != *path && rows[..at].iter().any(|row| row.1 == *path);
            assert!(!apart, "{path}");
        }
    }

    #[test]
    fn a_path_outside_the_table_is_answered_with_the_closest_one() {
        for (path, closest) in [
            ("/v1/kvs", "/v1/kv/:key"),
            ("/v1/status", "/v1/status/leader"),
            ("/v1/status/peer", "/v1/status/peers"),
            ("/v1/agent/", "/v1/agent/self"),
        ] {
            assert_eq!(hint(path), format!("No endpoint at this path; the closest is {closest}"), "{path}");
        }
        for path in ["", "*", "/v1/", "/v1/zzz", "/favicon.ico", "//"] {
            assert_eq!(hint(path), "No endpoint at this path; the HTTP API is under /v1/", "{path}");
        }
    }
}
