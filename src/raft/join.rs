//! How a server finds its cluster, or founds it with others (`bootstrap_expect`).
//!
//! A server without a cluster greets the addresses it was given, and whomever it hears of that way, again and again. If one
//! of them has a cluster, it asks to join. Otherwise, once exactly N servers see exactly each other, the one with the lowest
//! id founds the cluster with all N. One server more or less, or a different view of one of them, and nothing happens: two
//! groups can never found two clusters out of the same servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use openraft::errors::{InitializeError, RaftError};
use tokio::sync::watch;
use uuid::Uuid;

use super::Raft;
use super::message::{Greeting, Join, Joined, call};
use super::types::Member;
use crate::error::{Error, Result};
use crate::limits;
use crate::world::{Instant, World};

/// How a server finds the others.
#[derive(Debug, Clone, Default)]
pub struct Finding {
    /// How many servers found the cluster together; 0 if this one only joins.
    pub expect: u32,
    /// Addresses of other servers, `host[:port]`.
    pub addresses: Vec<String>,
    /// The port of those without one.
    pub port: u16,
    /// Pause between rounds in which nobody answered.
    pub interval: Duration,
    /// So many intervals without an answer, and it gives up; 0 is never.
    pub most: u32,
    /// Goes back by itself to a cluster that it has left; otherwise only `addresses` bring it back.
    pub rejoin: bool,
}

/// This server's place, and whom it has met.
pub(super) struct Meeting {
    pub(super) id: Uuid,
    pub(super) member: Member,
    pub(super) finding: Finding,
    /// Why this server has given up to find its cluster.
    pub(super) gave_up: watch::Sender<Option<Error>>,
    /// Whether it leaves, held through each round of joining: it must not be taken in again by a question asked before.
    pub(super) leaving: tokio::sync::Mutex<bool>,
    /// Servers without a cluster.
    met: Mutex<BTreeMap<Uuid, (Member, Instant)>>,
    /// Members of a cluster that spoke to this server while it had none: they can take it in, wherever the configuration
    /// looks for them.
    hosts: Mutex<BTreeMap<Uuid, Member>>,
}

impl Meeting {
    pub(super) fn new(id: Uuid, member: Member, finding: Finding) -> Self {
        let (met, hosts) = (Mutex::default(), Mutex::default());
        let gave_up = watch::Sender::new(None);
        Meeting { id, member, finding, gave_up, leaving: tokio::sync::Mutex::default(), met, hosts }
    }

    /// Remembers a member of a cluster.
    fn hear_of(&self, id: Uuid, member: &Member) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() < limits::MAX_SERVERS || hosts.contains_key(&id) {
            hosts.insert(id, member.clone());
        }
    }

    fn hosts(&self) -> Vec<Member> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Remembers a server that may found a cluster, for a while. One that only joins has no say in that.
    fn meet(&self, world: &World, Greeting { id, member, expect, .. }: &Greeting) {
        if *expect == 0 {
            return;
        }
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let now = world.clock.now();
        met.retain(|_, (_, last)| now.since(*last) < limits::GREETING_MEMORY);
        if *id != self.id && (met.len() < limits::MAX_SERVERS - 1 || met.contains_key(id)) {
            met.insert(*id, (member.clone(), now));
        }
    }

    /// Whether nobody has answered for so long that this server is to end, as `retry_max` says.
    fn gives_up(&self, silence: Duration) -> bool {
        let Finding { addresses, interval, most, .. } = &self.finding;
        // The rounds are closer together than the interval while founders look for each other.
        if *most == 0 || addresses.is_empty() || silence < *interval * *most {
            return false;
        }
        self.gave_up.send_replace(Some(Error::Operator(format!(
            "no server to join has answered for {most} times {interval:?} (retry_max, retry_interval): {}. Look whether \
             they run, and whether their rpc port is reached from here",
            addresses.join(", ")
        ))));
        true
    }

    /// The servers met of late, with this one.
    fn sees(&self, world: &World) -> BTreeMap<Uuid, Member> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let now = world.clock.now();
        let recent = met.iter().filter(|(_, (_, last))| now.since(*last) < limits::GREETING_MEMORY);
        let own = (self.id, self.member.clone());
        recent.map(|(id, (member, _))| (*id, member.clone())).chain([own]).collect()
    }
}

impl Raft {
    /// Answers a greeting with this server's own.
    pub(super) fn greeted(&self, greeting: Greeting) -> Result<Greeting> {
        let greeting = greeting.check()?;
        let meeting = &self.inner.meeting;
        self.inner.links.meet(greeting.id, &greeting.member);
        match greeting.initialized {
            _ if self.initialized() => {}
            true => meeting.hear_of(greeting.id, &greeting.member),
            false => meeting.meet(&self.inner.world, &greeting),
        }
        Ok(self.greeting())
    }

    fn greeting(&self) -> Greeting {
        let meeting = &self.inner.meeting;
        let initialized = self.initialized();
        let sees = if initialized { BTreeMap::new() } else { meeting.sees(&self.inner.world) };
        Greeting {
            id: meeting.id,
            member: meeting.member.clone(),
            initialized,
            expect: meeting.finding.expect,
            sees: sees.into_iter().collect(),
        }
    }

