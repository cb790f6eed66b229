package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes the lock of an open file, if nobody has it. It is held until the file is closed, or the process ends, however that happens.
func lockFile(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
}
