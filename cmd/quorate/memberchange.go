package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"quorate/node"
	"quorate/node/raft"
)

// changeMembers makes a change that is planned from the present membership, and plans it anew when that has changed meanwhile or the leader
// was lost with it: what is done already is not done twice, since a plan says how the members shall be. It returns the membership
// afterwards. It blocks until the context ends.
func changeMembers(ctx context.Context, admin *node.Admin, force bool, plan func(node.Membership) (node.MembershipChange, error)) (node.Membership, error) {
	var reason error // of the newest try that failed while there was time
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = 50*time.Millisecond, time.Second
	for again := false; ; again = true {
		after, err := changeOnce(ctx, admin, force, again, plan)
		late := ctx.Err() != nil
		switch {
		case err != nil && late && reason != nil:
			return after, fmt.Errorf("%w (before that: %w)", err, reason)
		case err == nil || late || !passes(err):
			return after, err
		}
		reason = err
		select {
		case <-time.After(waits.NextBackOff()):
		case <-ctx.Done():
		}
	}
}

// changeOnce tries once. again: an earlier try may have done it.
func changeOnce(ctx context.Context, admin *node.Admin, force, again bool, plan func(node.Membership) (node.MembershipChange, error)) (node.Membership, error) {
	now, err := admin.Membership(ctx)
	if err != nil {
		return now, err
	}
	change, err := plan(now)
	var gone *goneError
	if again && errors.As(err, &gone) { // they were members at first: what is to be done with them is done
		if gone.all {
			return now, nil
		}
		err = nil
	}
	if err != nil {
		return now, err
	}
	change.If, change.Force = &now.ID, force
	if _, err := admin.ChangeMembership(ctx, change); err != nil {
		return now, err
	}
	return admin.Membership(ctx)
}

// passes reports whether an error comes from the moment, so that the change is worth another try.
func passes(err error) bool {
	var notLeader *node.NotLeaderError
	var changed *raft.ChangedError
	if errors.As(err, &notLeader) || errors.As(err, &changed) {
		return true
	}
	for _, moment := range []error{
		node.ErrLost, node.ErrUnknownOutcome, node.ErrBusy, node.ErrStopped,
		raft.ErrChangePending, raft.ErrTransferring, raft.ErrNotReady,
	} {
		if errors.Is(err, moment) {
			return true
		}
	}
	return false
}