    /// Whether this server has a membership.
    fn initialized(&self) -> bool {
        !self.servers_here().is_empty()
    }

    /// The addresses to greet: those configured, and those of members, of servers met and of whoever spoke first.
    async fn addresses(&self) -> Vec<SocketAddr> {
        let (world, meeting) = (&self.inner.world, &self.inner.meeting);
        let mut found = Vec::new();
        for text in &meeting.finding.addresses {
            match resolve(world, text, meeting.finding.port).await {
                Ok(addresses) => found.extend(addresses),
                Err(error) => tracing::warn!(address = %text, %error, "cannot resolve an address to join"),
            }
        }
        // Who has left for good goes back only where it is told to.
        if meeting.finding.rejoin || !self.inner.links.cluster.has_left() {
            let members = self.servers_here().into_iter().map(|server| server.member);
            let known = members.chain(meeting.sees(world).into_values()).chain(meeting.hosts());
            found.extend(known.filter_map(|member| super::links::address(&member).ok()));
        }
        let own = super::links::address(&meeting.member).ok();
        found.retain(|address| Some(*address) != own);
        found.sort_unstable();
        found.dedup();
        found.truncate(limits::MAX_SERVERS);
        found
    }

    /// One round of greetings; those that answered, with their addresses.
    async fn greet(&self) -> Vec<(SocketAddr, Greeting)> {
        let own = self.greeting();
        let greet = async |address: SocketAddr| {
            let answer = self.inner.links.ask_at(address, call::GREET, &own, limits::GREETING_WAIT).await;
            match answer.map_err(|failed| failed.error).and_then(Greeting::check) {
                Ok(greeting) => Some((address, greeting)),
                Err(error) => {
                    tracing::debug!(%address, %error, "a server does not answer a greeting");
                    None
                }
            }
        };
        let answers = join_all(self.addresses().await.into_iter().map(greet)).await;
        let answers: Vec<_> = answers.into_iter().flatten().filter(|(_, greeting)| greeting.id != own.id).collect();
        for (_, greeting) in answers.iter().filter(|(_, greeting)| !greeting.initialized) {
            self.inner.meeting.meet(&self.inner.world, greeting);
        }
        answers
    }

    /// To be a member, at the address where this server is now.
    fn wish(&self) -> Join {
        let Meeting { id, member, .. } = &self.inner.meeting;
        let is_member = self.view().membership.membership().get_node(id).is_some();
        Join { id: *id, member: member.clone(), moves: is_member && !self.inner.links.cluster.has_left() }
    }

    /// Asks a member of a cluster to be taken in.
    async fn ask_to_join(&self, at: SocketAddr) -> Result<()> {
        let joined: Joined = self
            .inner
            .links
            .ask_at(at, call::JOIN, &self.wish(), limits::MEMBERSHIP_WAIT)
            .await
            .map_err(|failed| failed.error)?;
        self.inner.links.cluster.adopt(joined.cluster).await?;
        self.inner.links.cluster.come_back().await
    }

