package spanwire

import (
	"errors"
	"fmt"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// The lengths of ids, by the W3C recommendation.
const (
	traceIDLength = 16
	spanIDLength  = 8
)

// ErrMalformed says that a message does not hold spans.
var ErrMalformed = errors.New("not a message of spans")

// Decode reads a message of spans, whose ids then have the right lengths. Error: ErrMalformed.
func Decode(raw []byte) ([]*tracepb.ResourceSpans, error) {
	var data tracepb.TracesData
	if err := proto.Unmarshal(raw, &data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	for _, r := range data.ResourceSpans {
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				parent := len(s.GetParentSpanId())
				if len(s.GetTraceId()) != traceIDLength || len(s.GetSpanId()) != spanIDLength || (parent != 0 && parent != spanIDLength) {
					return nil, fmt.Errorf("%w: ids of %d, %d and %d bytes", ErrMalformed, len(s.GetTraceId()), len(s.GetSpanId()), parent)
				}
			}
		}
	}
	return data.ResourceSpans, nil
}
