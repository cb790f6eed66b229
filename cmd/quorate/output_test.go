package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"quorate/node/kv"
)

func TestValueIsPrintedAsItIs(t *testing.T) {
	for _, value := range []string{"", "hello", "line\n", "\x00\xff\r\n", "no newline"} {
		var out bytes.Buffer
		a := &app{stdout: &out, output: outputText}
		if err := a.printValue(kv.Entry{Key: "k", Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
		if out.String() != value {
			t.Errorf("value %q was printed as %q", value, out.String())
		}
	}
}

func TestEntryAsJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	for _, c := range []struct{ key, value, want string }{
		{"k", "v", `{"key":"k","value":"v","revision":7,"time":"2026-01-02T02:04:05.000000006Z"}`},
		{"k", "", `{"key":"k","value":"","revision":7,"time":"2026-01-02T02:04:05.000000006Z"}`},
		{"<k>", "a\n\"b\"&", `{"key":"<k>","value":"a\n\"b\"&","revision":7,"time":"2026-01-02T02:04:05.000000006Z"}`},
		{"\xff", "\x00\xfe", `{"key_base64":"/w==","value_base64":"AP4=","revision":7,"time":"2026-01-02T02:04:05.000000006Z"}`},
	} {
		var out bytes.Buffer
		a := &app{stdout: &out, output: outputJSON}
		if err := a.printValue(kv.Entry{Key: c.key, Value: []byte(c.value), Revision: 7, Time: at}); err != nil {
			t.Fatal(err)
		}
		if out.String() != c.want+"\n" {
			t.Errorf("key %q, value %q:\n got %swant %s", c.key, c.value, out.String(), c.want)
		}
	}
}

// Who sees only that the disk is full must not think that nothing was written.
func TestAWriteThatCannotBeReportedIsSaidToBeDone(t *testing.T) {
	for _, output := range []string{outputText, outputJSON} {
		full := fullDisk{errors.New("no space left on device")}
		a := &app{stdout: full, output: output}
		if err := a.printWritten("k", 7); !errors.Is(err, full.err) || !strings.Contains(err.Error(), "revision 7") {
			t.Errorf("%s: %v", output, err)
		}
	}
}

func FuzzEntryAsJSONIsLossless(f *testing.F) {
	f.Add("key", []byte("value"))
	f.Add("\xff\x00", []byte("\u2028\xc3\x28"))
	f.Add("", []byte(nil))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		var out bytes.Buffer
		a := &app{stdout: &out, output: outputJSON}
		if err := a.printValue(kv.Entry{Key: key, Value: value}); err != nil {
			t.Fatal(err)
		}
		var back shownEntry
		if err := json.Unmarshal(out.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(out.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("not one line: %q", out.String())
		}
		gotKey, gotValue := back.KeyBytes, back.ValueBytes
		if back.Key != nil {
			gotKey = []byte(*back.Key)
		}
		if back.Value != nil {
			gotValue = []byte(*back.Value)
		}
		if string(gotKey) != key || !bytes.Equal(gotValue, value) {
			t.Fatalf("%q=%q came back as %q=%q from %s", key, value, gotKey, gotValue, out.String())
		}
	})
}

func TestKeysAreOneLineEach(t *testing.T) {
	for key, want := range map[string]string{
		"plain/key":  "plain/key",
		"with space": "with space",
		"ключ":       "ключ",
		"a\nb":       `"a\nb"`,
		"\xff":       `"\xff"`,
		"\x1b[31m":   `"\x1b[31m"`,
		`"quoted"`:   `"\"quoted\""`,
		`in"side`:    `in"side`,
	} {
		if got := printableKey(key); got != want {
			t.Errorf("key %q is shown as %s, want %s", key, got, want)
		}
	}
}
