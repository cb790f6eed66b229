package mutants

import (
	"fmt"
	"strings"
)

// mutant is a bug to plant.
type mutant struct {
	name string
	// patches change files of node/raft, or of packages beside it.
	patches []patch
	by      killer
	// quick ones are planted by default, the others with -mutants.
	quick bool
}

// killer is who must find a mutant: the simulator, or the test of that name in node/raft, for what takes too rare a meeting of chances to wait
// for, or harms no safety.
type killer string

// simulator is a run of seeds.
const simulator killer = ""

// sessionTable is the file of the session table.
const sessionTable = "../sessions/table.go"

// byName counts the votes of a name, whatever directory they are of.
const byName = "for p := range c.granted {\n\t\t\tif p.ID == x.ID {\n\t\t\t\treturn true\n\t\t\t}\n\t\t}\n\t\treturn false\n\t})"

// patch replaces a text that must stand in the file exactly once.
type patch struct {
	file, old, new string
}

// apply returns the patched source. It fails if the text to replace is not there any more: then the patch must be brought up
// to date with the code.
func (p patch) apply(source string) (string, error) {
	if n := strings.Count(source, p.old); n != 1 {
		return "", fmt.Errorf("%s has %d places like %q, want 1: adapt the mutant to the code", p.file, n, p.old)
	}
	return strings.Replace(source, p.old, p.new, 1), nil
}

