//go:build race

package rig

// raceDetector says that the tests run with the race detector.
const raceDetector = true
