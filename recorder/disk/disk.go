// Package disk is what the session log does to the file system beside writing: files that are on stable storage under their
// names when a call returns, room that is kept for endings (Ballast), how much is free, and what an error says of the disk.
//
// A sync that failed is never tried again by anybody, for the kernel may answer the second one with success though the data are
// gone; IsUnknown and IsBroken tell which errors are of that kind.
package disk

import (
	"errors"
	"syscall"
)

// IsFull reports whether an error is want of room: disk, quota or file size.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// IsBroken reports whether an error says that the disk is not to be trusted with anything more.
func IsBroken(err error) bool {
	return IsUnknown(err) || !IsFull(err) && (errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS))
}

// IsUnknown reports whether an error leaves open what is on the disk: a SyncError, or another that has its method Unknown.
func IsUnknown(err error) bool {
	_, unknown := errors.AsType[interface {
		error
		Unknown()
	}](err)
	return unknown
}

// SyncError is a sync that failed: what of the file is on the disk is not known, and must not be asked again.
type SyncError struct{ Err error }

func (e *SyncError) Error() string { return "sync the recording: " + e.Err.Error() }
func (e *SyncError) Unwrap() error { return e.Err }

// Unknown marks it for IsUnknown.
func (e *SyncError) Unknown() {}
