//! One client per peer, made when it is first asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::{Client, Identity, hold};
use crate::limits;
use crate::world::World;

/// The clients of one node. A node at a new address, or another node at the same, is another client.
pub struct Pool {
    world: World,
    identity: Identity,
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    /// With the count of [`Pool::get`] when it was last asked for.
    known: BTreeMap<(SocketAddr, Option<Uuid>), (u64, Arc<Client>)>,
    asked: u64,
}

impl Pool {
    /// An empty pool; it opens no connection by itself.
    pub fn new(world: &World, identity: &Identity) -> Self {
        Pool { world: world.clone(), identity: identity.clone(), clients: Mutex::default() }
    }

    /// The client for a node at an address, or for whichever node is there. Beyond [`limits::RPC_POOL`] the one that was
    /// unused for longest is forgotten: its calls end as they would have, its connection closes after them.
    pub fn get(&self, address: SocketAddr, node: Option<Uuid>) -> Arc<Client> {
        let mut clients = hold(&self.clients);
        clients.asked += 1;
        let asked = clients.asked;
        if let Some((last, client)) = clients.known.get_mut(&(address, node)) {
            *last = asked;
            return client.clone();
        }
        if clients.known.len() >= limits::RPC_POOL {
            let oldest = clients.known.iter().min_by_key(|(_, (last, _))| *last).map(|(key, _)| *key);
            oldest.and_then(|key| clients.known.remove(&key));
        }
        let client = Arc::new(Client::new(&self.world, &self.identity, address, node));
        clients.known.insert((address, node), (asked, client.clone()));
        client
    }
}