// mutants, with the numbers of the known bugs that they stand for.
var mutants = []mutant{
	{"entry of an older term committed by counting (1, Figure 8)", []patch{
		{"commit.go", "term != e.leading.term", "term > e.leading.term"},
	}, simulator, true},
	{"vote answered before it is durable (2)", []patch{
		{"durability.go", "voteReply: VoteReply{To: to, Response: r}, seq: e.disk.voteSeq", "voteReply: VoteReply{To: to, Response: r}"},
	}, simulator, false},
	{"vote not written (2)", []patch{
		{"durability.go", "w.Vote = &v", "if v.For == \"\" {\n\t\tw.Vote = &v\n\t}"},
	}, simulator, false},
	{"candidate asks before its own vote is durable (2)", []patch{
		{"election.go", "e.campaign.asked || !e.voteDurable()", "e.campaign.asked"},
		{"election.go", "e.campaign = newCampaign(false, e.vote.Term)", "e.campaign = newCampaign(false, e.vote.Term)\n\te.askVotes()"},
	}, simulator, false},
	{"entries that match are truncated and written again (3, 4)", []patch{
		{"follower.go", "if e.log.Has(entry.ID) {\n\t\t\tcontinue", "if e.log.Has(entry.ID) && entry.ID.Index <= e.commit {\n\t\t\tcontinue"},
	}, simulator, false},
	{"log cut at the end of a short append (3)", []patch{
		{"follower.go", "resp.Matched = entries[len(entries)-1].ID",
			"resp.Matched = entries[len(entries)-1].ID\n\t\tif m := resp.Matched.Index; m < e.log.last.Index && m >= e.commit {\n\t\t\te.truncate(m + 1)\n\t\t}"},
	}, simulator, true},
	{"joint configuration decided by the incoming set alone (6, 7)", []patch{
		{"quorum.go", "if !m.Joint() {", "if true {"},
	}, simulator, false},
	{"learners counted in a quorum (8)", []patch{
		{"quorum.go", "func(member Member) bool { return member.Voter }", "func(member Member) bool { return !member.Outgoing }"},
	}, simulator, false},
	{"configuration not rolled back when its entry is truncated (10)", []patch{
		{"durability.go", "e.memberships[n-1].ID.Index >= from;", "e.memberships[n-1].ID.Index >= from && false;"},
	}, simulator, false},
	{"progress of an earlier leadership counted (12)", []patch{
		{"leader.go", "t == nil || t.worker != p.Worker || t.peer != p.Peer", "t == nil"},
		{"leader.go", "if !e.log.Has(p.Matched) && p.Matched.Index >= e.log.purged.Index {", "if p.Matched.Index > e.log.last.Index {"},
	}, simulator, false},
	{"read answered without a round (14)", []patch{
		{"read.go", "if round < r.begun {", "if round > r.begun {"},
	}, simulator, true},
	{"read before the leader's first commit (14)", []patch{
		{"read.go", "e.leading == nil || !e.Serving()", "e.leading == nil"},
	}, simulator, false},
	{"round confirmed by a message sent before it began (46)", []patch{
		{"replicator.go", "max(r.progress.Round, f.round)", "max(r.progress.Round, r.target.Round)"},
	}, simulator, false},
	{"last log ids compared index first (16)", []patch{
		{"logid.go", "cmp.Compare(id.Term, other.Term)", "cmp.Compare(id.Index, other.Index)"},
		{"logid.go", "return cmp.Compare(id.Index, other.Index)\n}", "return cmp.Compare(id.Term, other.Term)\n}"},
	}, simulator, false},
	{"follower commits beyond what the append verified (26)", []patch{
		{"follower.go", "min(req.Commit, resp.Matched.Index)", "min(req.Commit, e.log.last.Index)"},
	}, simulator, false},
	{"append answered before it is durable (29)", []patch{
		{"durability.go", "seq: e.disk.voteSeq, index: r.Matched.Index", "seq: e.disk.voteSeq"},
	}, simulator, false},
	{"leader counts itself before its own fsync (29)", []patch{
		{"commit.go", "return e.disk.index", "return e.log.last.Index"},
	}, simulator, false},
	{"completion of an overwritten entry counted for the new one (30)", []patch{
		{"durability.go", "e.disk.pending[i].last = min(e.disk.pending[i].last, from-1)", "_ = i"},
	}, simulator, false},
	{"entries applied that are not durable here (rule 1)", []patch{
		{"engine.go", "return min(e.commit, e.disk.index)", "return e.commit"},
	}, simulator, false},
	{"several votes granted in one term (48)", []patch{
		{"election.go", "granted := req.Term == e.vote.Term && upToDate && (e.vote.For == \"\" || e.vote.For == req.Candidate.ID)",
			"granted := req.Term == e.vote.Term && upToDate"},
	}, simulator, false},
	{"votes granted to a candidate whose log is behind (5.4.1)", []patch{
		{"election.go", "upToDate := !req.Last.Less(e.log.last)", "upToDate := true"},
	}, simulator, false},
	{"instant elections do not slow down", []patch{
		{"election.go", "e.following.tries++", ""},
	}, simulator, false},
	{"who is left out of an uncommitted configuration does not stand", []patch{
		{"follower.go", "!e.mayStand()", "!e.Membership().IsVoter(e.cfg.Self)"},
	}, simulator, false},
	{"worker spins when its core is not heard of", []patch{
		{"replicator.go", "if r.silent {", "if false {"},
	}, simulator, false},
	{"votes of an earlier election counted (27)", []patch{
		{"election.go", "(resp.Granted && resp.Term != c.term)", "false"},
	}, simulator, false},
	{"append below the purge mark taken for a conflict (5)", []patch{
		{"follower.go", "if purged := e.log.purged; prev.Index < purged.Index {", "if purged := e.log.purged; prev.Index+100 < purged.Index {"},
	}, simulator, false},
	{"conflict hint steps back one at a time (17)", []patch{
		{"logview.go", "index = v.runs[n-1].Index - 1", "_ = n\n\t\tindex--"},
		{"replicator.go", "return term <= hint.Term", "return true || term <= hint.Term"},
	}, simulator, false},
	{"leader without a quorum stays (rule 3)", []patch{
		{"leader.go", "case e.quorumAge() > e.cfg.ElectionTimeout, e.diskStalled():", "case e.diskStalled():"},
	}, simulator, false},
	{"leader with a stalled disk stays (rule 3, 49)", []patch{
		{"leader.go", "case e.quorumAge() > e.cfg.ElectionTimeout, e.diskStalled():", "case e.quorumAge() > e.cfg.ElectionTimeout:"},
	}, simulator, false},
	{"disk judged by when it is heard of", []patch{
		{"durability.go", "e.disk.progress = at", "e.disk.progress = e.now"},
	}, "TestStalledDiskIsJudgedByWhenItMovedAndNotByWhenThatIsHeard", false},
	{"write waits for the disk before it is handed out", []patch{
		{"durability.go", " || e.disk.pending[0].seq > e.seq {", " {"},
	}, "TestAWriteWaitsForTheDiskFromWhenItIsHandedOut", false},
	{"voter in touch with its leader votes at once (18, 19)", []patch{
		{"election.go", "if req.Term >= e.vote.Term && e.inTouch() && !req.Transfer {", "if false {"},
	}, simulator, false},
	{"two processes under one name both count (rule 10)", []patch{
		{"boots.go", "return bootAlternates", "return bootGood"},
	}, "TestReplicatorNoticesTwoProcessesUnderOneName", false},
	{"term beyond all bounds believed (rule 9)", []patch{
		{"wellformed.go", "case r.Term == 0 || r.Term > MaxTerm:\n\t\treturn \"term out of bounds\"\n\tcase r.Candidate.ID", "case r.Candidate.ID"},
	}, "TestMalformedVoteRequestsAreRefused", false},
	{"joint configuration decided by the outgoing set alone (6)", []patch{
		{"quorum.go", "return min(incoming, majorityValue(m.Members, func(member Member) bool { return member.Outgoing }, value))",
			"return max(0*incoming, majorityValue(m.Members, func(member Member) bool { return member.Outgoing }, value))"},
	}, simulator, false},
	{"leader believes that it is the only voter (6)", []patch{
		{"commit.go", "if m.Peer == e.cfg.Self {", "if m.Peer == e.cfg.Self || e.leading.targets[m.ID] == nil || !e.leading.targets[m.ID].answered {"},
	}, simulator, false},
	{"later configurations forgotten by a restart (7, 8)", []patch{
		{"engine.go", "slices.Clone(restored.Memberships)", "slices.Clone(restored.Memberships[:min(1, len(restored.Memberships))])"},
	}, simulator, false},
	{"learner stands for election (8)", []patch{
		{"election.go", "return at.Membership.IsVoter(e.cfg.Self)", "return at.Membership.Contains(e.cfg.Self)"},
	}, simulator, false},
	{"learner does not stand although its vote is needed", []patch{
		{"election.go", "		e.following.neededBy = req.Last\n", ""},
	}, "TestALearnerStandsWhoseVoteIsNeededAndCannotBeGiven", false},
	{"learner stands because of who has an older configuration", []patch{
		{"election.go", "return last.Term >= committed.Term && last.Index >= committed.Index", "return last.Term >= committed.Term"},
	}, simulator, false},
	{"learner stands whose vote was needed before there was a leader", []patch{
		{"follower.go", "f.removed, f.neededBy = false, LogID{}", "f.removed = false"},
	}, "TestALearnerStandsWhoseVoteIsNeededAndCannotBeGiven", false},
	{"change without a joint configuration (9)", []patch{
		{"change.go", "	return next, nil\n}\n\n// ready", "	return next.Leave(), nil\n}\n\n// ready"},
	}, simulator, false},
	{"progress handled after stepping down, by the new term's entries (13)", []patch{
		{"engine.go", "	workers uint64\n", "	workers uint64\n	former  *leading\n"},
		{"leader.go", "	e.leading = nil\n	e.following.leader = Peer{}", "	e.former, e.leading = e.leading, nil\n	e.following.leader = Peer{}"},
		{"leader.go", "	if e.leading == nil {\n		return\n	}\n	t := e.leading", "	if e.leading == nil {\n		if e.former == nil {\n			return\n		}\n		e.leading = e.former\n		defer func() { e.leading = nil }()\n	}\n	t := e.leading"},
		{"commit.go", "term != e.leading.term", "term != e.vote.Term"},
	}, simulator, false},
	{"leadership not ended by a greater term (13)", []patch{
		{"engine.go", "	if e.leading != nil {\n		e.endLeadership()\n	}\n	e.campaign = nil", "	if e.leading != nil && term == e.vote.Term {\n		e.endLeadership()\n	}\n	e.campaign = nil"},
	}, simulator, false},
	{"read index by a majority less one (14)", []patch{
		{"read.go", "		return t.round\n", "		if l := e.leading.successors; len(l) > 0 && m.ID == l[0] {\n			return math.MaxUint64\n		}\n		return t.round\n"},
	}, simulator, false},
	{"greater term in an answer ignored: who has it never comes back (19)", []patch{
		{"leader.go", "p.SeenTerm > e.vote.Term && p.SeenTerm <= MaxTerm", "p.SeenTerm > e.vote.Term && p.SeenTerm > MaxTerm"},
	}, simulator, false},
	{"session table differs after a restart (25)", []patch{
		{sessionTable, "slices.SortFunc(all, func(a, b *session) int { return compareUint(a.index, b.index) })", ""},
	}, simulator, false},
	{"session expires by what this process has counted (25)", []patch{
		{sessionTable, "type Table struct {", "type Table struct {\n	judged int"},
		{sessionTable, "if e.Time-x.time > x.idle {", "if s.judged++; s.judged%50 == 0 || e.Time-x.time > x.idle {"},
	}, simulator, false},
	{"vote that is heard twice counts for two (27)", []patch{
		{"election.go", "		c.granted[resp.From] = true\n	} else", "		for _, m := range e.Membership().Members {\n			if c.granted[resp.From] && !c.granted[m.Peer] {\n				c.granted[m.Peer] = true\n				break\n			}\n		}\n		c.granted[resp.From] = true\n	} else"},
	}, simulator, false},
	{"votes and entries counted by two sources of truth (47)", []patch{
		{"election.go", "	c := e.campaign\n	m := e.Membership()", "	c := e.campaign\n	m := e.memberships[0].Membership"},
	}, simulator, false},
	{"installation forgets a log that goes on after it (22)", []patch{
		{"snapshot.go", "kept := e.log.Has(last)", "kept := false"},
	}, simulator, false},
	{"joint configuration ended before it is committed (6)", []patch{
		{"change.go", "if !e.Serving() || current.ID.Index > e.commit {", "if !e.Serving() {"},
	}, simulator, true},
	{"snapshot installed over newer state (21)", []patch{
		{"snapshot.go", "if last.Index <= e.commit { // no newer", "if last.Index+10 <= e.commit { // no newer"},
		{"snapshot.go", "return last.Index > e.commit && e.leading == nil", "return true"},
		{"snapshot.go", "	if last.Index <= e.commit {\n\t\te.endInstalling()", "	if last.Index+100 <= e.commit {\n\t\te.endInstalling()"},
	}, simulator, false},
	{"conflicting log kept behind an installed snapshot (22)", []patch{
		{"snapshot.go", "kept := e.log.Has(last)", "kept := e.log.last.Index >= last.Index"},
	}, simulator, false},
	{"log purged beyond the newest snapshot (rule 8)", []patch{
		{"snapshot.go", "floor := min(e.snapshotKnown.Index, e.Applicable())", "floor := e.Applicable()"},
	}, simulator, true},
	{"what a target needs after its snapshot is purged (23)", []patch{
		{"snapshot.go", "if t.installing.Index > 0 {", "if false {"},
	}, simulator, false},
	{"configuration lost through a snapshot (11)", []patch{
		{"snapshot.go", "later := []MembershipAt{membership}", "later := []MembershipAt{e.memberships[0]}"},
	}, simulator, false},
	{"joint configuration not ended by a new leader (7)", []patch{
		{"change.go", "case current.Membership.Joint():", "case current.Membership.Joint() && current.ID.Term == e.vote.Term:"},
	}, simulator, false},
	{"removed leader goes on leading (18)", []patch{
		{"change.go", "case !current.Membership.IsVoter(e.cfg.Self):", "case false:"},
	}, simulator, false},
	{"two changes at a time (9, 47)", []patch{
		{"change.go", "case current.ID.Index > e.commit || current.Membership.Joint():", "case false:"},
	}, simulator, false},
	{"timeout-now of an old leader obeyed (20)", []patch{
		{"transfer.go", "if req.Term == e.vote.Term && req.Term > 0 && e.leading == nil && e.following.leader == req.Leader &&", "if e.leading == nil &&"},
	}, simulator, false},
	{"transfer that comes to nothing never ends (20)", []patch{
		{"leader.go", "e.leading.transfer = nil // it came to nothing: go on leading", "_ = x"},
	}, simulator, false},
	{"lost first probe taken for a peer without a log", []patch{
		{"replicator.go", "r.restart(f.prev.Index + 1)\n\tr.paused = true", "r.restart(r.matched.Index + 1)\n\tr.paused = true"},
	}, "TestALostProbeIsRepeatedWhereItWas", false},
	{"lease kept while leadership is handed over (15, rule 5)", []patch{
		{"lease.go", "l.transfer != nil || l.released || ", ""},
	}, simulator, true},
	{"lease kept over a pause (15, rule 5)", []patch{
		{"lease.go", "l != nil && now.Before(l.Until) && now.Round(0).Before(l.Until.Round(0)) && applied", "l != nil && applied"},
	}, simulator, false},
	{"lease kept while the machine sleeps (15, rule 5)", []patch{
		{"lease.go", "e.leading.awake = now", "_ = now"},
	}, simulator, false},
	{"read under the lease of a state that lacks what is committed (rule 5)", []patch{
		{"lease.go", "Before(l.Until.Round(0)) && applied >= l.Index", "Before(l.Until.Round(0))"},
	}, simulator, false},
	{"drift of clocks ignored (rule 5)", []patch{
		{"lease.go", "time.Duration(100-min(drift, 100))", "time.Duration(100-0*drift)"},
	}, "TestLeaseCountsFromWhenTheRequestWasSentLessTheDrift", false},
	{"voter helps another within its promise (rule 5)", []patch{
		{"election.go", "if e.bound(req.Transfer) {", "if false {"},
	}, "TestVoterWithLeasesHelpsNobodyUntilItsPromiseIsOver", false},
	{"candidate stands within its own promise (rule 5)", []patch{
		{"election.go", "if until := e.promised(false); e.now.Before(until) {", "if until := e.promised(false); false {"},
		{"election.go", "case e.bound(false):", "case false:"},
		{"control.go", "e.diskStalled() || e.bound(false) {", "e.diskStalled() {"},
	}, "TestVoterWithLeasesHelpsNobodyUntilItsPromiseIsOver", false},
	{"voter that starts votes at once, with leases (rule 5)", []patch{
		{"lease.go", "until := e.started.Add(d)", "until := time.Time{}"},
	}, "TestVoterThatStartsHelpsNobodyForALease", false},
	{"lease counted from the answer, not from the sending (46, rule 5)", []patch{
		{"lease.go", "return uint64(t.acked.Sub(l.since)) + 1", "return uint64(e.now.Sub(l.since)) + 1"},
	}, "TestLeaseCountsFromWhenTheRequestWasSentLessTheDrift", false},
	{"lease before the setting is committed (rule 5)", []patch{
		{"lease.go", " || at.ID.Index > e.commit {", " {"},
		{"lease.go", "t.matched.Index < at.ID.Index || ", ""},
	}, simulator, false},
	{"lease by voters that do not have the setting (rule 5)", []patch{
		{"lease.go", "t.matched.Index < at.ID.Index || ", ""},
	}, "TestLeaseBeginsWhenTheSettingIsCommittedAndCountsOnlyWhoHasIt", false},
	{"lease before the leader's first commit (rule 5)", []patch{
		{"lease.go", "!e.Serving() || ", ""},
	}, simulator, false},
	{"removed node not told that the configuration which it has is committed", []patch{
		{"election.go", "if newest.Membership.Contains(e.cfg.Self) {\n\t\tsince++", "if true {\n\t\tsince++"},
	}, "TestARemovedNodeThatHasTheConfigurationIsToldThatItIsCommitted", false},
	{"member taken for removed by a configuration that it is in", []patch{
		{"election.go", "if newest.Membership.Contains(e.cfg.Self) {\n\t\tsince++", "if false {\n\t\tsince++"},
	}, "TestARemovedNodeThatHasTheConfigurationIsToldThatItIsCommitted", false},
	{"vote counted for another directory of that name (9, 10)", []patch{
		{"election.go", "return c.granted[x.Peer] })", byName},
	}, "TestAVoteOfALostDirectoryDoesNotCountForItsSuccessor", false},
	{"snapshot of an earlier leadership offered", []patch{
		{"leader.go", "e.snapshot = SnapshotRef{} // of", "// of"},
	}, "TestALeaderThatComesBackOffersNoSnapshotOfThePast", false},
	{"setting lost through a snapshot (11, rule 5)", []patch{
		{"snapshot.go", "settings := []SettingAt{setting}", "settings := []SettingAt{{}}"},
	}, "TestSettingTravelsInSnapshots", false},
	{"setting not rolled back when its entry is truncated (10)", []patch{
		{"durability.go", "e.settings[n-1].ID.Index >= from;", "e.settings[n-1].ID.Index >= from && false;"},
	}, simulator, false},
	{"lease by a setting that is not committed (rule 5)", []patch{
		{"lease.go", " || at.ID.Index > e.commit {", " {"},
	}, "TestNoLeaseByASettingThatIsNotCommitted", false},
	{"promise ended by a setting that is not committed (rule 5)", []patch{
		{"lease.go", "longest = max(longest, at.Setting.Lease)", "longest = at.Setting.Lease"},
	}, "TestLeaseEndsWhenTheOppositeIsAppended", false},
	{"results of sessions forgotten by a restart or a snapshot (rule 11)", []patch{
		{sessionTable, "byID[id].results[sequence] = result", "_ = result"},
	}, simulator, true},
	{"message ids forgotten by a restart or a snapshot (rule 11)", []patch{
		{sessionTable, "once = append(once, x)", "_ = x"},
	}, simulator, false},
	{"retry applied again (rule 11)", []patch{
		{sessionTable, "\tcase known:\n\t\treturn Known, result\n", "\tcase known:\n\t\treturn Apply, Result{}\n"},
	}, simulator, false},
	{"late copy applied again, below the low-water mark (rule 11)", []patch{
		{sessionTable, "case e.Sequence < x.lowWater, e.Sequence == 0,", "case e.Sequence == 0,"},
	}, simulator, false},
	{"proposal of an expired session applied (rule 11)", []patch{
		{sessionTable, "if !ok {\n\t\treturn Refused, Result{}\n\t}\n\tx := element", "if !ok {\n\t\treturn Apply, Result{}\n\t}\n\tx := element"},
	}, simulator, false},
	{"session expires by the replica's own clock (rule 11)", []patch{
		{sessionTable, "type Table struct {", "type Table struct {\n\town int64"},
		{sessionTable, "if e.Time-x.time > x.idle {", "if s.own += int64(time.Millisecond); e.Time+s.own-x.time > x.idle {"},
	}, simulator, false},
	{"results of sessions left out of snapshots (rule 11)", []patch{
		{sessionTable, "for sequence := range element.Value.(*session).results {\n\t\t\ts.dirty", "for sequence := range element.Value.(*session).results {\n\t\t\tcontinue\n\t\t\ts.dirty"},
	}, simulator, false},
	{"versions raised beyond what a learner speaks (42)", []patch{
		{"versions.go", "if m.Peer == e.cfg.Self {", "if m.Peer == e.cfg.Self || m.Learner() {"},
	}, simulator, false},
	{"versions raised beyond what an outgoing voter speaks (42)", []patch{
		{"versions.go", "if m.Peer == e.cfg.Self {", "if m.Peer == e.cfg.Self || m.Outgoing && !m.Voter {"},
	}, simulator, false},
	{"versions raised before all members have told theirs (42)", []patch{
		{"versions.go", "t == nil || t.suspect || !t.answered {\n\t\t\treturn\n", "t == nil || t.suspect || !t.answered {\n\t\t\tcontinue\n"},
	}, simulator, true},
	{"versions lowered (42)", []patch{
		{"versions.go", "setting.Versions = setting.Versions.raised(common)", "setting.Versions = common"},
	}, "TestVersionsAreNeverLowered", false},
	{"follower takes what it does not understand (42)", []patch{
		{"follower.go", "if wrong := e.cfg.Versions.Unknown(&entries[i+j]); wrong != \"\" {", "if wrong := e.cfg.Versions.Unknown(&entries[i+j]); wrong == \"never\" {"},
	}, simulator, false},
	{"vote of a directory that is not the voter's counted (rule 10)", []patch{
		{"election.go", "(resp.Granted && resp.Term != c.term) || !e.Membership().IsVoter(resp.From) {",
			"(resp.Granted && resp.Term != c.term) {"},
		{"election.go", "return c.granted[x.Peer] })", byName},
	}, simulator, false},
	{"acknowledgement of a wiped node counted under its old name (rule 10)", []patch{
		{"replicator.go", "resp.From != r.target.Peer ||", "resp.From.ID != r.target.Peer.ID ||"},
	}, simulator, true},
	{"wiped node has a vote by its name alone (rule 10)", []patch{
		{"membership.go", "return ok && member.Peer == p && !member.Learner()", "return ok && !member.Learner()"},
	}, simulator, false},
	{"reads wait for a member that is gone", []patch{
		{"leader.go", "\te.advanceReads() // who is left", "\t// who is left"},
	}, "TestReadsGoOnWhenNobodyElseIsLeft", false},
}
