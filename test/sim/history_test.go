package sim

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// TestFewerReadsSayTheSame judges small histories, right ones and wrong ones, with all of their reads and with fewer.
func TestFewerReadsSayTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	right, fewer := 0, 0
	const histories = 20_000
	for range histories {
		ops := randomHistory(rng)
		left := fewerReads(ops)
		want, got := porcupine.CheckOperations(registers, ops), porcupine.CheckOperations(registers, left)
		if got != want {
			t.Fatalf("of %+v it leaves %+v: linearizable %v, was %v", ops, left, got, want)
		}
		if want {
			right++
		}
		if len(left) < len(ops) {
			fewer++
		}
	}
	if right < histories/20 || right > histories*19/20 || fewer < histories/20 {
		t.Errorf("of %d histories %d are linearizable, and %d have reads too many: little is tested", histories, right, fewer)
	}
}

// randomHistory calls a register at random, some calls at the same time; the answers are right or nearly so.
func randomHistory(rng *rand.Rand) []porcupine.Operation {
	var ops []porcupine.Operation
	now := uint64(0)
	for i := range 3 + rng.IntN(8) {
		at := int64(10*i + 1)
		op := porcupine.Operation{
			ClientId: i, Input: registerInput{}, Output: registerOutput{now},
			Call: 2*(at-rng.Int64N(30)) - 1, Return: 2 * (at + rng.Int64N(30)),
		}
		if i > 0 && rng.IntN(12) == 0 {
			op.Output = registerOutput{uint64(rng.IntN(i))}
		}
		if rng.IntN(3) == 0 {
			in := registerInput{kind: putRegister, value: uint64(i + 1)}
			if rng.IntN(3) == 0 {
				in.kind, in.expected = compareAndSet, uint64(rng.IntN(i+1))
			}
			if in.kind == putRegister || in.expected == now {
				now = in.value
			}
			op.Input = in
		}
		ops = append(ops, op)
	}
	return ops
}

// TestManyReadsAtATimeAreSoonJudged: what seed 167055 came to. Many callers read while a write, whose answer was lost, may have taken effect
// before another one or after it.
func TestManyReadsAtATimeAreSoonJudged(t *testing.T) {
	h := &history{}
	lost := h.invoke(0, registerInput{kind: putRegister, value: 1})
	overtaken := h.invoke(1, registerInput{kind: putRegister, value: 2})
	var reads []int
	for i := range 60 {
		reads = append(reads, h.invoke(2+i, registerInput{}))
	}
	for _, at := range reads {
		h.answered(at, 1)
	}
	h.answered(overtaken, 0)
	if h.ops[lost].Output != nil {
		t.Fatal("the write has an answer")
	}
	done := make(chan error, 1)
	go func() { done <- h.check() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it is not judged yet")
	}
}
