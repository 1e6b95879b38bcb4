//go:build race

package grant

import "flag"

// The race detector also checks every pointer of the SQLite library, which makes it 25 times slower; so there is less of
// what is only many times the same.
const manyGrants = 1_000

func init() { flag.Set("rapid.checks", "25") } // the command line still has the last word
