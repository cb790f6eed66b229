package failstop

import "sync"

// Fault is the first failure that made a store untrustworthy. It never goes away: what a disk holds after a failed write or fsync
// is not known, and a second fsync that succeeds says nothing about the first. The zero Fault is ready, and its methods are safe from several
// goroutines.
type Fault struct {
	mu   sync.Mutex
	err  error
	tell []func(error)
}

// Set notes a failure, unless there is an earlier one.
func (f *Fault) Set(err error) {
	f.mu.Lock()
	var told []func(error)
	if f.err == nil {
		f.err, told, f.tell = err, f.tell, nil
	}
	f.mu.Unlock()
	for _, tell := range told {
		tell(err)
	}
}

// Get returns the failure, or nil.
func (f *Fault) Get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Notify has tell called once, when a failure is set, or at once if one is set already. It must not block: whoever met the failure, and
// Pebble's locks, wait for it.
func (f *Fault) Notify(tell func(error)) {
	f.mu.Lock()
	err := f.err
	if err == nil {
		f.tell = append(f.tell, tell)
	}
	f.mu.Unlock()
	if err != nil {
		tell(err)
	}
}
