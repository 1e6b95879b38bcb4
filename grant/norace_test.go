//go:build !race

package grant

const manyGrants = 10_000
