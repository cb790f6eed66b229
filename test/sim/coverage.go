package sim

import (
	"fmt"
	"strings"
)

// happening is a kind of thing that a run may do. Runs count them, so that the simulator cannot stop to try something without anybody
// noticing: a promise that is never put to the test is kept by every bug.
type happening int

const (
	electionByHand happening = iota
	leaderProbed
	leaderGone
	logTruncated
	conflictFound
	leaderStepsDown

	snapshotBuilt
	snapshotGone
	snapshotOffered
	fetchFails
	snapshotInstalled
	installedKeepingATail
	installedByAVoter
	crashWhileInstalling
	logPurged

	changeBegun
	changeRefused
	jointCommitted
	jointEndedByAnother
	configurationUndone
	learnerPromoted
	leaderLeftOut
	diskReplaced

	transferBegun
	transferWon
	transferGivenUp

	sessionBegun
	sessionRefused
	retryAnswered
	messageIDRetried
	proposalForwarded

	readAtLeader
	readAtVoter
	readAtLearner
	readAtStranger
	readLost
	readBeforeFirstCommit

	versionsRaised
	nodeHalted

	calmUntouched
	calmLinkCut
	calmIsolation
	calmRestart
	happenings
)

var happeningNames = [happenings]string{
	"election by hand", "leader probed", "leader found gone", "log truncated", "conflict found", "leader steps down",
	"snapshot built", "snapshot gone", "snapshot offered", "fetch fails", "snapshot installed", "installed keeping a tail",
	"installed by a voter", "crash while installing", "log purged",
	"change begun", "change refused", "joint configuration committed", "joint configuration ended by another leader",
	"configuration undone", "learner promoted", "leader left out", "disk replaced",
	"transfer begun", "transfer won", "transfer given up",
	"session begun", "session refused", "retry answered", "message id retried", "proposal forwarded",
	"read at the leader", "read at a voter", "read at a learner", "read at a node that is no member", "read lost",
	"read before the first commit",
	"versions raised", "node halted",
	"calm untouched", "calm with a link cut", "calm with an isolated node", "calm with a restart",
}

func (h happening) String() string { return happeningNames[h] }

// Coverage counts what happened, and which faults did.
type Coverage struct {
	happened [happenings]int
	faults   [faultKinds]int
}

func (c *Coverage) add(other *Coverage) {
	for i, n := range other.happened {
		c.happened[i] += n
	}
	for i, n := range other.faults {
		c.faults[i] += n
	}
}

// String lists all counts, a line each.
func (c *Coverage) String() string {
	var s strings.Builder
	for h, n := range c.happened {
		fmt.Fprintf(&s, "%8d %v\n", n, happening(h))
	}
	for k, n := range c.faults {
		fmt.Fprintf(&s, "%8d fault: %v\n", n, faultKind(k))
	}
	return s.String()
}

// leastSeeds is from how many seeds on what happened is judged: fewer may miss what is rare by bad luck.
const leastSeeds = 600

// missing lists what happened less often than once in rarely seeds: of hundreds of runs, each kind must be a matter of course.
func (c *Coverage) missing(seeds uint64) []string {
	var missing []string
	for h, n := range c.happened {
		if uint64(n)*rarely < seeds {
			missing = append(missing, fmt.Sprintf("%v: %d times", happening(h), n))
		}
	}
	for k, n := range c.faults {
		if uint64(n)*rarely < seeds {
			missing = append(missing, fmt.Sprintf("fault %v: %d times", faultKind(k), n))
		}
	}
	return missing
}

// rarely is the number of seeds in which everything must happen at least once, on average.
const rarely = 150

func (w *world) happened(h happening) { w.coverage.happened[h]++ }
