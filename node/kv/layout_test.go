package kv

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

var anyKey = rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 'a', 'b', 0xfe, 0xff}), 1, 6)

func TestVersionKeysSortByKeyThenNewestFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyKey.Draw(t, "a"), anyKey.Draw(t, "b")
		ra, rb := rapid.Uint64().Draw(t, "revision of a"), rapid.Uint64().Draw(t, "revision of b")
		want := bytes.Compare(a, b)
		if want == 0 && ra != rb {
			if want = 1; ra > rb {
				want = -1
			}
		}
		if got := bytes.Compare(appendVersionKey(nil, a, ra), appendVersionKey(nil, b, rb)); got != want {
			t.Fatalf("%q@%d against %q@%d: %d, want %d", a, ra, b, rb, got, want)
		}
		key, revision, err := splitVersionKey(nil, appendVersionKey(nil, a, ra))
		if err != nil || !bytes.Equal(key, a) || revision != ra {
			t.Fatalf("%q@%d came back as %q@%d (%v)", a, ra, key, revision, err)
		}
	})
}

func FuzzSplitVersionKey(f *testing.F) {
	f.Add(appendVersionKey(nil, []byte("a\x00b"), 7))
	f.Add([]byte("k\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, revision, err := splitVersionKey(nil, b)
		if err == nil && !bytes.Equal(appendVersionKey(nil, key, revision), b) {
			t.Fatalf("%x was split into %q@%d, which is another key", b, key, revision)
		}
	})
}

func FuzzSplitRecord(f *testing.F) {
	f.Add([]byte{recordValue, 0, 0, 0, 0, 0, 0, 0, 1, 'v'})
	f.Add([]byte{recordTombstone, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		deleted, at, value, err := splitRecord(b)
		if err != nil {
			return
		}
		kind := byte(recordValue)
		if deleted {
			kind = recordTombstone
		}
		again := make([]byte, recordHeader+len(value))
		if putRecord(again, kind, at, value); !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x", b, again)
		}
	})
}

func FuzzDecodeCommand(f *testing.F) {
	for _, ops := range [][]op{{{put: true, key: "a", value: "1"}}, {{key: "a"}, {put: true, key: "b", conditional: true, expected: 3}}} {
		f.Add(encodeOps(f, ops))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		command, err := decodeCommand(b)
		if err != nil {
			return
		}
		again, err := encodeCommand(command.Ops)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := decodeCommand(again); err != nil || len(second.Ops) != len(command.Ops) {
			t.Fatalf("%v came back as %v (%v)", command, second, err)
		}
	})
}
