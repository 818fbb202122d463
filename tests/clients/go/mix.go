// `quorate lock` and the Go client's helpers at the same locks and semaphores: each respects the other.
package main

import (
	"os"
	"os/exec"
	"time"

	"github.com/hashicorp/consul/api"
)

// Runs `quorate lock` to its end; whether it succeeded.
func quorateLock(args ...string) bool {
	return exec.Command(os.Getenv("QUORATE"), append([]string{"lock"}, args...)...).Run() == nil
}

func mix(client *api.Client) {
	theirs, err := client.LockOpts(&api.LockOptions{Key: "go/mix/.lock", SessionTTL: "10s", LockTryOnce: true, LockWaitTime: time.Second})
	must(err)
	held, err := theirs.Lock(nil)
	must(err)
	check(held != nil, "a lock")
	check(!quorateLock("-timeout=500ms", "go/mix", "true"), "quorate lock beside a Go client")
	must(theirs.Unlock())
	check(quorateLock("go/mix", "true"), "quorate lock after a Go client")

	ours := exec.Command(os.Getenv("QUORATE"), "lock", "-pass-stdin", "go/mix", "cat")
	end, err := ours.StdinPipe()
	must(err)
	must(ours.Start())
	holds := func() bool {
		pair, _, err := client.KV().Get("go/mix/.lock", nil)
		must(err)
		return pair != nil && pair.Session != "" && pair.Flags == api.LockFlagValue
	}
	for !holds() {
		time.Sleep(10 * time.Millisecond)
	}
	held, err = theirs.Lock(nil)
	must(err)
	check(held == nil, "a Go client beside quorate lock")
	must(end.Close())
	must(ours.Wait())
	held, err = theirs.Lock(nil)
	must(err)
	check(held != nil, "a Go client after quorate lock")
	must(theirs.Unlock())
	must(theirs.Destroy())

	semaphore := func() *api.Semaphore {
		semaphore, err := client.SemaphoreOpts(&api.SemaphoreOptions{
			Prefix: "go/several", Limit: 2, SessionTTL: "10s", SemaphoreTryOnce: true, SemaphoreWaitTime: time.Second,
		})
		must(err)
		return semaphore
	}
	first, second := semaphore(), semaphore()
	slot, err := first.Acquire(nil)
	must(err)
	check(slot != nil, "a slot")
	check(quorateLock("-n=2", "go/several", "true"), "a place beside a Go client's slot")
	check(!quorateLock("-n=3", "go/several", "true"), "another number of places")
	check(!quorateLock("go/several", "true"), "a lock where a semaphore is")
	slot, err = second.Acquire(nil)
	must(err)
	check(slot != nil, "the slot that was given back")
	check(!quorateLock("-n=2", "-timeout=500ms", "go/several", "true"), "a third place of two")
	must(first.Release())
	must(second.Release())
	check(quorateLock("-n=2", "go/several", "true"), "a place when all are free")
}
