package pebblelog_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
)

// workload is a fixed sequence of steps, long enough that tables are flushed and write-ahead logs begun and used again.
type workload struct {
	steps []func(log *pebblelog.Log) (storage.Commit, error)
	// states[n] is what a log holds after n steps.
	states []string
}

func newWorkload(t testing.TB) *workload {
	t.Helper()
	w := &workload{}
	write := func(change storage.Write) {
		w.steps = append(w.steps, func(log *pebblelog.Log) (storage.Commit, error) { return log.Write(change) })
	}
	do := func(op func(log *pebblelog.Log) error) {
		w.steps = append(w.steps, func(log *pebblelog.Log) (storage.Commit, error) { return nil, op(log) })
	}
	peer := raft.Peer{ID: "n1", Incarnation: 1}
	do(func(log *pebblelog.Log) error { return log.SetIdentity(storage.Identity{Cluster: "c", Peer: peer}) })
	do(func(log *pebblelog.Log) error {
		return log.SetGenesis(storage.NewGenesis("c", []raft.Peer{peer}, 1<<20))
	})
	last := uint64(0)
	for round := range uint64(12) {
		term := round + 1
		write(storage.Write{Vote: &raft.Vote{Term: term, For: "n1"}})
		for range 3 {
			write(storage.Write{Append: entries(t, term, last+1, last+10, 2000)})
			last += 10
		}
		write(storage.Write{Vote: &raft.Vote{Term: term + 1}, TruncateFrom: last - 3, Append: entries(t, term+1, last-3, last-3, 10)})
		last -= 3
		if round%4 == 3 {
			upTo := raft.LogID{Term: term, Index: last - 10}
			do(func(log *pebblelog.Log) error { return log.Purge(upTo) })
		}
	}
	log := mustOpen(t, "log", small(newPowerDisk().fs))
	w.states = append(w.states, stateOf(t, log))
	for _, step := range w.steps {
		commit, err := step(log)
		if err == nil && commit != nil {
			err = commit.Wait()
		}
		if err != nil {
			t.Fatal(err)
		}
		w.states = append(w.states, stateOf(t, log))
	}
	return w
}

// stateOf says all that a log holds.
func stateOf(t testing.TB, log *pebblelog.Log) string {
	t.Helper()
	identity, _ := log.Identity()
	genesis, _ := log.Genesis()
	s := fmt.Sprintf("%v %v %v purged %v:", identity, genesis, log.Vote(), log.Purged())
	for index := log.Purged().Index + 1; index <= log.Last().Index; {
		list, err := log.Entries(nil, index, log.Last().Index+1, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			s += fmt.Sprintf(" %v/%d", e.ID, len(e.Data))
		}
		index += uint64(len(list))
	}
	return s
}

// progress is how far a run of the workload came.
type progress struct {
	started, acknowledged int // steps
}

// run runs the workload, and waits for what was written every few steps, until something fails. note, if not nil, is told each
// time that there is progress.
func (w *workload) run(log *pebblelog.Log, note func(progress)) (p progress, err error) {
	if note == nil {
		note = func(progress) {}
	}
	var commits []storage.Commit
	for n, step := range w.steps {
		p.started = n + 1
		note(p)
		commit, err := step(log)
		if err != nil {
			return p, fmt.Errorf("step %d: %w", n, err)
		}
		if commit != nil {
			commits = append(commits, commit)
		}
		if n%3 != 0 && n != len(w.steps)-1 {
			continue
		}
		for _, commit := range commits {
			if err := commit.Wait(); err != nil {
				return p, fmt.Errorf("wait after step %d: %w", n, err)
			}
		}
		if len(commits) > 0 && commit != nil { // a purge at the end need not be durable
			p.acknowledged = n + 1
			note(p)
		}
		commits = nil
	}
	return p, nil
}

// check says that a log that was opened after a crash holds the state after some step, not older than what was acknowledged.
func (w *workload) check(t testing.TB, log *pebblelog.Log, p progress) error {
	t.Helper()
	got := stateOf(t, log)
	if slices.Contains(w.states[p.acknowledged:p.started+1], got) {
		return nil
	}
	if before := slices.Index(w.states, got); before >= 0 {
		return fmt.Errorf("the log is in the state after step %d, but %d were acknowledged", before, p.acknowledged)
	}
	return errors.New("the log is in no state that it ever was in: " + strings.TrimSpace(got))
}
