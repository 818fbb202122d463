// The official Go client of Consul, unmodified, against one agent: keys, sessions, its lock and semaphore helpers,
// transactions, blocking waits, the catalog, backups. Ends with 0 if everything is as with Consul. See ../run.
package main

import (
	"fmt"
	"log"
	"time"

	"github.com/hashicorp/consul/api"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func check(ok bool, what string, got ...any) {
	if !ok {
		log.Fatalf("%s: %v", what, got)
	}
}

func main() {
	client, err := api.NewClient(api.DefaultConfig())
	must(err)
	kv := client.KV()

	_, err = kv.Put(&api.KVPair{Key: "go/a", Value: []byte("1"), Flags: 7}, nil)
	must(err)
	pair, meta, err := kv.Get("go/a", nil)
	must(err)
	check(string(pair.Value) == "1" && pair.Flags == 7 && meta.KnownLeader, "get", pair, meta)
	done, _, err := kv.CAS(&api.KVPair{Key: "go/a", Value: []byte("2"), ModifyIndex: pair.ModifyIndex}, nil)
	must(err)
	check(done, "cas")

	woken := make(chan uint64)
	go func() {
		_, waited, err := kv.Get("go/a", &api.QueryOptions{WaitIndex: meta.LastIndex + 1, WaitTime: time.Minute})
		must(err)
		woken <- waited.LastIndex
	}()
	_, err = kv.Put(&api.KVPair{Key: "go/a", Value: []byte("3")}, nil)
	must(err)
	check(<-woken > meta.LastIndex, "a blocking wait")

	first, err := client.LockOpts(&api.LockOptions{Key: "go/lock", SessionTTL: "10s", Value: []byte("first")})
	must(err)
	lost, err := first.Lock(nil)
	must(err)
	second, err := client.LockOpts(&api.LockOptions{Key: "go/lock", SessionTTL: "10s", LockTryOnce: true, LockWaitTime: time.Second})
	must(err)
	refused, err := second.Lock(nil)
	must(err)
	check(refused == nil, "a second holder")
	must(first.Unlock())
	<-lost
	held, err := second.Lock(nil)
	must(err)
	check(held != nil, "the lock after its release")
	must(second.Unlock())
	must(second.Destroy())

	var semaphores []*api.Semaphore
	for range 3 {
		semaphore, err := client.SemaphoreOpts(&api.SemaphoreOptions{
			Prefix: "go/semaphore", Limit: 2, SessionTTL: "10s", SemaphoreTryOnce: true, SemaphoreWaitTime: time.Second,
		})
		must(err)
		semaphores = append(semaphores, semaphore)
	}
	for number, semaphore := range semaphores {
		slot, err := semaphore.Acquire(nil)
		must(err)
		check((slot != nil) == (number < 2), "slots of a semaphore", number)
	}
	must(semaphores[0].Release())
	slot, err := semaphores[2].Acquire(nil)
	must(err)
	check(slot != nil, "the slot that was given back")
	must(semaphores[1].Release())
	must(semaphores[2].Release())
	mix(client)

	ok, answer, _, err := client.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "go/t", Value: []byte("1")}},
		{KV: &api.KVTxnOp{Verb: api.KVGet, Key: "go/t"}},
		{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: "go-node", Address: "10.0.0.1"}}},
	}, nil)
	must(err)
	check(ok && len(answer.Results) == 3 && string(answer.Results[1].KV.Value) == "1", "a transaction", answer)
	ok, answer, _, err = client.Txn().Txn(api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: "go/t"}}}, nil)
	must(err)
	check(!ok && answer.Errors[0].OpIndex == 0, "a transaction that fails", answer)

	_, err = client.Catalog().Register(&api.CatalogRegistration{
		Node: "go-node", Address: "10.0.0.1",
		Service: &api.AgentService{ID: "web-1", Service: "web", Port: 80, Tags: []string{"v1"}},
		Check:   &api.AgentCheck{Node: "go-node", CheckID: "web", Name: "alive", Status: api.HealthPassing, ServiceID: "web-1"},
	}, nil)
	must(err)
	healthy, _, err := client.Health().Service("web", "v1", true, nil)
	must(err)
	check(len(healthy) == 1 && healthy[0].Service.Port == 80 && healthy[0].Checks.AggregatedStatus() == api.HealthPassing, "health", healthy)
	_, err = client.Catalog().Deregister(&api.CatalogDeregistration{Node: "go-node"}, nil)
	must(err)
	nodes, _, err := client.Catalog().Nodes(nil)
	must(err)
	check(len(nodes) == 1, "nodes", nodes)
	sessions, _, err := client.Session().List(nil)
	must(err)
	check(len(sessions) == 0, "what the helpers leave", sessions)
	snapshots(client)
	fmt.Println("Go: as with Consul")
}
