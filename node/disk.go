package node

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/dustin/go-humanize"
)

// A disk with less room than both of these is worth a warning: the log grows while snapshots cannot be built, and a node whose disk is
// full stops.
const (
	scarceFraction = 10 // a tenth of the disk
	scarceBytes    = 4 << 30
)

// diskWarning says in words that the disk is about to be full, or nothing.
func (n *Node) diskWarning() string {
	if n.cfg.Dir == "" {
		return ""
	}
	usage, err := vfs.Default.GetDiskUsage(n.cfg.Dir)
	if err != nil {
		return ""
	}
	return scarce(n.cfg.Dir, usage)
}

func scarce(dir string, usage vfs.DiskUsage) string {
	if usage.AvailBytes >= scarceBytes || usage.AvailBytes >= usage.TotalBytes/scarceFraction {
		return ""
	}
	return fmt.Sprintf("the disk of %s is nearly full: %s of %s are left; a node whose disk is full stops", dir,
		humanize.IBytes(usage.AvailBytes), humanize.IBytes(usage.TotalBytes))
}
