package waterfall

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/rivo/uniseg"
)

const (
	// narrowest is the width below which nothing fits; a narrower terminal wraps.
	narrowest = 40
	// durationWidth holds "999.9ms".
	durationWidth = 8
	// top is how many shares of the critical path the last line names.
	top = 3
)

// Draw writes the trace in lines of at most width cells, but for what follows the waterfall. Error: w's.
func (t *Trace) Draw(w io.Writer, width int) error {
	width = max(width, narrowest)
	nameWidth, whereWidth := len("span"), len("node goroutine")
	for _, s := range t.all {
		nameWidth = max(nameWidth, uniseg.StringWidth(label(s)))
		whereWidth = max(whereWidth, uniseg.StringWidth(where(s)))
	}
	nameWidth = min(nameWidth, width*35/100)
	whereWidth = min(whereWidth, width*25/100)
	barWidth := width - len("* ") - nameWidth - 1 - whereWidth - 1 - durationWidth - 1

	var b strings.Builder
	fmt.Fprintf(&b, "  %s %s %*s\n", fit("span", nameWidth), fit("node goroutine", whereWidth), durationWidth, "time")
	for _, s := range t.all {
		mark := " "
		switch {
		case s.failed:
			mark = "!"
		case s.critical:
			mark = "*"
		}
		line := fmt.Sprintf("%s %s %s %*s %s", mark, fit(label(s), nameWidth), fit(where(s), whereWidth),
			durationWidth, short(s.end-s.start), t.bar(s, barWidth))
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
	}
	t.notes(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func label(s *span) string {
	name := printable(s.name)
	if s.orphan {
		name = "? " + name
	}
	return strings.Repeat("  ", min(s.depth, 100)) + name
}

func where(s *span) string {
	if s.goroutine == "" || s.goroutine == s.node {
		return printable(s.node)
	}
	return printable(s.node + " " + s.goroutine)
}

// bar draws the span's time to scale, at least one cell of it.
func (t *Trace) bar(s *span, width int) string {
	cell := func(at time.Duration) int {
		if t.to == 0 {
			return 0
		}
		return int(math.Round(float64(at) / float64(t.to) * float64(width)))
	}
	first := min(cell(s.start), width-1)
	last := max(cell(s.end), first+1)
	fill := "░"
	if s.critical {
		fill = "█"
	}
	return strings.Repeat(" ", first) + strings.Repeat(fill, last-first)
}

// notes say what the drawing cannot show, or what was done to the times.
func (t *Trace) notes(b *strings.Builder) {
	b.WriteByte('\n')
	orphans, failures := 0, 0
	nodes := map[string]bool{}
	for _, s := range t.all {
		nodes[s.node] = true
		if s.orphan {
			orphans++
		}
		if s.failed {
			failures++
		}
	}
	fmt.Fprintf(b, "%s of %s in %s.", counted(len(t.all), "span"), counted(len(nodes), "participant"), short(t.to))
	if shares := t.shares(); len(shares) > 0 {
		b.WriteString(" * is the critical path:")
		var whole time.Duration
		for _, s := range shares {
			whole += min(s.own, math.MaxInt64-whole)
		}
		for i, s := range shares[:min(top, len(shares))] {
			separator := ","
			if i == 0 {
				separator = ""
			}
			fmt.Fprintf(b, "%s %s on %s %s (%.0f %%)", separator, printable(s.name), printable(s.node), short(s.own), 100*float64(s.own)/float64(whole))
		}
		b.WriteByte('.')
	}
	b.WriteByte('\n')
	for _, c := range t.clocks {
		switch {
		case c.contradictory:
			fmt.Fprintf(b, "The clock of %s fits no difference: its times contradict its messages by up to %s either way. They were moved by %s.\n",
				printable(c.node), short(c.uncertain), signed(c.moved))
		case c.uncertain > 0:
			fmt.Fprintf(b, "The clock of %s differs: its times were moved by %s ± %s, by when its messages were sent and received.\n",
				printable(c.node), signed(c.moved), short(c.uncertain))
		default:
			fmt.Fprintf(b, "The clock of %s differs: its times were moved by %s or more, by when its messages were sent and received.\n",
				printable(c.node), signed(c.moved))
		}
	}
	if orphans > 0 {
		fmt.Fprintf(b, "? %d below a span that was not collected.\n", orphans)
	}
	if failures > 0 {
		fmt.Fprintf(b, "! %d failed.\n", failures)
	}
	if t.reversed > 0 {
		fmt.Fprintf(b, "%d ended before they began, and are drawn without length.\n", t.reversed)
	}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func signed(d time.Duration) string {
	if d < 0 {
		return "-" + short(-d)
	}
	return "+" + short(d)
}

// short writes a time that is not negative in durationWidth cells, with about three digits.
func short(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%dns", d)
	case d < time.Millisecond:
		return fmt.Sprintf("%.1fµs", float64(d)/float64(time.Microsecond))
	case d < time.Second-5*time.Microsecond: // what is not rounded up to 1000.00ms
		return fmt.Sprintf("%.2fms", float64(d)/float64(time.Millisecond))
	}
	switch {
	case d < 100*time.Second:
		return fmt.Sprintf("%.2fs", d.Seconds())
	case d < 1_000_000*time.Second:
		return fmt.Sprintf("%.0fs", d.Seconds())
	}
	return fmt.Sprintf("%.0fd", d.Hours()/24)
}

// printable makes one line of what came over the wire.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// fit makes a text exactly so many cells wide, cut with an ellipsis or filled up with blanks.
func fit(s string, width int) string {
	if w := uniseg.StringWidth(s); w <= width {
		return s + strings.Repeat(" ", width-w)
	}
	var b strings.Builder
	used := 0
	for rest, state := s, -1; rest != ""; {
		var cluster string
		var w int
		cluster, rest, w, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if used+w > width-1 {
			break
		}
		b.WriteString(cluster)
		used += w
	}
	return b.String() + "…" + strings.Repeat(" ", width-1-used)
}
