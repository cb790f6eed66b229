package node

import "testing"

// TestEachViolationIsCounted: also the second one of a kind is in the status.
func TestEachViolationIsCounted(t *testing.T) {
	n := startAlone(t, t.TempDir(), t.TempDir(), &timesMachine{system: map[string][]byte{}})
	for times := range uint64(3) {
		if _, err := inCore(t.Context(), n, func(c *raftCore) (struct{}, error) {
			c.refuse("n2 lies")
			return struct{}{}, nil
		}); err != nil {
			t.Fatal(err)
		}
		if refused := n.Status().Refused["n2 lies"]; refused != times+1 {
			t.Errorf("%d were refused, and the status says %d", times+1, refused)
		}
	}
}
