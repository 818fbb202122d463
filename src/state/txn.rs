//! Transactions (consul.md 2.5): operations in order, all or none of them, in one entry and one revision.
//!
//! Each operation sees what those before it did. All of them are tried even when one has failed, so that every error is
//! reported. A state is persistent, so giving up is going back to the clone from before. A transaction that only reads needs
//! no entry: [`State::read_transaction`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::catalog::{Check, CheckRow, Node, NodeRow, Service, ServiceRow};
use super::kv::KvRow;
use super::{Key, Reply, State, Step};
use crate::error::{Error, Result};
use crate::limits::{MAX_TXN_OPERATIONS, MAX_TXN_RESULTS};

/// One operation. New ones are added at the end, as everywhere in a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// On a key.
    Kv {
        /// The key, or the prefix.
        key: Key,
        /// What to do.
        verb: KvVerb,
    },
    /// Destroys a session; one that does not exist is.
    SessionDelete(Uuid),
    /// On a node.
    Node {
        /// The node; reads and deletions look at its id if it has one, otherwise at its name.
        node: Node,
        /// What to do.
        verb: CatalogVerb,
    },
    /// On an instance of a service.
    Service {
        /// Its node.
        node: String,
        /// The instance; reads and deletions look at its id only.
        service: Service,
        /// What to do.
        verb: CatalogVerb,
    },
    /// On a check.
    Check {
        /// Its node.
        node: String,
        /// The check; reads and deletions look at its id only.
        check: Check,
        /// What to do.
        verb: CatalogVerb,
    },
}

/// What to do with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvVerb {
    /// Writes it.
    Set {
        /// Its value.
        value: Bytes,
        /// The client's opaque number.
        flags: u64,
    },
    /// Writes it if its ModifyIndex is this, 0 if it is absent.
    Cas {
        /// Its value.
        value: Bytes,
        /// The client's opaque number.
        flags: u64,
        /// The index.
        index: u64,
    },
    /// Makes a session its holder, and writes it.
    Lock {
        /// Its value.
        value: Bytes,
        /// The client's opaque number.
        flags: u64,
        /// The session.
        session: Uuid,
    },
    /// Has a session let go of it, and writes it; under that fence only, if there is one (G5).
    Unlock {
        /// Its value.
        value: Bytes,
        /// The client's opaque number.
        flags: u64,
        /// The session.
        session: Uuid,
        /// The fence.
        fence: Option<u64>,
    },
    /// Reads it; it must exist.
    Get,
    /// Reads it, or nothing.
    GetOrEmpty,
    /// Reads everything with the prefix.
    GetTree,
    /// Deletes it.
    Delete,
    /// Deletes it if its ModifyIndex is this.
    DeleteCas(u64),
    /// Deletes everything with the prefix.
    DeleteTree,
    /// Fails unless this session holds it.
    CheckSession(Option<Uuid>),
    /// Fails unless its ModifyIndex is this.
    CheckIndex(u64),
    /// Fails if it exists.
    CheckNotExists,
    /// Fails unless it is held under this fence (G3).
    CheckFence(u64),
}

/// What to do with a thing of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogVerb {
    /// Registers it.
    Set,
    /// Registers it if its ModifyIndex is this, 0 if it is absent.
    Cas(u64),
    /// Reads it; it must exist.
    Get,
    /// Deregisters it.
    Delete,
    /// Deregisters it if its ModifyIndex is this.
    DeleteCas(u64),
}

impl Operation {
    /// Whether it changes nothing, whatever the state.
    pub fn only_reads(&self) -> bool {
        match self {
            Operation::Kv { verb, .. } => !matches!(
                verb,
                KvVerb::Set { .. }
                    | KvVerb::Cas { .. }
                    | KvVerb::Lock { .. }
                    | KvVerb::Unlock { .. }
                    | KvVerb::Delete
                    | KvVerb::DeleteCas(_)
                    | KvVerb::DeleteTree
            ),
            Operation::SessionDelete(_) => false,
            Operation::Node { verb, .. } | Operation::Service { verb, .. } | Operation::Check { verb, .. } => {
                *verb == CatalogVerb::Get
            }
        }
    }
}

/// What an operation gives. Only reads give values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Given {
    /// A key; its row is all zeros if it is absent.
    Kv(Key, KvRow),
    /// A node.
    Node(NodeRow),
    /// An instance.
    Service(ServiceRow),
    /// A check.
    Check(CheckRow),
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which, from 0.
    pub operation: u32,
    /// Why, in Consul's words where clients look at them.
    pub why: String,
}

