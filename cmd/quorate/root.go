package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// app is one invocation of the binary: where it reads and writes, and the flags that all commands have.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	output string
	// begun is set once arguments and flags are found to be right: an error before that is one of usage.
	begun bool
	// unknown is of a command that there is none of, whose help was asked for.
	unknown error
}

// run executes one command line and returns the exit status. It blocks until the command is done or ctx has ended and the
// command has stopped in good order.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	shown := &checkedWriter{to: stdout}
	root.SetOut(shown)
	cmd, err := root.ExecuteContextC(ctx)
	err = cmp.Or(err, a.unknown)
	switch {
	case err == nil && shown.err == nil:
		return statusDone
	case err == nil:
		err = fmt.Errorf("write the output: %w", shown.err)
	case !a.begun:
		err = &usageError{err: err}
	}
	status := exitStatus(ctx, err)
	fmt.Fprintf(stderr, "quorate: %v\n", err)
	if status == statusUsage {
		fmt.Fprintf(stderr, "Run `%s --help` for usage.\n", cmd.CommandPath())
	}
	return status
}

// checkedWriter remembers that a write failed, which cobra does not tell when it shows help.
type checkedWriter struct {
	to  io.Writer
	err error
}

func (w *checkedWriter) Write(b []byte) (int, error) {
	n, err := w.to.Write(b)
	w.err = cmp.Or(w.err, err)
	return n, err
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "quorate",
		Short: "A replicated, durable key-value store on the NATS you already run",
		Long: `Quorate replicates a state machine over NATS: nodes have no addresses and no open ports of their own.

Start with ` + "`quorate dev`" + `: a NATS server and a three-node cluster in one process. ` + "`quorate serve`" + ` runs one node of a
real cluster. The other commands are clients of a cluster's key-value store.

Exit status:
` + exitStatuses,
		Example: `  quorate dev                  # in one terminal
  quorate put greeting hello   # in another
  quorate get greeting
  quorate status`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.ValidateRequiredFlags(); err != nil {
				return err
			}
			return a.begin()
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetIn(a.stdin)
	root.SetErr(a.stderr)
	root.PersistentFlags().StringVarP(&a.output, "output", "o", outputText, "form of the output: text or json")
	root.AddCommand(
		a.devCommand(), a.serveCommand(),
		a.putCommand(), a.getCommand(), a.delCommand(), a.lsCommand(),
		a.statusCommand(), a.healthCommand(), a.leaderCommand(),
		a.memberCommand(), a.settingCommand(), a.snapshotCommand(), a.historyCommand(),
		a.importCommand(), a.exportCommand(),
		a.recoverCommand(),
		a.traceCommand(), a.benchCommand(), a.versionCommand(),
	)
	refuseUnknownCommands(root)
	a.refuseHelpOfUnknownCommands(root)
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Example = "  quorate help member add"
		help.Args = func(_ *cobra.Command, args []string) error {
			if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
				return fmt.Errorf("unknown command %q", strings.Join(args, " "))
			}
			return nil
		}
	}
	return root
}

// refuseUnknownCommands has the commands that only hold others show their help, but not to who mistyped one of those and would take the exit
// status for a yes.
func refuseUnknownCommands(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		refuseUnknownCommands(sub)
	}
	if cmd.HasParent() && !cmd.Runnable() {
		cmd.Args = cobra.NoArgs
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
}

// refuseHelpOfUnknownCommands: cobra shows help before it looks at arguments.
func (a *app) refuseHelpOfUnknownCommands(root *cobra.Command) {
	show := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if cmd.HasSubCommands() {
			if a.unknown = cobra.NoArgs(cmd, cmd.Flags().Args()); a.unknown != nil {
				return
			}
		}
		show(cmd, args)
	})
}

func (a *app) begin() error {
	if a.output != outputText && a.output != outputJSON {
		return fmt.Errorf("--output is %q: it must be %s or %s", a.output, outputText, outputJSON)
	}
	a.begun = true
	return nil
}

// takes is for commands with just these arguments.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s: %s is missing", cmd.Name(), names[len(args)])
		case len(args) > len(names):
			return fmt.Errorf("%s takes %s; %q is too much", cmd.Name(), strings.Join(names, " and "), args[len(names)])
		}
		return nil
	}
}

// takesPath is takes of one name. An empty path is a variable that was not set, and not the present directory.
func takesPath(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := takes(name)(cmd, args); err != nil {
			return err
		}
		if args[0] == "" {
			return fmt.Errorf("%s: %s is empty", cmd.Name(), name)
		}
		return nil
	}
}

// within bounds an operation by the timeout that a user gave.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v: %w", timeout, context.DeadlineExceeded))
}
