package main

import (
	"errors"
	"strings"
	"testing"
)

// The verdict is what the whole run is for, so it is tested for each way in which two sides can differ.
func TestJudge(t *testing.T) {
	one := func(o outcome) []result { return []result{{test: "t", outcome: o, why: "because"}} }
	for _, c := range []struct {
		name            string
		direct, gateway []result
		listed          bool
		want            string // part of the verdict; empty: the run passes
	}{
		{name: "passes on both", direct: one(passed), gateway: one(passed)},
		{name: "passes on both, listed", direct: one(passed), gateway: one(passed), listed: true, want: "stand in expected.txt and passed"},
		{name: "is not there, listed", listed: true, want: "are not there"},
		{name: "fails through", direct: one(passed), gateway: one(failed), want: "pass direct and not through"},
		{name: "a listed test still may not fail through", direct: one(passed), gateway: one(failed), listed: true, want: "pass direct and not through"},
		{name: "no result through", direct: one(passed), want: "pass direct and not through"},
		{name: "a listed test still needs a result through", direct: one(passed), listed: true, want: "pass direct and not through"},
		{name: "skipped through", direct: one(passed), gateway: one(skipped), want: "pass direct and not through"},
		{name: "skipped through, listed", direct: one(passed), gateway: one(skipped), listed: true},
		{name: "skipped on both", direct: one(skipped), gateway: one(skipped), want: "not in expected.txt"},
		{name: "skipped on both, listed", direct: one(skipped), gateway: one(skipped), listed: true},
		{name: "fails on both", direct: one(failed), gateway: one(failed), want: "not in expected.txt"},
		{name: "fails on both, listed", direct: one(failed), gateway: one(failed), listed: true},
		{name: "fails on both, listed, with other words", direct: one(failed), gateway: []result{{test: "t", outcome: failed, shown: "other"}}, listed: true, want: "fail otherwise"},
		{name: "fails direct only", direct: one(failed), gateway: one(passed), want: "not in expected.txt"},
		{name: "passed once and failed once", direct: one(passed), gateway: append(one(failed), one(passed)...), want: "pass direct and not through"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A second test that passes keeps "nothing passed direct" out of the way.
			fine := result{test: "fine", outcome: passed}
			compared := comparison{suite: "s"}
			compared.add("direct", append(c.direct, fine))
			compared.add("gateway", append(c.gateway, fine))
			expected := expectations{}
			if c.listed {
				expected["s/t"] = "a reason"
			}
			text, err := report{compared}.judge(expected)
			switch {
			case c.want == "" && err != nil:
				t.Fatalf("verdict %v, want none\n%s", err, text)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("verdict %v, want one with %q\n%s", err, c.want, text)
			}
		})
	}
}

func TestJudgeNothingRan(t *testing.T) {
	if _, err := (report{{suite: "s"}}).judge(nil); err == nil {
		t.Fatal("a suite in which nothing passed direct has proved nothing, and the run passed")
	}
}

func TestJudgeBroken(t *testing.T) {
	whole := map[string]result{"t": {test: "t", outcome: passed}}
	if _, err := (report{{suite: "s", direct: whole, gateway: whole, broken: errors.New("no compiler")}}).judge(nil); err == nil {
		t.Fatal("a suite could not be run and the run passed")
	}
}
