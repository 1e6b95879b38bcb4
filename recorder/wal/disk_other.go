//go:build !linux

package wal

import "os"

// writeBack brings what was written to the file to the disk.
func writeBack(f *os.File, _, _ int64) error { return f.Sync() }
