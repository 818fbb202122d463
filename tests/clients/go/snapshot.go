// Backups: saved and restored by the Go client, with the envelope that Consul's own tools look for.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/consul/api"
)

// What Consul's raft library keeps beside a snapshot.
type snapshotMeta struct {
	Version       int
	ID            string
	Index, Term   uint64
	Peers         []byte
	Configuration struct {
		Servers []struct {
			Suffrage    int
			ID, Address string
		}
	}
	ConfigurationIndex uint64
	Size               int64
}

// The files of a backup, and nothing behind them.
func unpack(backup []byte) map[string][]byte {
	unzipped, err := gzip.NewReader(bytes.NewReader(backup))
	must(err)
	files := map[string][]byte{}
	archive := tar.NewReader(unzipped)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		must(err)
		files[header.Name], err = io.ReadAll(archive)
		must(err)
	}
	rest, err := io.ReadAll(unzipped)
	must(err)
	check(len(rest) == 0, "what follows the tar", len(rest))
	return files
}

func snapshots(client *api.Client) {
	kv := client.KV()
	_, err := kv.Put(&api.KVPair{Key: "go/kept", Value: []byte("1")}, nil)
	must(err)
	saved, meta, err := client.Snapshot().Save(nil)
	must(err)
	backup, err := io.ReadAll(saved)
	must(err)
	must(saved.Close())
	check(meta.LastIndex > 0 && meta.KnownLeader, "a backup's headers", meta)

	files := unpack(backup)
	check(len(files) == 3, "files", len(files))
	var described snapshotMeta
	must(json.Unmarshal(files["meta.json"], &described))
	check(described.Version == 1 && described.Index > 0 && described.Term > 0, "meta.json", described)
	check(described.Size == int64(len(files["state.bin"])), "the size", described.Size)
	check(len(described.Configuration.Servers) == 1, "servers", described.Configuration)
	for _, line := range strings.Split(strings.TrimSpace(string(files["SHA256SUMS"])), "\n") {
		sum, name := make([]byte, sha256.Size), ""
		_, err := fmt.Sscanf(line, "%x  %s", &sum, &name)
		must(err)
		check(sha256.Sum256(files[name]) == [sha256.Size]byte(sum), "the sum of", name)
	}

	_, err = kv.Put(&api.KVPair{Key: "go/kept", Value: []byte("2")}, nil)
	must(err)
	_, before, err := kv.Get("go/kept", nil)
	must(err)
	must(client.Snapshot().Restore(nil, bytes.NewReader(backup)))
	pair, after, err := kv.Get("go/kept", nil)
	must(err)
	check(string(pair.Value) == "1" && after.LastIndex > before.LastIndex, "a restore", pair, after)
	err = client.Snapshot().Restore(nil, strings.NewReader("no backup"))
	check(err != nil && strings.Contains(err.Error(), "gzip"), "what is no backup", err)
}
