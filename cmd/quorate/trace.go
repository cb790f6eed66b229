package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/term"

	"quorate/node/kv"
	"quorate/telemetry"
	"quorate/telemetry/spanwire"
	"quorate/telemetry/waterfall"
)

const (
	// gatherTime is how long spans are waited for at most, once the operation is done. A follower that is away sends none.
	gatherTime = 3 * time.Second
	// pageWidth is the width of a drawing that goes to no terminal.
	pageWidth = 120
)

func (a *app) traceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Show where one request spends its time, on every node",
		Long: `Run one operation, collect its spans from all nodes over NATS, and draw them: a line a span, with its node and goroutine, to
scale, what the answer waited for marked. It needs no backend, and costs other requests nothing.`,
		Example: `  quorate trace put greeting hello
  quorate trace get greeting`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return usagef("say what to trace: put or get") },
	}
	cmd.AddCommand(a.tracePutCommand(), a.traceGetCommand())
	return cmd
}

func (a *app) tracePutCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "put KEY VALUE | -",
		Short: "Store a value and show where the time went",
		Long: `Store a value under a key, and show where the time went. VALUE "-" reads it from standard input. With --output json: the
spans in OTLP's JSON form, one line, which OpenTelemetry backends take.`,
		Example: `  quorate trace put greeting hello
  quorate trace put greeting hello --output json > trace.json`,
		Args: takes("KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := a.value(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			return a.trace(cmd.Context(), &client, func(ctx context.Context, c *kv.Client) (string, error) {
				revision, err := c.Put(ctx, args[0], value)
				return fmt.Sprintf("revision %d", revision), err
			})
		},
	}
	client.add(cmd.Flags())
	return cmd
}

func (a *app) traceGetCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Read a value and show where the time went",
		Long: `Read the value of a key, linearizably, and show where the time went. Exit status 1 if there is no such key, which is traced
all the same. With --output json: the spans in OTLP's JSON form, one line.`,
		Example: `  quorate trace get greeting`,
		Args:    takes("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.trace(cmd.Context(), &client, func(ctx context.Context, c *kv.Client) (string, error) {
				entry, err := c.Get(ctx, args[0])
				return fmt.Sprintf("revision %d, %d bytes", entry.Revision, len(entry.Value)), err
			})
		},
	}
	client.add(cmd.Flags())
	return cmd
}

// trace runs one operation fully sampled, and shows its spans, also when it fails. The operation's error is the command's.
func (a *app) trace(ctx context.Context, flags *clientFlags, operation func(context.Context, *kv.Client) (string, error)) error {
	l, err := flags.connect(ctx, "trace")
	if err != nil {
		return err
	}
	defer l.conn.Close()
	asking, cancel := within(ctx, flags.timeout)
	defer cancel()
	collector, err := spanwire.Collect(asking, l.conn, spanwire.Subject(subjectPrefix, l.cluster))
	if err != nil {
		return err
	}
	defer func() { _ = collector.Close() }() // its connection is closed next
	var own spanwire.Own
	exporter, err := own.Exporter(ctx)
	if err != nil {
		return err
	}
	// The OTEL_* variables are not asked, but for limits: a trace that a person asks for is always sampled, and goes to the person.
	recorder := telemetry.NewRecorder(resource.NewSchemaless(attribute.String("service.name", "quorate-client"), telemetry.ClusterKey.String(l.cluster)),
		sdktrace.NewSimpleSpanProcessor(exporter))
	client, err := kv.NewClient(l.conn, l.cluster, kv.WithMessageIDs(), kv.WithTelemetry(telemetry.New(telemetry.Options{Recorder: recorder})))
	if err != nil {
		return fmt.Errorf("client of cluster %s: %w", l.cluster, err)
	}
	result, failure := operation(spanwire.Ask(asking), client)
	err = errors.Join(client.Close(), recorder.Shutdown(context.WithoutCancel(ctx))) // which waits for nobody
	if failure == nil {
		if err == nil {
			err = a.showTrace(ctx, collector, &own, result, false)
		}
		if err != nil {
			err = fmt.Errorf("done (%s), but its trace is not shown: %w", result, err)
		}
		return err
	}
	if ctx.Err() != nil {
		return failure // who interrupts it waits for no spans
	}
	if forbidden := l.forbidden(failure); forbidden != nil {
		failure = forbidden
	} else if isUnavailable(failure) {
		failure = fmt.Errorf("cluster %s at %s: %w: `quorate status` shows its nodes", l.cluster, l.at(), failure)
	}
	return errors.Join(failure, a.showTrace(ctx, collector, &own, result, true))
}

// showTrace gathers the spans and prints them.
func (a *app) showTrace(ctx context.Context, collector *spanwire.Collector, own *spanwire.Own, result string, failed bool) error {
	mine := own.Spans()
	if len(mine) == 0 {
		return nil // the operation was not begun, and its error says why
	}
	var id trace.TraceID
	copy(id[:], mine[0].ScopeSpans[0].Spans[0].TraceId)
	gathering, cancel := context.WithTimeout(ctx, gatherTime)
	defer cancel()
	spans, complete, err := collector.Gather(gathering, id, mine)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !complete {
		fmt.Fprintf(a.stderr, "Not all spans came within %v: a node may be away, or its connection's user may not publish them.\n", gatherTime)
	}
	if a.json() {
		raw, err := spanwire.JSON(spans)
		if err != nil {
			return err
		}
		return a.printf("%s\n", raw)
	}
	drawing, err := waterfall.Build(spans)
	if err != nil {
		return fmt.Errorf("draw trace %s: %w", id, err)
	}
	if !failed {
		if err := a.printf("%s, trace %s\n\n", result, id); err != nil {
			return err
		}
	}
	if err := drawing.Draw(a.stdout, a.width()); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// width is that of the terminal, in cells.
func (a *app) width() int {
	if f, ok := a.stdout.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return pageWidth
}
