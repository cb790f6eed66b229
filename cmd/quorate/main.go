// Command quorate is the one binary of Quorate: `quorate dev` is a cluster to try things with, `quorate serve` is one node of a
// real one, and the other commands are clients of a cluster's key-value store.
//
// Each command is in a file of its name. What they share: the connection flags (connection.go), exit statuses (exit.go),
// output (output.go, progress.go), signals (interrupt.go), and how one node with its store is run (member.go).
package main

import (
	"context"
	"os"
)

func main() {
	ctx := interruptible(context.Background())
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
