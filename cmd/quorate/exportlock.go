//go:build !windows

package main

import (
	"os"
	"syscall"
)

// lockFile takes the lock of an open file, if nobody has it. It is held until the file is closed, or the process ends, however that happens.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
