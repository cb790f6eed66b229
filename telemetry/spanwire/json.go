package spanwire

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// JSON writes spans in the JSON form of OTLP, as backends and the collector take it. It is that of Protocol Buffers, but for ids, which are
// hexadecimal, and enumerations, which are numbers.
func JSON(spans []*tracepb.ResourceSpans) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseEnumNumbers: true}.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return nil, fmt.Errorf("spans as JSON: %w", err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, fmt.Errorf("spans as JSON: %w", err)
	}
	if err := hexIDs(tree); err != nil {
		return nil, fmt.Errorf("spans as JSON: %w", err)
	}
	if raw, err = json.Marshal(tree); err != nil {
		return nil, fmt.Errorf("spans as JSON: %w", err)
	}
	return raw, nil
}

// hexIDs rewrites the ids of spans and links. No other field of OTLP has these names: attributes are lists of key and value.
func hexIDs(tree any) error {
	switch node := tree.(type) {
	case []any:
		for _, n := range node {
			if err := hexIDs(n); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, n := range node {
			text, isText := n.(string)
			if isText && (name == "traceId" || name == "spanId" || name == "parentSpanId") {
				id, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					return err
				}
				node[name] = hex.EncodeToString(id)
				continue
			}
			if err := hexIDs(n); err != nil {
				return err
			}
		}
	}
	return nil
}
