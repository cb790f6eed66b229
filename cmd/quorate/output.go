package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// The forms of output.
const (
	outputText = "text"
	outputJSON = "json"
)

func (a *app) json() bool { return a.output == outputJSON }

// printJSON writes one value as one line, so that a stream of them is JSON Lines.
func (a *app) printJSON(v any) error {
	encoder := json.NewEncoder(a.stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

func (a *app) printf(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.stdout, format, args...); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// isTerminal reports whether a person reads what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// textOrBytes splits what may be any bytes into what JSON can carry: exactly one of the two results is set. []byte becomes
// base64 in JSON.
func textOrBytes(s []byte) (text *string, raw []byte) {
	if utf8.Valid(s) {
		t := string(s)
		return &t, nil
	}
	return nil, s
}

// printableKey returns a key as one line of text: as it is when it can be printed, else quoted as a Go string.
func printableKey(key string) string {
	plain := utf8.ValidString(key) && !strings.HasPrefix(key, `"`) &&
		!strings.ContainsFunc(key, func(r rune) bool { return !unicode.IsPrint(r) })
	if plain {
		return key
	}
	return strconv.Quote(key)
}
