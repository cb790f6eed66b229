package sim

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"quorate/node/raft"
	"quorate/node/sessions"
	"quorate/storage"
)

// machine is the state machine of one process: a few registers, and before them the real table of sessions, used as the running node
// uses it (applySome of package node): judge a batch, apply what is new, store the results, and keep the records with the state.
type machine struct {
	registers [registerKeys]uint64
	table     *sessions.Table
	// records are what the table gave to be stored with the state.
	records map[string][]byte
	// digest is over all that entries ever did to this state; time is the newest log time that was applied.
	digest uint64
	time   int64
	// outcomes of the pass under way, by index.
	outcomes map[uint64]outcome
}

// machineImage is a state at rest: on a disk, or in a snapshot.
type machineImage struct {
	registers [registerKeys]uint64
	records   []storage.SystemRecord
	digest    uint64
	time      int64
}

// outcome is how an entry is answered.
type outcome struct {
	id    raft.LogID
	value []byte
	// refused: its session is not known; it was not applied.
	refused bool
}

const registerKeys = 3

// Commands of the state machine; the answer is the register's value before.
const (
	putRegister = 1
	// compareAndSet changes only a register that has the expected value.
	compareAndSet = 2
)

// command makes the data of a write. All begin with a number of their own.
func command(number uint64, kind, key byte, expected uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, number)
	return binary.BigEndian.AppendUint64(append(b, kind, key), expected)
}

// payload is what an entry of a client is for the state machine: without its message id.
func payload(e *raft.Entry) []byte {
	if e.Kind != raft.EntryOnce {
		return e.Data
	}
	_, data, _ := sessions.SplitOnce(e.Data)
	return data
}

// numberOf is the number of the write that an entry carries, or zero.
func numberOf(e *raft.Entry) uint64 {
	if e.Kind != raft.EntryCommand && e.Kind != raft.EntryOnce {
		return 0
	}
	return binary.BigEndian.Uint64(payload(e))
}

// change applies a command. The value that it writes is its number, so each is written at most once.
func (m *machine) change(data []byte) []byte {
	if len(data) == 8 { // no register
		return nil
	}
	key, expected := data[9], binary.BigEndian.Uint64(data[10:])
	before := m.registers[key]
	if data[8] == putRegister || before == expected {
		m.registers[key] = binary.BigEndian.Uint64(data)
	}
	return binary.BigEndian.AppendUint64(nil, before)
}

func (m *machine) mix(v uint64) {
	m.digest = (m.digest ^ v) * 0x9E3779B97F4A7C15
	m.digest ^= m.digest >> 29
}

// applySome applies entries up to one, as many as fit into one batch: a retry whose first instance is in the batch begins the next.
func (p *process) applySome(upTo uint64) {
	m, w := &p.machine, p.w
	entries := p.disk.visible.entries[p.applied.Index:upTo]
	verdicts := make([]sessions.Verdict, 0, len(entries))
	for i := range entries {
		e := &entries[i]
		verdict, result := sessions.Apply, sessions.Result{}
		switch e.Kind {
		case raft.EntrySession:
			m.table.Register(e)
			m.answer(e, outcome{id: e.ID})
		case raft.EntryCommand, raft.EntryOnce:
			verdict, result = m.table.Judge(e)
		}
		switch verdict {
		case sessions.Known:
			m.answer(e, outcome{id: result.ID, value: result.Value})
			if e.Kind == raft.EntryOnce {
				w.happened(messageIDRetried)
			} else {
				w.happened(retryAnswered)
			}
		case sessions.Refused:
			m.answer(e, outcome{refused: true})
			w.happened(sessionRefused)
		}
		if verdict == sessions.Wait {
			break
		}
		verdicts = append(verdicts, verdict)
	}
	if len(verdicts) == 0 {
		w.fail("n%d: entry %v waits for itself", p.index+1, entries[0].ID)
		return
	}
	for i, verdict := range verdicts {
		e := &entries[i]
		w.oracle.applies(p, *e)
		if number := numberOf(e); number != 0 && verdict == sessions.Apply {
			o := outcome{id: e.ID, value: m.change(payload(e))}
			m.answer(e, o)
			if e.Session != 0 || e.Kind == raft.EntryOnce {
				m.table.Store(e, o.value)
			}
			m.mix(number)
			w.effects.applied(p, number, o)
		}
		m.mix(e.ID.Index<<8 | uint64(verdict))
		if e.Time > 0 && e.Time < m.time {
			w.fail("log time goes back at entry %v", e.ID)
		}
		m.time = max(m.time, e.Time)
		p.applied = e.ID
		w.effects.state(p, m.digest)
	}
	for _, record := range m.table.TakeRecords() {
		if len(record.Value) == 0 {
			delete(m.records, record.Key)
		} else {
			m.records[record.Key] = record.Value
		}
	}
}

func (m *machine) answer(e *raft.Entry, o outcome) { m.outcomes[e.ID.Index] = o }

// image is the state as it is now, with the records that were stored one by one.
func (m *machine) image() machineImage {
	image := machineImage{registers: m.registers, digest: m.digest, time: m.time}
	for _, key := range slices.Sorted(maps.Keys(m.records)) {
		image.records = append(image.records, storage.SystemRecord{Key: key, Value: m.records[key]})
	}
	return image
}

// snapshot is the state as it goes into the object store, with the whole table asked for at once. Both must be the same.
func (p *process) snapshot() machineImage {
	image := p.machine.image()
	all := p.machine.table.AllRecords()
	same := func(a, b storage.SystemRecord) bool { return a.Key == b.Key && string(a.Value) == string(b.Value) }
	if !slices.EqualFunc(all, image.records, same) {
		p.w.fail("n%d: the session table in memory is not what was stored record by record", p.index+1)
	}
	image.records = all
	p.w.effects.records(p, all)
	return image
}

// load brings the machine to a state at rest.
func (p *process) load(image machineImage) {
	table, err := sessions.Load(image.records)
	if err != nil {
		p.w.fail("n%d: %w", p.index+1, err)
		return
	}
	p.machine = machine{
		registers: image.registers, table: table, records: map[string][]byte{}, digest: image.digest, time: image.time,
		outcomes: map[uint64]outcome{},
	}
	for _, record := range image.records {
		p.machine.records[record.Key] = record.Value
	}
	p.lastTime = max(p.lastTime, image.time)
}

// flush makes the state durable.
func (p *process) flush() {
	p.disk.flushed, p.disk.state = p.applied, p.machine.image()
	p.w.effects.records(p, p.disk.state.records)
}

// noteTimes keeps the newest log time of what is written here, so that time does not go back when this node leads.
func (p *process) noteTimes(entries []raft.Entry) {
	for i := range entries {
		p.lastTime = max(p.lastTime, entries[i].Time)
	}
}

// logTime is the time that a leader gives a new entry.
func (p *process) logTime(now time.Time) int64 {
	p.lastTime = max(p.lastTime, now.UnixNano())
	return p.lastTime
}