    /// Asks the members met one after another: one that has left, or was removed, cannot help.
    async fn ask_any_to_join(&self, members: &[SocketAddr]) -> Result<()> {
        let mut outcome = Ok(());
        for address in members {
            outcome = self.ask_to_join(*address).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Founds the cluster, if it is this server's turn.
    async fn found(&self, greetings: &[(SocketAddr, Greeting)]) -> Result<()> {
        let Some(members) = founders(&self.greeting(), greetings) else { return Ok(()) };
        self.inner.links.cluster.found().await?;
        tracing::info!(servers = members.len(), "founding the cluster");
        match self.inner.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(Error::Bug(format!("cannot found the cluster: {error}"))),
        }
    }
}

/// The members of the new cluster, if `own` is the one to found it: exactly as many as are expected, each of which sees
/// exactly these, has no cluster, and expects as many. Servers that only join are not counted.
fn founders(own: &Greeting, greetings: &[(SocketAddr, Greeting)]) -> Option<BTreeMap<Uuid, Member>> {
    let members: BTreeMap<Uuid, Member> = own.sees.iter().cloned().collect();
    // Whoever only joins cannot found another one, so it does not matter whether it is seen.
    let answered = greetings.iter().map(|(_, greeting)| greeting).filter(|greeting| greeting.expect > 0);
    let answered: BTreeMap<Uuid, &Greeting> = answered.map(|greeting| (greeting.id, greeting)).collect();
    let agrees =
        |greeting: &Greeting| !greeting.initialized && greeting.expect == own.expect && greeting.ids() == own.ids();
    let all = own.expect > 1
        && members.len() == own.expect as usize
        && members.keys().filter(|id| **id != own.id).eq(answered.keys())
        && agrees(own)
        && answered.values().all(|greeting| agrees(greeting));
    (all && members.keys().next() == Some(&own.id)).then_some(members)
}

/// Finds or founds the cluster, and tells it of a new address. Runs until this server is a member at its address.
pub(super) async fn run(raft: Raft) {
    let (world, meeting) = (&raft.inner.world, &raft.inner.meeting);
    let has_left = || raft.inner.links.cluster.has_left();
    if has_left() && meeting.finding.addresses.is_empty() && !meeting.finding.rejoin {
        return tracing::warn!(
            "this server has left its cluster and does not join again by itself: set rejoin_after_leave, or retry_join"
        );
    }
    let mut answered = world.clock.now();
    while has_left() || !raft.is_member(meeting.id, &meeting.member) {
        let leaving = meeting.leaving.lock().await;
        if *leaving {
            return;
        }
        let greetings = raft.greet().await;
        let members: Vec<_> =
            greetings.iter().filter(|(_, greeting)| greeting.initialized).map(|(at, _)| *at).collect();
        let tried = match members.is_empty() {
            // The leader itself has moved.
            _ if raft.lead().is_ok() => raft.join(raft.wish()).await,
            false => raft.ask_any_to_join(&members).await,
            true if !raft.initialized() => raft.found(&greetings).await,
            true => Ok(()),
        };
        if let Err(error) = tried {
            tracing::warn!(%error, "cannot join the cluster yet");
        }
        if !greetings.is_empty() {
            answered = world.clock.now();
        }
        if meeting.gives_up(world.clock.now().since(answered)) {
            return;
        }
        drop(leaving);
        // The founders must see each other at once, so a server that waits for others does not wait long.
        let alone = greetings.is_empty() && meeting.finding.expect < 2;
        let pause = if alone { meeting.finding.interval.max(limits::GREETING_PAUSE) } else { limits::GREETING_PAUSE };
        world.sleep(pause).await;
    }
}

/// The addresses behind `host[:port]`; an IPv6 address with a port is in brackets.
async fn resolve(world: &World, text: &str, port: u16) -> Result<Vec<SocketAddr>> {
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, digits)) => {
            let wrong = |_| Error::Request(format!("{text:?} is no address: write host, or host:port"));
            (host, digits.parse().map_err(wrong)?)
        }
        None => (text, port),
    };
    let found = world.timeout(limits::GREETING_WAIT, world.net.resolve(host)).await;
    let found = found.ok_or_else(|| Error::Retry(format!("no answer for the name {host}")))?;
    let found = found.map_err(|e| Error::io(format!("cannot resolve {host}"), &e))?;
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(id: u128, sees: &[u128]) -> Greeting {
        let member = |id: u128| Member { name: format!("n{id}"), address: format!("10.0.0.{id}:8300") };
        let sees = sees.iter().map(|id| (Uuid::from_u128(*id), member(*id))).collect();
        Greeting { id: Uuid::from_u128(id), member: member(id), initialized: false, expect: 3, sees }
    }

    fn founds(own: &Greeting, others: &[Greeting]) -> bool {
        let address = SocketAddr::from(([10, 0, 0, 1], 8300));
        let greetings: Vec<_> = others.iter().map(|greeting| (address, greeting.clone())).collect();
        founders(own, &greetings).is_some_and(|members| members.len() == 3)
    }

    #[test]
    fn exactly_as_many_as_expected_that_see_each_other_found_a_cluster_and_the_lowest_does_it() {
        let all = [1, 2, 3];
        let [one, two, three] = all.map(|id| greeting(id, &all));
        assert!(founds(&one, &[two.clone(), three.clone()]));
        assert!(!founds(&two, &[one.clone(), three.clone()]), "it is not the lowest");
        assert!(!founds(&one, std::slice::from_ref(&two)), "one was not heard in this round");
        let wrong: [(&str, Greeting); 4] = [
            ("it sees one more", greeting(3, &[1, 2, 3, 4])),
            ("it does not see all", greeting(3, &[1, 3])),
            ("it has a cluster", Greeting { initialized: true, ..three.clone() }),
            ("it expects another number", Greeting { expect: 5, ..three.clone() }),
        ];
        for (why, third) in wrong {
            assert!(!founds(&one, &[two.clone(), third]), "{why}");
        }
        assert!(!founds(&one, &[two.clone(), three, greeting(4, &[1, 2, 3])]), "a fourth is there");
        let joins = Greeting { expect: 0, ..greeting(4, &[4]) };
        assert!(founds(&one, &[two.clone(), greeting(3, &all), joins]), "a fourth waits to join");
        let alone = Greeting { expect: 0, ..one };
        assert!(!founds(&alone, &[two]), "it only joins");
    }

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        crate::world::real::block_on(|world: World| async move {
            for (text, meant) in [
                ("10.0.0.1", "10.0.0.1:8300"),
                ("10.0.0.1:9", "10.0.0.1:9"),
                ("::1", "[::1]:8300"),
                ("[::1]", "[::1]:8300"),
                ("[::1]:9", "[::1]:9"),
            ] {
                assert_eq!(resolve(&world, text, 8300).await.unwrap(), [meant.parse().unwrap()], "{text}");
            }
            assert!(resolve(&world, "host:port", 8300).await.is_err());
        })
        .unwrap();
    }
}
