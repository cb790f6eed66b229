package pebblelog

import "sync/atomic"

// fault is the first failure that made the store untrustworthy. It never goes away: what a disk holds after a failed write or fsync
// is not known, and a second fsync that succeeds says nothing about the first.
type fault struct {
	err     atomic.Pointer[error]
	onFatal func(error)
}

func (f *fault) set(err error) {
	if f.err.CompareAndSwap(nil, &err) && f.onFatal != nil {
		f.onFatal(err)
	}
}

func (f *fault) get() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}
