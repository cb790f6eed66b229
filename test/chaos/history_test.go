package chaos

import (
	"testing"

	"quorate/node/kv"
)

// What the judge of all histories accepts and refuses; without this, a judge that accepts everything would not be noticed.
func TestHistoriesAreJudged(t *testing.T) {
	type step struct {
		from, to int64
		call     call
		answer   answer
		unknown  bool
	}
	put1 := step{1, 2, call{kind: put, value: 1}, answer{revision: 10}, false}
	put2 := step{3, 4, call{kind: put, value: 2}, answer{revision: 20}, false}
	for name, test := range map[string]struct {
		steps []step
		wrong bool
	}{
		"read of the newest value":         {[]step{put1, put2, {5, 6, call{}, answer{2, 20, false}, false}}, false},
		"stale read":                       {[]step{put1, put2, {5, 6, call{}, answer{1, 10, false}, false}}, true},
		"old value while it is replaced":   {[]step{put1, put2, {3, 4, call{}, answer{1, 10, false}, false}}, false},
		"acknowledged write is lost":       {[]step{put1, {3, 4, call{}, answer{}, false}}, true},
		"revision goes back":               {[]step{put2, {5, 6, call{kind: put, value: 1}, answer{revision: 10}, false}}, true},
		"value has another revision":       {[]step{put1, {3, 4, call{}, answer{1, 11, false}, false}}, true},
		"condition that does not hold":     {[]step{put1, {3, 4, call{kind: putIf, value: 2, expected: 9}, answer{revision: 11}, false}}, true},
		"condition that holds is refused":  {[]step{put1, {3, 4, call{kind: putIf, value: 2, expected: 10}, answer{refused: true}, false}}, true},
		"unknown write seen late":          {[]step{{1, 2, call{kind: put, value: 1}, answer{}, true}, {5, 6, call{}, answer{}, false}, {7, 8, call{}, answer{1, 10, false}, false}}, false},
		"unknown write seen and gone":      {[]step{{1, 2, call{kind: put, value: 1}, answer{}, true}, {5, 6, call{}, answer{1, 10, false}, false}, {7, 8, call{}, answer{}, false}}, true},
		"unknown write done twice":         {[]step{{1, 2, call{kind: put, value: 1}, answer{}, true}, {3, 4, call{}, answer{1, 10, false}, false}, put2, {5, 6, call{}, answer{1, 10, false}, false}}, true},
		"removed twice":                    {[]step{put1, {3, 4, call{kind: remove}, answer{revision: 11}, false}, {5, 6, call{kind: remove}, answer{revision: 12}, false}}, true},
		"nothing to remove though it is":   {[]step{put1, {3, 4, call{kind: remove}, answer{refused: true}, false}}, true},
		"nothing to remove as it is":       {[]step{put1, {3, 4, call{kind: remove}, answer{revision: 11}, false}, {5, 6, call{kind: remove}, answer{refused: true}, false}}, false},
		"refused by an unknown write":      {[]step{put1, {3, 4, call{kind: put, value: 2}, answer{}, true}, {5, 6, call{kind: putIf, value: 3, expected: 10}, answer{refused: true}, false}}, false},
		"created over what there is":       {[]step{put1, {3, 4, call{kind: putIf, value: 2}, answer{revision: 11}, false}}, true},
		"unknown removal explains absence": {[]step{put1, {3, 4, call{kind: remove}, answer{}, true}, {5, 6, call{}, answer{}, false}}, false},
	} {
		h := newHistory()
		for _, s := range test.steps {
			s.call.key = "k"
			h.writing(s.call)
			var err error
			if s.unknown {
				err = kv.ErrUnknownOutcome
			}
			h.note(1, s.from, s.call, s.answer, err)
			if last := &h.ops[len(h.ops)-1]; err == nil {
				last.Return = s.to
			}
		}
		if err := h.check(); (err != nil) != test.wrong {
			t.Errorf("%s: %v", name, err)
		}
	}
}
