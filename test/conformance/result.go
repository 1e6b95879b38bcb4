package main

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

type outcome string

const (
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped"
	// missing: the other side has a result for this test and this one has none.
	missing outcome = "missing"
)

// result is what became of one test on one side. why is for people: a log's name, an error's text, a skip's reason. shown,
// where a suite has it, is what the test printed: two failures with different words are a difference too.
type result struct {
	test    string
	outcome outcome
	why     string
	shown   string
	times   int // how often it was run, where more than once
}

// comparison is one suite's results on both sides, by test.
type comparison struct {
	suite           string
	direct, gateway map[string]result
	broken          error // why the suite could not be run whole
}

func (c *comparison) add(side string, results []result) {
	byTest := make(map[string]result, len(results))
	for _, r := range results {
		if before, twice := byTest[r.test]; twice && before.outcome != passed {
			continue // a test that ran twice is as good as its worst run
		}
		byTest[r.test] = r
	}
	if side == "direct" {
		c.direct = byTest
	} else {
		c.gateway = byTest
	}
}

func (c *comparison) tests() []string {
	all := maps.Clone(c.direct)
	maps.Copy(all, c.gateway)
	return slices.Sorted(maps.Keys(all))
}

func on(results map[string]result, test string) result {
	if r, ok := results[test]; ok {
		return r
	}
	return result{test: test, outcome: missing, why: "no result"}
}

type report []comparison

// judge makes the table and the verdict. An error says how many differences, unlisted skips, unlisted direct failures or
// expectations that did not come true there were; their names stand below the table.
func (r report) judge(expected expectations) (string, error) {
	var table, notes strings.Builder
	table.WriteString("\n| suite | tests | passed direct | passed through | differences |\n|---|---:|---:|---:|---:|\n")
	var differences, unlisted, stale, broken int
	for _, c := range r {
		var direct, gateway, different int
		for _, test := range c.tests() {
			d, g := on(c.direct, test), on(c.gateway, test)
			if d.outcome == passed {
				direct++
			}
			if g.outcome == passed {
				gateway++
			}
			for _, one := range []struct {
				side string
				result
			}{{"direct", d}, {"through", g}} {
				if one.times > 1 && one.outcome == passed {
					fmt.Fprintf(&notes, "REPEATED   %s/%s: passed %s when run for time %d\n", c.suite, test, one.side, one.times)
				}
			}
			reason, listed := expected.reason(c.suite, test)
			switch {
			case d.outcome == passed && g.outcome != passed && (g.outcome != skipped || !listed):
				different++
				fmt.Fprintf(&notes, "DIFFERENT  %s/%s: passed direct, %s through the gateway: %s\n", c.suite, test, g.outcome, g.why)
			case d.outcome == passed && g.outcome == passed && listed:
				stale++
				fmt.Fprintf(&notes, "STALE      %s/%s: passed on both sides; take it out of expected.txt\n", c.suite, test)
			case d.outcome == passed && g.outcome == passed:
			case d.outcome == failed && g.outcome == failed && d.shown != g.shown:
				different++
				fmt.Fprintf(&notes, "DIFFERENT  %s/%s: fails on both sides, with other words: %s and %s\n", c.suite, test, d.why, g.why)
			case listed:
				fmt.Fprintf(&notes, "expected   %s/%s: %s direct, %s through: %s\n", c.suite, test, d.outcome, g.outcome, reason)
			default:
				unlisted++
				fmt.Fprintf(&notes, "UNLISTED   %s/%s: %s direct (%s), %s through (%s); not in expected.txt\n", c.suite, test, d.outcome, d.why, g.outcome, g.why)
			}
		}
		fmt.Fprintf(&table, "| %s | %d | %d | %d | %d |\n", c.suite, len(c.tests()), direct, gateway, different)
		differences += different
		for _, test := range expected.of(c.suite) {
			if on(c.direct, test).outcome == missing && on(c.gateway, test).outcome == missing {
				stale++
				fmt.Fprintf(&notes, "STALE      %s/%s: there is no such test; take it out of expected.txt\n", c.suite, test)
			}
		}
		if c.broken != nil {
			broken++
			fmt.Fprintf(&notes, "BROKEN     %s: %v\n", c.suite, c.broken)
		}
		if direct == 0 {
			unlisted++
			fmt.Fprintf(&notes, "UNLISTED   %s: nothing passed direct, so nothing was compared\n", c.suite)
		}
	}
	text := table.String()
	if notes.Len() > 0 {
		text += "\n" + notes.String()
	}
	var verdict error
	if differences > 0 {
		verdict = fmt.Errorf("%d tests pass direct and not through the gateway, or fail otherwise there", differences)
	}
	if unlisted > 0 {
		verdict = errors.Join(verdict, fmt.Errorf("%d tests did not pass on both sides and are not in expected.txt", unlisted))
	}
	if stale > 0 {
		verdict = errors.Join(verdict, fmt.Errorf("%d tests stand in expected.txt and passed, or are not there", stale))
	}
	if broken > 0 {
		verdict = errors.Join(verdict, fmt.Errorf("%d suites could not be run", broken))
	}
	return text, verdict
}

// expectations are the tests that may be skipped, or fail on both sides, each with the reason why. They never excuse a
// test that passes direct and fails through the gateway.
type expectations map[string]string

func (e expectations) reason(suite, test string) (string, bool) {
	reason, ok := e[suite+"/"+test]
	return reason, ok
}

// of gives the tests of one suite, in order.
func (e expectations) of(suite string) []string {
	var tests []string
	for _, name := range slices.Sorted(maps.Keys(e)) {
		if test, found := strings.CutPrefix(name, suite+"/"); found {
			tests = append(tests, test)
		}
	}
	return tests
}

// readExpected reads lines of the form "SUITE/TEST reason in words"; empty lines and lines that begin with # are nothing.
func readExpected(name string) (expectations, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	expected := expectations{}
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		test, reason, _ := strings.Cut(line, " ")
		if !strings.Contains(test, "/") || strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s:%d: expected SUITE/TEST and a reason, found %q", name, number, line)
		}
		expected[test] = strings.TrimSpace(reason)
	}
	return expected, lines.Err()
}
