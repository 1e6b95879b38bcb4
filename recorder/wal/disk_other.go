//go:build !linux

package wal

import "os"

// SyncData waits until the file is on stable storage; on macOS Sync is F_FULLFSYNC.
func SyncData(f *os.File) error { return f.Sync() }

// writeBack brings what was written to the file to the disk.
func writeBack(f *os.File, _, _ int64) error { return f.Sync() }
