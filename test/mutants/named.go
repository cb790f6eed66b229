package mutants

import "strings"

// Named counts the mutants whose names begin with words, and those of them that the simulator must find.
func Named(words string) (all, bySimulator int) {
	for _, m := range mutants {
		if !strings.HasPrefix(m.name, words) {
			continue
		}
		all++
		if m.by == simulator {
			bySimulator++
		}
	}
	return all, bySimulator
}
