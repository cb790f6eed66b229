package sim

import (
	"encoding/binary"
	"fmt"

	"github.com/anishathalye/porcupine"
)

// history is what the callers saw of the registers, for porcupine to judge: it looks for one order of all calls that explains every
// answer and contradicts no client's clock.
type history struct {
	ops []porcupine.Operation
	// clock orders calls and returns; no two are at the same time.
	clock int64
}

// registerInput is a call. Each value is written by one call at most.
type registerInput struct {
	kind            byte // 0 reads
	key             byte
	value, expected uint64
}

// registerOutput is its answer: the value before it. A call without an answer has nil in its place.
type registerOutput struct{ before uint64 }

// mostCalls bounds a history, so that judging it takes no time to speak of.
const mostCalls = 400

func (h *history) tick() int64 {
	h.clock++
	return h.clock
}

// invoke notes a call, and returns where it stands.
func (h *history) invoke(client int, in registerInput) int {
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: h.tick()})
	return len(h.ops) - 1
}

func (h *history) answered(at int, before uint64) {
	h.ops[at].Output, h.ops[at].Return = registerOutput{before}, h.tick()
}

var registers = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		in, now := input.(registerInput), state.(uint64)
		if out, ok := output.(registerOutput); ok && out.before != now {
			return false, state
		}
		if in.kind == putRegister || in.kind == compareAndSet && in.expected == now {
			return true, in.value
		}
		return true, state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// check judges each register by itself: linearizability is local. A write without an answer may take effect at any time after its
// call, or never. Whose value nobody ever saw can as well have been the last, so it is left out.
func (h *history) check() error {
	seen := map[uint64]bool{}
	for _, op := range h.ops {
		if out, ok := op.Output.(registerOutput); ok {
			seen[out.before] = true
		}
	}
	var byKey [registerKeys][]porcupine.Operation
	for _, op := range h.ops {
		in := op.Input.(registerInput)
		if op.Output == nil {
			if !seen[in.value] || in.kind == 0 {
				continue
			}
			op.Return = h.tick()
		}
		byKey[in.key] = append(byKey[in.key], op)
	}
	for key, ops := range byKey {
		if !porcupine.CheckOperations(registers, fewerReads(ops)) {
			s := ""
			for _, op := range ops {
				s += fmt.Sprintf("\n%6d to %6d, client %d: %s", op.Call, op.Return, op.ClientId, registers.DescribeOperation(op.Input, op.Output))
			}
			return fmt.Errorf("linearizability: no order explains what the clients saw of register %d:%s", key, s)
		}
	}
	return nil
}

// fewerReads leaves out reads of a register that decide nothing: porcupine's work doubles with each read that overlaps the others. A register has a
// value once, from its write to the next one, since no value is written twice; so of the reads that saw it, the one that returned first and the
// one that was called last say all: any other can stand between them, or contains both of their places.
func fewerReads(ops []porcupine.Operation) []porcupine.Operation {
	type extremes struct{ returned, called int } // where the two stand
	reads := map[uint64]extremes{}
	value := func(op porcupine.Operation) (uint64, bool) {
		out, answered := op.Output.(registerOutput)
		return out.before, answered && op.Input.(registerInput).kind == 0
	}
	for i, op := range ops {
		v, isRead := value(op)
		if !isRead {
			continue
		}
		x, known := reads[v]
		if !known {
			x = extremes{i, i}
		}
		if op.Return < ops[x.returned].Return {
			x.returned = i
		}
		if op.Call > ops[x.called].Call {
			x.called = i
		}
		reads[v] = x
	}
	var fewer []porcupine.Operation
	for i, op := range ops {
		if v, isRead := value(op); !isRead || reads[v].returned == i || reads[v].called == i {
			fewer = append(fewer, op)
		}
	}
	return fewer
}

func beforeOf(o outcome) uint64 { return binary.BigEndian.Uint64(o.value) }
