//go:build race

package grant

// The race detector also checks every pointer of the SQLite library, which makes it 25 times slower.
const manyGrants = 1_000