impl State {
    /// Executes a transaction. Nothing is changed if an operation fails.
    pub(super) fn transact(&mut self, operations: &[Operation], step: &mut Step<'_>) -> Result<Reply> {
        if operations.len() > MAX_TXN_OPERATIONS {
            let (found, most) = (operations.len(), MAX_TXN_OPERATIONS);
            return Err(Error::TooLarge(format!("the transaction has {found} operations, the limit is {most}")));
        }
        let mut failures = Vec::new();
        let done = self.all_or_nothing(step, |state, step| {
            let given = state.attempt(operations, step).map_err(|failed| {
                failures = failed;
                Error::Request("an operation failed".into())
            })?;
            let size = given.iter().map(size).sum::<usize>();
            if size > MAX_TXN_RESULTS {
                return Err(Error::TooLarge(format!(
                    "a transaction that writes may read {MAX_TXN_RESULTS} bytes, this one read {size}: read in one of its own"
                )));
            }
            Ok(Reply::Committed(given))
        });
        if failures.is_empty() { done } else { Ok(Reply::RolledBack(failures)) }
    }

    /// Executes a transaction that only reads. One that does not is executed on a copy.
    ///
    /// # Errors
    /// The operations that failed.
    pub fn read_transaction(&self, operations: &[Operation]) -> Result<Vec<Given>, Vec<Failure>> {
        let mut copy = self.clone();
        copy.attempt(operations, &mut Step::new(self.revision + 1, 0, self.log_time, &mut Vec::new()))
    }

    fn attempt(&mut self, operations: &[Operation], step: &mut Step<'_>) -> Result<Vec<Given>, Vec<Failure>> {
        let (mut given, mut failures) = (Vec::new(), Vec::new());
        for (operation, number) in operations.iter().zip(0..) {
            let done = self.operate(operation, &mut given, step);
            // At once: what comes next finds the lock held.
            if let Err(error) = done.and_then(|()| self.hand_over_freed(step)) {
                failures.push(Failure { operation: number, why: error.to_string() });
            }
        }
        if failures.is_empty() { Ok(given) } else { Err(failures) }
    }

    fn operate(&mut self, operation: &Operation, given: &mut Vec<Given>, step: &mut Step<'_>) -> Result<()> {
        match operation {
            Operation::Kv { key, verb } => self.operate_key(key, verb, given, step),
            Operation::SessionDelete(id) => self.destroy_session(*id, step).map(drop),
            Operation::Node { node, verb } => {
                let name = match node.id.and_then(|id| self.catalog.node_by_id(id)) {
                    Some(row) if !matches!(verb, CatalogVerb::Set | CatalogVerb::Cas(_)) => row.node.name.clone(),
                    _ => node.name.clone(),
                };
                let found = |state: &State| {
                    state.catalog.node(&name).map(|row| (row.modify_index, Given::Node(NodeRow::clone(row))))
                };
                self.operate_catalog(*verb, ("node", &name), given, found, |state, write| match write {
                    Write::Put => state.put_node(node, step),
                    Write::Remove => {
                        state.remove_node(&name, step);
                        Ok(())
                    }
                })
            }
            Operation::Service { node, service, verb } => {
                let found = |state: &State| {
                    state
                        .catalog
                        .service(node, &service.id)
                        .map(|row| (row.modify_index, Given::Service(ServiceRow::clone(row))))
                };
                self.operate_catalog(*verb, ("service", &service.id), given, found, |state, write| match write {
                    Write::Put => state.put_service(node, service, step),
                    Write::Remove => {
                        state.remove_service(node, &service.id, step);
                        Ok(())
                    }
                })
            }
            Operation::Check { node, check, verb } => {
                let found = |state: &State| {
                    state
                        .catalog
                        .check(node, &check.id)
                        .map(|row| (row.modify_index, Given::Check(CheckRow::clone(row))))
                };
                self.operate_catalog(*verb, ("check", &check.id), given, found, |state, write| match write {
                    Write::Put => state.put_check(node, check, step),
                    Write::Remove => {
                        state.remove_check(node, &check.id, step);
                        Ok(())
                    }
                })
            }
        }
    }

    fn operate_key(&mut self, key: &Key, verb: &KvVerb, given: &mut Vec<Given>, step: &mut Step<'_>) -> Result<()> {
        let row = self.kv.get(key.as_bytes());
        match verb {
            KvVerb::Set { .. } | KvVerb::Cas { .. } => {
                holds(self.kv.write(key, verb, step)?, || format!("failed to set key \"{key}\", index is stale"))?;
                given.extend(self.without_value(key));
            }
            KvVerb::Lock { value, flags, session } => {
                if self.sessions.get(*session).is_none() {
                    return Err(Error::Request(format!("failed to lock key \"{key}\", invalid session \"{session}\"")));
                }
                let held = row.is_some_and(|row| row.holder.is_some());
                if !held && self.delays.holds(key, step.time) {
                    return Err(Error::Request(format!("failed to lock key \"{key}\" due to lock delay")));
                }
                let granted = matches!(self.acquire(key, value, *flags, *session, step)?, Reply::Granted { .. });
                holds(granted, || format!("failed to lock key \"{key}\", lock is already held"))?;
                given.extend(self.without_value(key));
            }
            KvVerb::Unlock { value, flags, session, fence } => {
                holds(self.kv.release(key, value, *flags, (*session, *fence), step)?, || {
                    format!("failed to unlock key \"{key}\", lock isn't held, or is held by another session")
                })?;
                given.extend(self.without_value(key));
            }
            KvVerb::Get => {
                let row = row.ok_or_else(|| Error::Request(format!("key \"{key}\" doesn't exist")))?;
                given.push(Given::Kv(key.clone(), KvRow::clone(row)));
            }
            KvVerb::GetOrEmpty => {
                given.push(Given::Kv(key.clone(), row.map_or_else(KvRow::default, |row| KvRow::clone(row))));
            }
            KvVerb::GetTree => {
                let rows = self.kv.prefix(key.as_bytes()).map(|(key, row)| Given::Kv(key.clone(), KvRow::clone(row)));
                given.extend(rows);
            }
            KvVerb::Delete | KvVerb::DeleteCas(_) | KvVerb::DeleteTree => {
                holds(self.kv.write(key, verb, step)?, || format!("failed to delete key \"{key}\", index is stale"))?;
            }
            KvVerb::CheckSession(..) | KvVerb::CheckIndex(_) | KvVerb::CheckNotExists | KvVerb::CheckFence(_) => {
                check_key(key, row.map(|row| &**row), verb)?;
                if *verb != KvVerb::CheckNotExists {
                    given.extend(self.without_value(key));
                }
            }
        }
        Ok(())
    }

