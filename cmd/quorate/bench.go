package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"quorate/node/kv"
)

func (a *app) benchCommand() *cobra.Command {
	var client clientFlags
	var load benchLoad
	var connections int
	var showProgress bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast a cluster writes and reads",
		Long: `Measure how fast a cluster writes and reads: --clients goroutines each send one request after the other, each as soon as the
one before is answered (a closed loop). Keys are drawn evenly from --keys keys that begin with --prefix; values are random
bytes. For gets, all keys are written first. What is done in --warmup does not count. The keys stay in the store.

Latencies are from call to answer, in microseconds, from an HdrHistogram of two significant digits. Requests that failed are
counted by kind, and not in the latencies.

Exit status 3 if no request was answered.`,
		Example: `  quorate bench
  quorate bench --clients 1 --duration 30s
  quorate bench --ops mix --size 1024 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := load.check(); err != nil {
				return err
			}
			if connections < 1 || connections > load.Clients {
				return usagef("--connections %d must be from 1 to --clients, %d", connections, load.Clients)
			}
			clients, links, err := client.openClients(cmd.Context(), connections)
			if err != nil {
				return err
			}
			defer closeClients(clients, links)
			return links[0].explain(a.bench(cmd.Context(), load, clients, client.timeout, showProgress)) // they are all one user's
		},
	}
	client.add(cmd.Flags())
	addProgressFlag(cmd.Flags(), &showProgress)
	cmd.Flags().IntVar(&load.Clients, "clients", 256, "how many requests are under way at once")
	cmd.Flags().IntVar(&connections, "connections", 1, "how many NATS connections the clients share")
	cmd.Flags().IntVar(&load.Size, "size", 256, "bytes of a value")
	cmd.Flags().DurationVar(&load.duration, "duration", 10*time.Second, "how long to measure")
	cmd.Flags().DurationVar(&load.warmup, "warmup", time.Second, "how long to run before measuring")
	cmd.Flags().StringVar(&load.Ops, "ops", opsPut, "what to do: put, get, or mix (half and half)")
	cmd.Flags().IntVar(&load.Keys, "keys", 10_000, "how many different keys")
	cmd.Flags().StringVar(&load.prefix, "prefix", "bench/", "what the keys begin with")
	return cmd
}

// openClients returns that many clients, each over a connection of its own.
func (f *clientFlags) openClients(ctx context.Context, n int) (clients []*kv.Client, links []*link, err error) {
	for range n {
		l, err := f.connect(ctx, "bench")
		if err != nil {
			closeClients(clients, links)
			return nil, nil, err
		}
		c, err := kv.NewClient(l.conn, l.cluster)
		if err != nil {
			l.conn.Close()
			closeClients(clients, links)
			return nil, nil, fmt.Errorf("client of cluster %s: %w", l.cluster, err)
		}
		clients, links = append(clients, c), append(links, l)
	}
	return clients, links, nil
}

func closeClients(clients []*kv.Client, links []*link) {
	for i, c := range clients {
		_ = c.Close() // nothing waits any more
		links[i].conn.Close()
	}
}

func (a *app) bench(ctx context.Context, load benchLoad, clients []*kv.Client, timeout time.Duration, showProgress bool) error {
	b := newBenchRun(load, clients, timeout)
	if load.Ops != opsPut {
		bar := a.newProgress(showProgress, int64(load.Keys), false, "writing the keys")
		err := b.fill(ctx, bar)
		bar.end()
		if err != nil {
			return fmt.Errorf("bench: write the keys to read: %w", err)
		}
	}
	b.measure(ctx, a.newProgress(showProgress, int64((load.warmup+load.duration)/time.Second), false, "measuring"))
	result := b.result()
	if err := a.printBench(result); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("bench: ended before its time: %w", context.Cause(ctx))
	}
	if result.Operations == 0 && isTooLarge(result.firstError) {
		return fmt.Errorf("bench: no value was taken: %w", result.firstError)
	}
	if result.Operations == 0 && result.firstError == nil {
		return withStatus(statusUnavailable, fmt.Errorf("bench: no request was answered within the --duration of %v", load.duration))
	}
	if result.Operations == 0 {
		return withStatus(statusUnavailable, fmt.Errorf("bench: no request was answered: %v", result.firstError))
	}
	return nil
}

func (a *app) printBench(r benchResult) error {
	if a.json() {
		return a.printJSON(r)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d clients, %d-byte values, %d keys, %.1f s\n\n", r.Load.Clients, r.Load.Size, r.Load.Keys, r.Seconds)
	table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tops\tops/s\tvalues/s\tp50 µs\tp90 µs\tp99 µs\tp99.9 µs\tmax µs\t")
	for _, op := range slices.Sorted(maps.Keys(r.Ops)) {
		m := r.Ops[op]
		fmt.Fprintf(table, "%s\t%d\t%.0f\t%s\t%d\t%d\t%d\t%d\t%d\t\n", op, m.Operations, m.PerSecond,
			humanize.IBytes(uint64(m.BytesPerSecond)), m.Latency.P50, m.Latency.P90, m.Latency.P99, m.Latency.P999, m.Latency.Max)
	}
	_ = table.Flush() // to memory
	for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(&text, "\nerrors: %s: %d", kind, r.Errors[kind])
	}
	if len(r.Errors) > 0 {
		fmt.Fprintf(&text, "\nfirst error: %v\n", r.firstError)
	}
	return a.printf("%s", text.String())
}
