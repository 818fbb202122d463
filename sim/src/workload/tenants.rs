//! Tenants: sessions without a TTL, which live exactly as long as the checks that they name (consul.md 2.4, G1.7).
//!
//! Each tenant registers a node of its own with a check that passes, makes a session on it, and takes some locks that nobody
//! else wants. While the check passes, nothing may end the session. Once its end is acknowledged, the session is gone with
//! all its locks (L9), and takes none any more (L8).

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use quorate::world::World;
use serde_json::{Value, json};

use super::http::{Http, Reply};
use super::{Phase, Shared};
use crate::event;
use crate::player::Player;
use crate::rng::Rng;
use crate::trace;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// One tenant: it works in the storm, and tidies up in calm.
pub async fn tenant(player: Player, world: World, shared: Arc<Shared>, mut rng: Rng) {
    let http = Http::new(&world, *rng.pick(&shared.servers));
    let mut tenant = Tenant { player, world, shared, rng, http, lives: 0, nodes: Vec::new() };
    while tenant.shared.phase() == Phase::Storm {
        tenant.live().await;
        tenant.pause(50, 500).await;
    }
    // A session that was made without an answer ends with its node.
    while let Some(node) = tenant.nodes.last().cloned() {
        if tenant.deregister(json!({"Node": node})).await {
            tenant.nodes.pop();
        }
    }
}

struct Tenant {
    player: Player,
    world: World,
    shared: Arc<Shared>,
    rng: Rng,
    http: Http,
    lives: u32,
    /// What is still to be deregistered.
    nodes: Vec<String>,
}

impl Tenant {
    /// One node and its session, from beginning to end.
    async fn live(&mut self) -> Option<()> {
        self.lives += 1;
        let node = format!("t{}-{}", self.player.number, self.lives);
        self.nodes.push(node.clone());
        if !self.check(&node, "passing").await {
            return None;
        }
        let born = trace::now();
        let id = self.create(&node).await?;
        let count = self.rng.between(1, 3);
        let locks: Vec<String> = (0..count).map(|lock| format!("own/{}/{lock}", self.player.number)).collect();
        let mut held = Vec::new();
        for lock in &locks {
            if self.acquire(lock, &id).await {
                held.push(lock.clone());
            }
        }
        for _ in 0..self.rng.below(4) {
            self.pause(50, 1_500).await;
            self.still_alive(&id, born, &held).await;
        }
        let ended = match self.rng.below(4) {
            0 => self.check(&node, "critical").await,
            1 => self.deregister(json!({"Node": node, "CheckID": "alive"})).await,
            2 => self.deregister(json!({"Node": node})).await,
            _ => {
                let path = format!("/v1/session/destroy/{id}");
                matches!(self.put(&path, String::new()).await, Some((200, _)))
            }
        };
        if ended {
            event!("tenant", "{id} has ended");
            self.gone(&id, &locks).await;
        }
        Some(())
    }

    async fn still_alive(&mut self, id: &str, born: Duration, held: &[String]) {
        if let Some(body) = self.get(&format!("/v1/session/info/{id}")).await
            && body == Value::Array(Vec::new())
        {
            let sentence = format!("session {id} has ended, although its check passes");
            self.shared.contradict_since(born, "G1", sentence);
        }
        for lock in held {
            if let Some(holder) = self.holder(lock).await
                && holder.as_deref() != Some(id)
            {
                let sentence = format!("{lock} is shown to be held by {holder:?}, not by {id}");
                self.shared.contradict_since(born, "L19", sentence);
            }
        }
    }

    async fn gone(&mut self, id: &str, locks: &[String]) {
        if self.get(&format!("/v1/session/info/{id}")).await.is_some_and(|body| body != Value::Array(Vec::new())) {
            self.shared.contradict("L9", format!("session {id} is there after its end"));
        }
        for lock in locks {
            if self.holder(lock).await.is_some_and(|holder| holder.as_deref() == Some(id)) {
                self.shared.contradict("L9", format!("{lock} is held by session {id} after its end"));
            }
        }
        if self.acquire(&locks[0], id).await {
            self.shared.contradict("L8", format!("{} was granted to session {id} after its end", locks[0]));
        }
    }

    /// Registers the node with its check in this state.
    async fn check(&mut self, node: &str, status: &str) -> bool {
        let body = json!({
            "Node": node, "Address": "10.9.8.6", "Check": {"CheckID": "alive", "Name": "alive", "Status": status},
        });
        matches!(self.put("/v1/catalog/register", body.to_string()).await, Some((200, _)))
    }

    async fn deregister(&mut self, what: Value) -> bool {
        matches!(self.put("/v1/catalog/deregister", what.to_string()).await, Some((200, _)))
    }

    async fn create(&mut self, node: &str) -> Option<String> {
        let behavior = if self.rng.chance(300) { "delete" } else { "release" };
        let body = json!({"Node": node, "NodeChecks": ["alive"], "LockDelay": "0s", "Behavior": behavior});
        let reply = self.http.send(Method::PUT, "/v1/session/create", None, body.to_string(), PATIENCE).await;
        let Reply::Answer { status: 200, body, lease, .. } = reply else {
            self.turn();
            return None;
        };
        if lease.is_some() {
            self.shared.contradict("G1", "a session without a TTL was given a lease".into());
        }
        Some(serde_json::from_slice::<Value>(&body).ok()?["ID"].as_str()?.to_owned())
    }

    async fn acquire(&mut self, lock: &str, id: &str) -> bool {
        let answer = self.put(&format!("/v1/kv/{lock}?acquire={id}"), "mine".into()).await;
        matches!(answer, Some((200, body)) if body == "true")
    }

    /// Who holds a lock; `None` without an answer.
    async fn holder(&mut self, lock: &str) -> Option<Option<String>> {
        let body = self.get(&format!("/v1/kv/{lock}")).await?;
        Some(body.pointer("/0/Session").and_then(Value::as_str).map(str::to_owned))
    }

    async fn put(&mut self, path: &str, body: String) -> Option<(u16, String)> {
        match self.http.send(Method::PUT, path, None, body, PATIENCE).await {
            Reply::Answer { status, body, .. } => Some((status, String::from_utf8_lossy(&body).into_owned())),
            _ => {
                self.turn();
                None
            }
        }
    }

    /// The answer to a read: null for a missing key.
    async fn get(&mut self, path: &str) -> Option<Value> {
        match self.http.send(Method::GET, path, None, String::new(), PATIENCE).await {
            Reply::Answer { status: 200, body, .. } => serde_json::from_slice(&body).ok(),
            Reply::Answer { status: 404, .. } => Some(Value::Null),
            _ => {
                self.turn();
                None
            }
        }
    }

    fn turn(&mut self) {
        let server = *self.rng.pick(&self.shared.servers);
        self.http.turn_to(server);
    }

    async fn pause(&mut self, least: u64, most: u64) {
        let pause = Duration::from_millis(self.rng.between(least, most));
        self.world.sleep(pause).await;
    }
}