    /// A key as what writes it gives it.
    fn without_value(&self, key: &Key) -> Option<Given> {
        let row = self.kv.get(key.as_bytes())?;
        Some(Given::Kv(key.clone(), KvRow { value: Bytes::new(), ..KvRow::clone(row) }))
    }

    /// What is the same of nodes, services and checks: what is there, and what a verb makes of it.
    fn operate_catalog(
        &mut self,
        verb: CatalogVerb,
        (kind, name): (&str, &str),
        given: &mut Vec<Given>,
        found: impl Fn(&State) -> Option<(u64, Given)>,
        write: impl FnOnce(&mut State, Write) -> Result<()>,
    ) -> Result<()> {
        let there = found(self);
        let index = there.as_ref().map_or(0, |(index, _)| *index);
        let stale = |doing: &str| Err(Error::Request(format!("failed to {doing} {kind} \"{name}\", index is stale")));
        match verb {
            CatalogVerb::Cas(expected) if expected != index => return stale("set"),
            CatalogVerb::DeleteCas(expected) if there.is_some() && expected != index => return stale("delete"),
            CatalogVerb::Set | CatalogVerb::Cas(_) => write(self, Write::Put)?,
            CatalogVerb::Delete | CatalogVerb::DeleteCas(_) => return write(self, Write::Remove),
            CatalogVerb::Get => {}
        }
        let (_, row) = found(self).ok_or_else(|| Error::Request(format!("{kind} \"{name}\" doesn't exist")))?;
        given.push(row);
        Ok(())
    }
}

/// What a verb of the catalog writes.
enum Write {
    Put,
    Remove,
}

/// The verbs that only check a key.
fn check_key(key: &Key, row: Option<&KvRow>, verb: &KvVerb) -> Result<()> {
    let failed = |why: String| Err(Error::Request(why));
    let Some(row) = row else {
        return match verb {
            KvVerb::CheckNotExists => Ok(()),
            KvVerb::CheckFence(fence) => {
                failed(format!("failed fence check for key \"{key}\", it is not held, not even under fence {fence}"))
            }
            KvVerb::CheckSession(_) => failed(format!("failed session check for key \"{key}\", key doesn't exist")),
            _ => failed(format!("failed index check for key \"{key}\", key doesn't exist")),
        };
    };
    let session = row.holder.map(|holder| holder.session);
    match verb {
        KvVerb::CheckNotExists => failed(format!("key \"{key}\" exists")),
        KvVerb::CheckSession(expected) if session != *expected => {
            let show = |id: Option<Uuid>| id.map_or(String::new(), |id| id.to_string());
            let (current, expected) = (show(session), show(*expected));
            failed(format!("failed session check for key \"{key}\", current session \"{current}\" != \"{expected}\""))
        }
        KvVerb::CheckIndex(expected) if row.modify_index != *expected => {
            let current = row.modify_index;
            failed(format!("failed index check for key \"{key}\", current modify index {current} != {expected}"))
        }
        KvVerb::CheckFence(expected) => match row.holder {
            Some(holder) if holder.fence == *expected => Ok(()),
            Some(holder) => {
                let current = holder.fence;
                failed(format!("failed fence check for key \"{key}\", current fence {current} != {expected}"))
            }
            None => {
                failed(format!("failed fence check for key \"{key}\", it is not held, not even under fence {expected}"))
            }
        },
        _ => Ok(()),
    }
}

fn holds(condition: bool, why: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::Request(why())) }
}

/// What it takes in an answer, about.
fn size(given: &Given) -> usize {
    match given {
        Given::Kv(key, row) => key.as_bytes().len() + row.value.len() + 64,
        // Registered through a body of at most this.
        Given::Node(_) | Given::Service(_) | Given::Check(_) => crate::limits::KIB,
    }
}
