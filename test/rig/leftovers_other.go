//go:build unix && !linux

package rig

// Elsewhere processes do not show their environments, and the tests mount nothing.
func startedIn(string) []int { return nil }

func unmountIn(string) {}
