package storagetest_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"quorate/storage/storagetest"
)

// defectVariable names the defect in the process that is expected to fail.
const defectVariable = "STORAGETEST_DEFECT"

// TestTheSuitePassesARightStore is the control: what fails below fails because of the defect.
func TestTheSuitePassesARightStore(t *testing.T) {
	storagetest.RunLogStore(t, newMemoryDisk(none))
}

// TestOfABrokenStore is run by TestTheSuiteCatches, in a process of its own, and must fail there.
func TestOfABrokenStore(t *testing.T) {
	broken := os.Getenv(defectVariable)
	if broken == "" {
		t.Skip("it runs in the processes that TestTheSuiteCatches starts")
	}
	storagetest.RunLogStore(t, newMemoryDisk(defect(broken)))
}

// A test that cannot fail is worse than none: each broken promise must be found, and by the test that is there for it.
func TestTheSuiteCatches(t *testing.T) {
	for _, test := range []struct {
		defect defect
		by     string
	}{
		{losesWaitedWrite, "CrashKeepsWhatWasWaitedFor"},
		{losesWaitedWrite, "CrashModel"},
		{losesIdentity, "CrashKeepsRecords"},
		{losesWriteInTheMiddle, "CrashModel"},
		{tearsWrite, "CrashModel"},
		{shownButNotDurable, "CrashAfterRestart"},
		{keepsTruncated, "Truncate"},
		{keepsTruncated, "TruncateAndAppendInOneWrite"},
		{keepsTruncated, "Model"},
		{servesPurged, "Purge"},
		{keepsAfterReset, "Reset"},
		{forgetsPurgedTerm, "Purge"},
		{ignoresMaxBytes, "ReadsAreBoundedByBytes"},
		{returnsNothing, "ReadsAreBoundedByBytes"},
		{overwritesSlice, "Model"},
		{acceptsGap, "RefusesWhatDoesNotFollow"},
		{halfRefuses, "RefusesWhatDoesNotFollow"},
		{acceptsUnsealed, "RefusesWhatDoesNotFollow"},
		{changesIdentity, "Identity"},
		{changesGenesis, "Genesis"},
		{forgetsVote, "Vote"},
		{purgesAnything, "PurgeRefusals"},
		{usableAfterClose, "Closed"},
		{races, "ReadersBesideTheWriter"},
	} {
		t.Run(fmt.Sprintf("%s (%s)", test.defect, test.by), func(t *testing.T) {
			t.Parallel()
			command := exec.CommandContext(t.Context(), os.Args[0],
				"-test.run", "^TestOfABrokenStore$/^"+test.by+"$", "-test.v", "-rapid.nofailfile", "-rapid.shrinktime=1s")
			command.Env = append(os.Environ(), defectVariable+"="+string(test.defect))
			output, err := command.CombinedOutput()
			if err == nil {
				t.Fatalf("%s passed:\n%s", test.by, output)
			}
			if !strings.Contains(string(output), "--- FAIL: TestOfABrokenStore/"+test.by+" ") {
				t.Fatalf("it did not fail in %s, but: %v\n%s", test.by, err, output)
			}
		})
	}
}
